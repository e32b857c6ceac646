#include "loans.hpp"

#include <nanobind/stl/string.h>

#include <cstring>
#include <unordered_map>
#include <utility>

#include "errors.hpp"
#include "interpreter.hpp"

namespace ingot_python {
namespace {

namespace nb = nanobind;
using dlpack::ExchangeApi;

std::string must_be(const char* argument, nb::handle array) {
  return std::string(argument) + ": must be an array that speaks DLPack, got " +
         nb::cast<std::string>(nb::str(array.type()));
}

/// Null where the type has none, or one of another major version.
const ExchangeApi* read_exchange(nb::handle type) {
  const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* api =
      static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  return api->version.major == dlpack::major_version && api->borrow != nullptr ? api : nullptr;
}

/// What is known of a type is forgotten with the type.
const ExchangeApi* exchange_of(PyTypeObject* type) {
  static auto* const known = new std::unordered_map<PyTypeObject*, const ExchangeApi*>;
  if (const auto entry = known->find(type); entry != known->end()) return entry->second;
  const nb::handle object(reinterpret_cast<PyObject*>(type));
  const ExchangeApi* const api = read_exchange(object);
  const nb::object forget = nb::cpp_function([type](nb::handle weak_reference) {
    known->erase(type);
    weak_reference.dec_ref();
  });
  if (PyWeakref_NewRef(object.ptr(), forget.ptr()) == nullptr) throw nb::python_error();
  known->emplace(type, api);
  return api;
}

/// array.__dlpack__(), which gives the newest form that both sides know; null and a Python
/// exception where that fails.
nb::object capsule_of(nb::handle array) {
  static PyObject* const name = PyUnicode_InternFromString("__dlpack__");
  static PyObject* const keyword = Py_BuildValue("(s)", "max_version");
  static PyObject* const version = Py_BuildValue("(II)", dlpack::major_version, 0U);
  PyObject* const arguments[] = {array.ptr(), version};
  return calling_python([&] {
    PyObject* capsule = PyObject_VectorcallMethod(name, arguments, 1, keyword);
    if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {  // before version 1
      PyErr_Clear();
      capsule = PyObject_VectorcallMethod(name, arguments, 1, nullptr);
    }
    return nb::steal(capsule);
  });
}

/// Asked while the exception of capsule_of() is set, which stays.
bool has_dlpack(nb::handle array) {
  const nb::error_scope failure;
  return nb::hasattr(array.type(), "__dlpack__");
}

/// Takes what a capsule holds, and marks it as taken. Null where it is no capsule of this name.
template <class T>
T* take(const nb::object& capsule, const char* name, const char* used_name) {
  if (!PyCapsule_IsValid(capsule.ptr(), name)) return nullptr;
  auto* const managed = static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), name));
  if (PyCapsule_SetName(capsule.ptr(), used_name) != 0) throw nb::python_error();
  return managed;
}

template <class T>
void give_back(void* managed) {
  auto* const lent = static_cast<T*>(managed);
  if (lent->deleter != nullptr) lent->deleter(lent);
}

Lent open(const nb::object& capsule, const char* argument, Access access) {
  if (auto* const managed = take<dlpack::ManagedVersioned>(capsule, "dltensor_versioned",
                                                           "used_dltensor_versioned")) {
    Lent lent{managed->tensor, {}, {managed, &give_back<dlpack::ManagedVersioned>}};
    if (managed->version.major != dlpack::major_version) {
      invalid(std::string(argument) + ": must speak version 1 of DLPack, got version " +
              std::to_string(managed->version.major));
    }
    if (access == Access::write && (managed->flags & dlpack::flag_read_only) != 0) {
      invalid(std::string(argument) + ": must be writable, got a read-only array");
    }
    if (access == Access::write && (managed->flags & dlpack::flag_copied) != 0) {
      invalid(std::string(argument) + ": must be written in place, got a copy of an array");
    }
    return lent;
  }
  if (auto* const managed = take<dlpack::Managed>(capsule, "dltensor", "used_dltensor")) {
    return {managed->tensor, {}, {managed, &give_back<dlpack::Managed>}};
  }
  invalid(std::string(argument) + ": must give a capsule of its own at each call of __dlpack__, " +
          "got one that is used up or no tensor's");
}

