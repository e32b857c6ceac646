// Failures as Python exceptions.
#pragma once

#include <ingot/ingot.h>
#include <nanobind/nanobind.h>

#include <string>

namespace ingot_python {

/// The exception types by ingot_status; set once by the Python side.
void set_exceptions(nanobind::object types);

[[noreturn]] void raise(ingot_status status, const std::string& text);
[[noreturn]] void invalid(const std::string& text);

/// Raises what ingot_last_error() says unless status is INGOT_OK.
void check(ingot_status status);

}  // namespace ingot_python
