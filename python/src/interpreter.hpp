// The interpreter's lock, and what becomes of a thread when the interpreter ends.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>

namespace ingot_python {

/// Until the process ends.
[[noreturn]] void sleep_forever() noexcept;

/// Calls f, which runs Python code or waits for the interpreter's lock. Before 3.14, Python ends a
/// daemon thread that does so while the interpreter ends by pthread_exit. With the GNU C library
/// that unwinds the stack as an exception does (of no type that C++ knows), which may pass neither
/// nanobind nor a destructor: the process would abort. This thread sleeps instead.
template <class F>
auto calling_python(F&& f) {
  try {
    return f();
  } catch (const std::exception&) {
    throw;
  } catch (...) {
    sleep_forever();
  }
}

/// Calls f without the interpreter's lock, which this thread has. What f throws is thrown.
template <class F>
void without_lock(F&& f) {
  std::exception_ptr failure;
  PyThreadState* const thread = PyEval_SaveThread();
  try {
    f();
  } catch (...) {
    failure = std::current_exception();
  }
  calling_python([&] { PyEval_RestoreThread(thread); });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace ingot_python