void release(void* buffer) {
  PyBuffer_Release(static_cast<Py_buffer*>(buffer));
  delete static_cast<Py_buffer*>(buffer);
}

/// Only what attention computes on, and the bits of bfloat16, has a name here.
dlpack::Dtype dtype_of(const Py_buffer& buffer, const char* argument) {
  const char* format = buffer.format == nullptr ? "B" : buffer.format;
  const std::string whole = format;
  if (std::strchr("@=<", *format) != nullptr) ++format;  // in the byte order of this machine
  const auto bits = static_cast<std::uint8_t>(8 * buffer.itemsize);
  if (std::strlen(format) == 1 && buffer.itemsize <= 16) {
    if (std::strchr("efdg", *format) != nullptr) return {dlpack::code_float, bits, 1};
    if (std::strchr("BHILQN", *format) != nullptr) return {dlpack::code_uint, bits, 1};
    if (std::strchr("bhilqn", *format) != nullptr) return {dlpack::code_int, bits, 1};
    if (*format == '?') return {dlpack::code_bool, bits, 1};
  }
  invalid(std::string(argument) + ".dtype: must be float32, float16, bfloat16 or float64, got " +
          "items of format '" + whole + "'");
}

Lent borrow_buffer(nb::handle array, const char* argument, Access access) {
  auto buffer = std::make_unique<Py_buffer>();
  const int flags = access == Access::write ? PyBUF_RECORDS : PyBUF_RECORDS_RO;
  if (calling_python([&] { return PyObject_GetBuffer(array.ptr(), buffer.get(), flags); }) != 0) {
    invalid_by_exception(std::string(argument) + ": its memory must be open to " +
                         (access == Access::write ? "writing" : "reading"));
  }
  const Py_buffer& b = *buffer;
  Lent lent{{}, {}, {buffer.release(), &release}};
  const auto rank = static_cast<std::size_t>(b.ndim);
  lent.sizes.assign(b.shape, b.shape + rank);
  for (std::size_t i = 0; i < rank; ++i) {
    if (b.itemsize == 0 || b.strides[i] % b.itemsize != 0) {
      invalid(std::string(argument) + ".strides: must be multiples of the element's " +
              std::to_string(b.itemsize) + " bytes, got " + std::to_string(b.strides[i]));
    }
    lent.sizes.push_back(b.strides[i] / b.itemsize);
  }
  std::int64_t* const sizes = lent.sizes.data();
  lent.tensor = {b.buf, {1, 0}, b.ndim, dtype_of(b, argument), sizes, sizes + rank, 0};
  return lent;
}

}  // namespace

Lent borrow(nb::handle array, const char* argument, Access access) {
  if (const ExchangeApi* const api = exchange_of(Py_TYPE(array.ptr()))) {
    Lent lent;  // this form has no word for read-only memory; no package that has it lends any
    const auto ask = [&] { return api->borrow(array.ptr(), &lent.tensor); };
    if (calling_python(ask) != 0) invalid_by_exception(must_be(argument, array));
    return lent;
  }
  if (const nb::object capsule = capsule_of(array); capsule.is_valid()) {
    return open(capsule, argument, access);
  }
  const bool has_buffer = PyObject_CheckBuffer(array.ptr()) != 0;
  if (has_dlpack(array)) {
    // NumPy before 2.1 says so of arrays that are only read.
    if (!has_buffer || PyErr_ExceptionMatches(PyExc_BufferError) == 0) {
      invalid_by_exception(must_be(argument, array));
    }
  }
  PyErr_Clear();
  if (!has_buffer) invalid(must_be(argument, array));
  return borrow_buffer(array, argument, access);
}

}  // namespace ingot_python
