// Where the memory of a Python array lies, by whichever protocol the array speaks.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>
#include <string>
#include <vector>

#include "dlpack.hpp"

namespace ingot_python {

/// Holds an array's memory; destroyed with the interpreter's lock. Empty where the array itself
/// holds it.
using Loan = std::unique_ptr<void, void (*)(void*)>;

enum class Access { read, write };

struct Lent {
  dlpack::Tensor tensor{};
  std::vector<std::int64_t> sizes;  ///< what tensor.shape points to, where nobody else has it
  Loan loan{nullptr, [](void*) {}};
};

/// Asks `array` for its memory: by DLPack's C exchange interface (tens of nanoseconds) where its
/// type has it, else by __dlpack__ or the buffer protocol. Throws InvalidArgument naming `argument`
/// where the array has none of them, refuses, or may not be written to and has to be.
Lent borrow(nanobind::handle array, const char* argument, Access access);

}  // namespace ingot_python
