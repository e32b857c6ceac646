#include "part_tensors.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <string>

#include "errors.hpp"

namespace ingot_python {
namespace {

using Shape = std::array<std::int64_t, 4>;

constexpr Ranks of_pairs{2, 4};  // the last two dimensions are queries and keys

Shape pairs_of(const ingot_problem& p) { return {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k}; }

void require_broadcast(const View& view, const char* argument, const Shape& full) {
  const std::size_t missing = 4 - view.rank;
  for (std::size_t i = 0; i < view.rank; ++i) {
    if (view.shape[i] == 1 || view.shape[i] == full[missing + i]) continue;
    invalid(std::string(argument) + ".shape: must broadcast to " + shape_text(full, 4) + ", got " +
            shape_text(view.shape, view.rank));
  }
}

/// Each number of one dimension, or of two if `also` is given.
void require_lengths(const View& view, const char* argument, std::int64_t length,
                     std::int64_t also) {
  const bool fits =
      view.rank == 1 ? view.shape[0] == length : view.shape[0] == also && view.shape[1] == length;
  if (fits) return;
  const std::string one = "(" + std::to_string(length) + ")";
  invalid(std::string(argument) + ".shape: must be " +
          (also < 0 ? one : one + " or " + shape_text({also, length, 0, 0}, 2)) + ", got " +
          shape_text(view.shape, view.rank));
}

void require_dtype(const View& view, const char* argument, bool fits, const std::string& rule) {
  if (fits) return;
  invalid(std::string(argument) + ".dtype: must be " + rule + ", got " + dtype_text(view.dtype));
}

void add_bias(ingot_problem& p, const View& bias) {
  require_broadcast(bias, "bias", pairs_of(p));
  require_dtype(bias, "bias", bias.dtype != INGOT_F64, "float32, float16 or bfloat16");
  p.bias_dtype = bias.dtype;
  std::fill(std::begin(p.bias_shape), std::end(p.bias_shape), 1);
  std::copy_n(bias.shape.begin(), bias.rank, p.bias_shape + (4 - bias.rank));
}

void add_sinks(ingot_problem& p, const View& sinks, const View& q) {
  require_lengths(sinks, "sinks", p.num_heads, -1);
  require_dtype(sinks, "sinks", sinks.dtype == INGOT_F32 || sinks.dtype == q.dtype,
                q.dtype == INGOT_F32
                    ? "float32"
                    : std::string("float32 or ") + dtype_text(q.dtype) + " as q is");
  p.sinks_dtype = sinks.dtype;
}

template <class T>
T number_of(nb::handle value, const char* argument) {
  T number{};
  if (nb::try_cast(value, number)) return number;
  invalid(std::string(argument) + ": must be a number, got " +
          nb::cast<std::string>(nb::repr(value)));
}

}  // namespace

ingot_tensor tensor_of(View& view) {
  ingot_tensor tensor = view.tensor;
  if (view.slice.buffer != nullptr) tensor.data = &view.slice;
  return tensor;
}

void require_device(const View& view, const char* argument, const View& q) {
  if (view.device_type != q.device_type || view.device_id != q.device_id) {
    invalid(std::string(argument) + ": must be on the device of q, " + device_text(q) + ", got " +
            device_text(view));
  }
}

void require_shape(const View& view, const char* argument, const View& like) {
  if (view.rank == like.rank && view.shape == like.shape) return;
  invalid(std::string(argument) + ".shape: must be " + shape_text(like.shape, like.rank) +
          ", got " + shape_text(view.shape, view.rank));
}

ingot_tensor over_pairs(View& view) {
  const ingot_tensor given = tensor_of(view);
  ingot_tensor wide{given.data, {0, 0, 0, 0}};
  const std::size_t missing = 4 - view.rank;
  for (std::size_t i = 0; i < view.rank; ++i) {
    if (view.shape[i] != 1) wide.stride[missing + i] = given.stride[i];
  }
  return wide;
}

ingot_tensor over_heads(View& view) {
  const ingot_tensor given = tensor_of(view);
  if (view.rank == 1) return {given.data, {0, given.stride[0], 0, 0}};
  return {given.data, {given.stride[0], given.stride[1], 0, 0}};
}

PartViews part_views(Arrays& arrays, nb::handle parts) {
  if (parts.is_none()) return {};
  if (!PyTuple_Check(parts.ptr()) || nb::len(parts) != 9) {
    invalid("parts: must be None or a tuple of nine, got " +
            nb::cast<std::string>(nb::str(parts.type())));
  }
  const nb::tuple given = nb::borrow<nb::tuple>(parts);
  return {arrays.optional(given[0], "alibi_slopes", {1, 2}, Element::number),
          arrays.optional(given[1], "bias", of_pairs, Element::number),
          arrays.optional(given[2], "mask", of_pairs, Element::boolean),
          arrays.optional(given[3], "sinks", {1, 1}, Element::number),
          arrays.optional(given[4], "prefix_len", {1, 1}, Element::int32),
          number_of<double>(given[5], "dropout"),
          number_of<std::uint64_t>(given[6], "seed"),
          number_of<std::uint64_t>(given[7], "seed"),
          number_of<std::uintptr_t>(given[8], "seed")};
}

void add_parts(ingot_problem& problem, const PartViews& parts, const View& q) {
  parts.for_each([&](const std::optional<View>& view, const char* argument) {
    if (view) require_device(*view, argument, q);
  });
  if (parts.alibi_slopes) {
    require_lengths(*parts.alibi_slopes, "alibi_slopes", problem.num_heads, problem.batch);
    require_dtype(*parts.alibi_slopes, "alibi_slopes", parts.alibi_slopes->dtype == INGOT_F32,
                  "float32");
    problem.alibi = 1;
  }
  if (parts.bias) add_bias(problem, *parts.bias);
  if (parts.mask) {
    require_broadcast(*parts.mask, "mask", pairs_of(problem));
    problem.mask = 1;
  }
  if (parts.sinks) add_sinks(problem, *parts.sinks, q);
  if (parts.prefix_len) {
    require_lengths(*parts.prefix_len, "prefix_len", problem.batch, -1);
    problem.prefix = 1;
  }
  if (parts.state != 0 && q.device_type != device_cuda) {
    invalid("seed: must be numbers, not in a GPU's memory, where q is on " + device_text(q));
  }
  problem.dropout = static_cast<float>(parts.dropout);
}

ingot_part_tensors part_tensors(PartViews& parts) {
  ingot_part_tensors tensors{};
  if (parts.alibi_slopes) tensors.alibi_slopes = over_heads(*parts.alibi_slopes);
  if (parts.bias) tensors.bias = over_pairs(*parts.bias);
  if (parts.mask) tensors.mask = over_pairs(*parts.mask);
  if (parts.sinks) tensors.sinks = over_heads(*parts.sinks);
  if (parts.prefix_len) tensors.prefix_len = tensor_of(*parts.prefix_len);
  tensors.dropout_seed = parts.seed;
  tensors.dropout_offset = parts.offset;
  tensors.dropout_state = reinterpret_cast<const std::uint64_t*>(parts.state);
  return tensors;
}

}  // namespace ingot_python
