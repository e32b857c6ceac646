// A strided tensor as bytes: the range it spans, and copies of its elements between two places of
// the same layout that touch nothing between them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "core/problem.hpp"

namespace ingot::metal {

struct View {
  std::array<std::int64_t, 4> extent{};
  Strides stride{};  ///< elements
  std::int64_t element_bytes = 0;

  bool empty() const;
};

/// Bytes [low, high) relative to element 0; low is at most 0.
struct Span {
  std::int64_t low = 0;
  std::int64_t high = 0;

  std::size_t bytes() const { return static_cast<std::size_t>(high - low); }
};

Span span_of(const View& view);

/// Copies every element; `to` and `from` are the addresses of element 0.
void copy_elements(const View& view, std::byte* to, const std::byte* from);

}  // namespace ingot::metal
