// Failures: thrown as CallError anywhere in the module, raised as Python exceptions where a call of
// Python's ends.
#pragma once

#include <ingot/ingot.h>
#include <nanobind/nanobind.h>

#include <stdexcept>
#include <string>

namespace ingot_python {

/// Needs no interpreter, so that it can be thrown without its lock.
class CallError : public std::runtime_error {
 public:
  CallError(ingot_status status, const std::string& text)
      : std::runtime_error(text), status_(status) {}
  ingot_status status() const { return status_; }

 private:
  ingot_status status_;
};

[[noreturn]] void raise(ingot_status status, const std::string& text);
[[noreturn]] void invalid(const std::string& text);

/// Throws what ingot_last_error() says unless status is INGOT_OK.
void check(ingot_status status);

/// Throws InvalidArgument about `argument` instead of the Python exception that is set. What is no
/// Exception, such as KeyboardInterrupt, is thrown as it is.
[[noreturn]] void invalid_by_exception(const std::string& argument_and_rule);

/// From now on CallError becomes one of `types`, which are the exception types by ingot_status.
/// Returns the types of this interpreter: those of the first call, so that a second import of the
/// package raises what the first one catches.
nanobind::object set_exceptions(nanobind::object types);

/// Tells nanobind of CallError, and that no memory and the like are errors of ingot.
void translate_exceptions();

}  // namespace ingot_python
