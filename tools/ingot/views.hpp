// How arrays of rank 2, 3 and 4 are seen as [batch, head, seqlen, head_dim], and back.
#pragma once

#include <array>
#include <cstdint>
#include <ingot/ingot.hpp>
#include <string>

#include "array.hpp"

namespace ingot::cli {

/// bhsd: [batch, heads, seqlen, dim], [heads, seqlen, dim]. bshd: [batch, seqlen, heads, dim],
/// [seqlen, heads, dim]. Rank 2 is [seqlen, dim] in both.
enum class Layout : std::uint8_t { bhsd, bshd };

using Sizes = std::array<std::int64_t, 4>;  ///< batch, heads, seqlen, dim

/// The array's sizes and strides; axes it does not have are of size 1. Throws Failure where the
/// rank is not 2, 3 or 4.
Sizes sizes_of(const Array& array, Layout layout);
Tensor tensor_of(const Array& array, Layout layout);

/// The shape of an array with these sizes; axes beyond `rank` are dropped.
Shape shape_of(const Sizes& sizes, std::size_t rank, Layout layout);

/// lse: [batch, heads, seqlen] whatever the layout; rank - 1 axes.
Shape lse_shape(const Sizes& sizes, std::size_t rank);
Tensor lse_tensor(const Array& lse, const Sizes& sizes);

/// Sizes and input dtypes of the problem these arrays pose. Throws Failure where they do not fit
/// each other. Names in messages are those of the tensors.
Problem problem_of(const Array& q, const Array& k, const Array& v, Layout layout);

/// Throws Failure where dout does not have o's shape.
void check_dout(const Array& dout, const Shape& o_shape);

}  // namespace ingot::cli
