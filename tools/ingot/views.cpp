#include "views.hpp"

#include "failure.hpp"

namespace ingot::cli {
namespace {

// Where in the array each logical axis is; -1: it has none.
std::array<int, 4> axes_of(std::size_t rank, Layout layout) {
  const bool bhsd = layout == Layout::bhsd;
  switch (rank) {
    case 2:
      return {-1, -1, 0, 1};
    case 3:
      return {-1, bhsd ? 0 : 1, bhsd ? 1 : 0, 2};
    case 4:
      return {0, bhsd ? 1 : 2, bhsd ? 2 : 1, 3};
    default:
      throw Failure("rank must be 2, 3 or 4, is " + std::to_string(rank));
  }
}

void require_equal(const char* tensor, const char* what, std::int64_t value, std::int64_t q_value) {
  if (value == q_value) return;
  throw Failure(std::string(tensor) + ": " + what + " must be " + std::to_string(q_value) +
                ", is " + std::to_string(value));
}

Sizes named_sizes(const char* name, const Array& array, Layout layout) {
  try {
    return sizes_of(array, layout);
  } catch (const Failure& failure) {
    throw Failure(std::string(name) + ": shape " + shape_text(array.shape) + ": " + failure.what());
  }
}

}  // namespace

Sizes sizes_of(const Array& array, Layout layout) {
  const auto axes = axes_of(array.shape.size(), layout);
  Sizes sizes{1, 1, 1, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    if (axes[i] >= 0) sizes[i] = array.shape[static_cast<std::size_t>(axes[i])];
  }
  return sizes;
}

Tensor tensor_of(const Array& array, Layout layout) {
  const auto axes = axes_of(array.shape.size(), layout);
  Tensor tensor{array.data.get(), {}};
  for (std::size_t i = 0; i < 4; ++i) {
    if (axes[i] >= 0) tensor.stride[i] = array.strides[static_cast<std::size_t>(axes[i])];
  }
  return tensor;
}

Shape shape_of(const Sizes& sizes, std::size_t rank, Layout layout) {
  const auto axes = axes_of(rank, layout);
  Shape shape(rank);
  for (std::size_t i = 0; i < 4; ++i) {
    if (axes[i] >= 0) shape[static_cast<std::size_t>(axes[i])] = sizes[i];
  }
  return shape;
}

Shape lse_shape(const Sizes& sizes, std::size_t rank) {
  return {sizes.begin() + static_cast<std::ptrdiff_t>(4 - rank), sizes.begin() + 3};
}

Tensor lse_tensor(const Array& lse, const Sizes& sizes) {
  return {lse.data.get(), {sizes[1] * sizes[2], sizes[2], 1, 0}};
}

Problem problem_of(const Array& q, const Array& k, const Array& v, Layout layout) {
  const Sizes q_sizes = named_sizes("q", q, layout);
  const Sizes k_sizes = named_sizes("k", k, layout);
  const Sizes v_sizes = named_sizes("v", v, layout);
  const auto rank = static_cast<std::int64_t>(q.shape.size());
  require_equal("k", "rank", static_cast<std::int64_t>(k.shape.size()), rank);
  require_equal("v", "rank", static_cast<std::int64_t>(v.shape.size()), rank);
  require_equal("k", "batch (as of q)", k_sizes[0], q_sizes[0]);
  require_equal("v", "batch (as of q)", v_sizes[0], q_sizes[0]);
  require_equal("v", "number of heads (as of k)", v_sizes[1], k_sizes[1]);
  require_equal("v", "seqlen (as of k)", v_sizes[2], k_sizes[2]);
  require_equal("k", "head_dim (as of q)", k_sizes[3], q_sizes[3]);
  return {.batch = q_sizes[0],
          .num_heads = q_sizes[1],
          .num_heads_kv = k_sizes[1],
          .seqlen_q = q_sizes[2],
          .seqlen_k = k_sizes[2],
          .head_dim = q_sizes[3],
          .head_dim_v = v_sizes[3],
          .q_dtype = static_cast<Dtype>(q.dtype),
          .k_dtype = static_cast<Dtype>(k.dtype),
          .v_dtype = static_cast<Dtype>(v.dtype)};
}

void check_dout(const Array& dout, const Shape& o_shape) {
  if (dout.shape == o_shape) return;
  throw Failure("dout: shape must be that of o, " + shape_text(o_shape) + ", is " +
                shape_text(dout.shape));
}

}  // namespace ingot::cli
