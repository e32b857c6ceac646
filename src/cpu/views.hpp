// One head of a tensor as rows: what every kernel of the CPU back end reads and writes.
#pragma once

#include <cstdint>

#include "core/problem.hpp"

namespace ingot {

/// Element (row, dim) lies row * row_stride + dim * dim_stride elements behind data.
template <class Pointer>
struct HeadView {
  Pointer data = nullptr;
  Dtype dtype = Dtype::f32;
  std::int64_t row_stride = 0;
  std::int64_t dim_stride = 0;
};

using ConstRows = HeadView<const void*>;
using Rows = HeadView<void*>;

inline ConstRows head_rows(const ConstTensor& t, Dtype dtype, std::int64_t b, std::int64_t h) {
  const std::int64_t offset = (b * t.stride[0] + h * t.stride[1]) * size_bytes(dtype);
  return {static_cast<const char*>(t.data) + offset, dtype, t.stride[2], t.stride[3]};
}

inline Rows head_rows(const Tensor& t, Dtype dtype, std::int64_t b, std::int64_t h) {
  const std::int64_t offset = (b * t.stride[0] + h * t.stride[1]) * size_bytes(dtype);
  return {static_cast<char*>(t.data) + offset, dtype, t.stride[2], t.stride[3]};
}

/// The rows can be used where they are as f32 with neighbouring dims.
template <class Pointer>
inline bool is_plain_f32(const HeadView<Pointer>& rows) {
  return rows.dtype == Dtype::f32 && rows.dim_stride == 1;
}

}  // namespace ingot
