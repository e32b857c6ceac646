#include "errors.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <new>

namespace ingot_python {
namespace {

namespace nb = nanobind;

constexpr const char* key = "ingot._core.exceptions";

/// The interpreter's own dictionary for extension modules: legacy subinterpreters share this
/// library, but each has exception types of its own. Null while the interpreter ends.
PyObject* dictionary() { return PyInterpreterState_GetDict(PyInterpreterState_Get()); }

void set_error(ingot_status status, const char* text) {
  PyObject* const known = dictionary();
  PyObject* const types = known == nullptr ? nullptr : PyDict_GetItemString(known, key);
  PyObject* const type = types == nullptr ? nullptr : PyTuple_GetItem(types, status);
  PyErr_SetString(type == nullptr ? PyExc_RuntimeError : type, text);
}

void translate(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const CallError& error) {
    set_error(error.status(), error.what());
  } catch (const std::bad_alloc&) {
    set_error(INGOT_OUT_OF_MEMORY, "out of memory on the host");
  }
}

}  // namespace

nb::object set_exceptions(nb::object types) {
  PyObject* const known = dictionary();
  if (known == nullptr) return types;
  if (!PyTuple_Check(types.ptr()) || PyTuple_Size(types.ptr()) != INGOT_CANCELLED + 1) {
    throw nb::type_error("set_exceptions: must be a tuple with a type for each ingot_status");
  }
  if (PyObject* const earlier = PyDict_GetItemString(known, key)) {
    return nb::borrow(earlier);
  }
  if (PyDict_SetItemString(known, key, types.ptr()) != 0) throw nb::python_error();
  return types;
}

void translate_exceptions() { nb::register_exception_translator(&translate); }

void raise(ingot_status status, const std::string& text) { throw CallError(status, text); }

void invalid(const std::string& text) { raise(INGOT_INVALID_ARGUMENT, text); }

void check(ingot_status status) {
  if (status != INGOT_OK) raise(status, ingot_last_error());
}

void invalid_by_exception(const std::string& argument_and_rule) {
  nb::python_error error;
  if (!error.matches(PyExc_Exception)) throw error;
  std::string text = nb::cast<std::string>(nb::str(error.value()));
  text.resize(std::min(text.find('\n'), text.size()));
  const nb::str name(error.type().attr("__name__"));
  invalid(argument_and_rule + ": " + nb::cast<std::string>(name) + ": " + text);
}

}  // namespace ingot_python
