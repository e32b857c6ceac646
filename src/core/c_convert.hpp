// The structures of ingot.h as core's aggregates; defaults are resolved here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>

#include "core/error.hpp"
#include "core/problem.hpp"
#include "ingot/ingot.h"

namespace ingot {

Problem to_problem(const ingot_problem& c);
ForwardArgs to_args(const ingot_forward_args& c);
BackwardArgs to_args(const ingot_backward_args& c);

/// Throws Error(invalid_argument) for a field that is to be zero until it has a meaning.
void require_zero(std::int64_t field, const char* argument);

inline void require(const void* pointer, const char* argument) {
  if (pointer == nullptr) {
    throw Error(Code::invalid_argument, std::string(argument) + ": must not be NULL");
  }
}

/// Size of a structure in version 0.1, the least that a caller may pass.
template <class T>
inline constexpr std::size_t first_size = sizeof(T);
template <>
inline constexpr std::size_t first_size<ingot_problem> = offsetof(ingot_problem, precision);
template <>
inline constexpr std::size_t first_size<ingot_forward_args> =
    offsetof(ingot_forward_args, submission);
template <>
inline constexpr std::size_t first_size<ingot_backward_args> =
    offsetof(ingot_backward_args, submission);
template <>
inline constexpr std::size_t first_size<ingot_context_options> =
    offsetof(ingot_context_options, parallel_region);
template <>
inline constexpr std::size_t first_size<ingot_device_info> =
    offsetof(ingot_device_info, description);  // what can be of use

/// The caller's struct in this version's form. It may be of an earlier version (what it lacks is
/// zero) or of a later one (what this version does not know must be zero).
template <class T>
T checked(const T* value, const char* argument) {
  require(value, argument);
  const std::size_t size = value->struct_size;
  if (size < first_size<T>) {
    throw Error(Code::invalid_argument, std::string(argument) + ".struct_size: must be at least " +
                                            std::to_string(first_size<T>) + ", got " +
                                            std::to_string(size) + " (use its _init function)");
  }
  constexpr std::size_t largest = 65536;
  if (size > largest) {
    throw Error(Code::invalid_argument, std::string(argument) + ".struct_size: must be at most " +
                                            std::to_string(largest) + ", got " +
                                            std::to_string(size));
  }
  if (size % alignof(T) != 0) {
    throw Error(Code::invalid_argument,
                std::string(argument) + ".struct_size: must be a multiple of " +
                    std::to_string(alignof(T)) + ", got " + std::to_string(size));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(value);
  if (size > sizeof(T) &&
      std::any_of(bytes + sizeof(T), bytes + size, [](auto b) { return b != 0; })) {
    throw Error(Code::unsupported,
                std::string(argument) +
                    ": sets a field that this version does not know, struct_size " +
                    std::to_string(size) + ", known " + std::to_string(sizeof(T)));
  }
  T known{};
  std::memcpy(&known, value, std::min(size, sizeof(T)));
  return known;
}

/// The core form of a call's arguments, without an event.
template <class Args>
auto to_call(const Args& args) {
  auto core_args = to_args(args);
  const ingot_submission& submission = args.submission;
  if (submission.memory != INGOT_MEMORY_ADDRESS && submission.memory != INGOT_MEMORY_METAL_SLICE) {
    throw Error(Code::invalid_argument,
                "submission.memory: must be an ingot_memory (0 or 1), got " +
                    std::to_string(submission.memory));
  }
  require_zero(submission.reserved, "submission.reserved");
  core_args.submission = {submission.stream, submission.encoder, nullptr, submission.cancel,
                          static_cast<Memory>(submission.memory)};
  return core_args;
}

}  // namespace ingot
