#include "errors.hpp"

namespace ingot_python {
namespace {

/// Never freed: errors may be raised while the interpreter ends.
nanobind::object* exceptions = nullptr;

}  // namespace

void set_exceptions(nanobind::object types) {
  if (exceptions == nullptr) exceptions = new nanobind::object;
  *exceptions = std::move(types);
}

void raise(ingot_status status, const std::string& text) {
  const nanobind::object type = (*exceptions)[static_cast<std::size_t>(status)];
  PyErr_SetString(type.ptr(), text.c_str());
  throw nanobind::python_error();
}

void invalid(const std::string& text) { raise(INGOT_INVALID_ARGUMENT, text); }

void check(ingot_status status) {
  if (status != INGOT_OK) raise(status, ingot_last_error());
}

}  // namespace ingot_python
