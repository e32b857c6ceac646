// Everything a caller can get wrong is found here, once, before any kernel runs.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "core/error.hpp"
#include "core/operands.hpp"
#include "core/problem.hpp"

namespace ingot {
namespace {

constexpr std::int64_t max_head_dim = 1024;
constexpr std::int64_t max_count = std::int64_t{1}
                                   << 40;  // of one size; their product is bounded below
constexpr std::size_t workspace_alignment = 64;

[[noreturn]] void fail(const std::string& message) { throw Error(Code::invalid_argument, message); }

std::string text(float value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
  return buffer;
}

/// Kernels multiply and divide by these numbers, and by log2(e): all of it stays finite, and none
/// of it becomes subnormal, which a GPU takes for 0.
bool is_moderate(float x) { return std::fabs(x) >= 1e-37F && std::fabs(x) <= 1e37F; }

void check_range(const char* argument, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    fail(std::string(argument) + ": must be from " + std::to_string(low) + " to " +
         std::to_string(high) + ", got " + std::to_string(value));
  }
}

void check_enums(const Problem& p) {
  const Parts& parts = p.parts;
  const std::pair<const char*, Dtype> dtypes[] = {{"q_dtype", p.q},
                                                  {"k_dtype", p.k},
                                                  {"v_dtype", p.v},
                                                  {"o_dtype", p.o},
                                                  {"dout_dtype", p.dout},
                                                  {"dq_dtype", p.dq},
                                                  {"dk_dtype", p.dk},
                                                  {"dv_dtype", p.dv},
                                                  {"bias_dtype", parts.bias_dtype},
                                                  {"dbias_dtype", parts.dbias_dtype},
                                                  {"sinks_dtype", parts.sinks_dtype},
                                                  {"dsinks_dtype", parts.dsinks_dtype}};
  for (const auto& [argument, dtype] : dtypes) {
    if (dtype < Dtype::f32 || dtype > Dtype::f64) {
      fail(std::string(argument) + ": must be an ingot_dtype (0 to 4), got " +
           std::to_string(static_cast<int>(dtype)));
    }
  }
  if (p.causal < Causal::none || p.causal > Causal::bottom_right) {
    fail("causal: must be an ingot_causal (0 to 2), got " +
         std::to_string(static_cast<int>(p.causal)));
  }
  if (p.precision != Precision::highest && p.precision != Precision::high) {
    fail("precision: must be an ingot_precision (0 or 1), got " +
         std::to_string(static_cast<int>(p.precision)));
  }
}

/// Products and sums that stop at the largest number instead of wrapping.
std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
  std::uint64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

std::uint64_t add(std::uint64_t a, std::uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

std::uint64_t magnitude(std::int64_t x) {
  return x < 0 ? 0 - static_cast<std::uint64_t>(x) : static_cast<std::uint64_t>(x);
}

/// Element counts and byte sizes of every contiguous tensor fit 63 bits with room to spare. A size
/// of 0 counts as 1: planners multiply the others with each other and with tiles all the same.
void check_total(const Problem& p) {
  const std::int64_t widest = std::max(p.head_dim, p.head_dim_v);
  const std::int64_t batch = std::max<std::int64_t>(p.batch, 1);
  const std::int64_t longest = std::max<std::int64_t>({p.seqlen_q, p.seqlen_k, 1});
  const std::uint64_t heads = multiply(magnitude(batch), magnitude(p.num_heads));
  if (multiply(heads, magnitude(longest * widest)) > std::uint64_t{1} << 59) {
    fail("problem: batch * num_heads * seqlen * head_dim must be at most 2^59, got " +
         std::to_string(batch) + " * " + std::to_string(p.num_heads) + " * " +
         std::to_string(longest) + " * " + std::to_string(widest));
  }
}

/// Rules of a tensor that is read: present, aligned to its element, every offset within 63 bits.
void check_view(const std::string& argument, const void* data, const Strides& stride,
                const Shape& shape, Dtype dtype) {
  if (count_of(shape) == 0) return;
  const std::int64_t element = size_bytes(dtype);
  if (data == nullptr) {
    fail(argument + ".data: must not be NULL, the tensor has " + std::to_string(count_of(shape)) +
         " elements");
  }
  if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(element) != 0) {
    fail(argument + ".data: must be aligned to its element of " + std::to_string(element) +
         " bytes, got address ending in " +
         std::to_string(reinterpret_cast<std::uintptr_t>(data) % 16));
  }
  std::uint64_t reach = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    reach = add(reach, multiply(magnitude(shape[i] - 1), magnitude(stride[i])));
  }
  if (multiply(reach, magnitude(element)) > std::uint64_t{1} << 62) {
    fail(argument + ".stride: offsets must stay below 2^62 bytes, got strides " +
         std::to_string(stride[0]) + ", " + std::to_string(stride[1]) + ", " +
         std::to_string(stride[2]) + ", " + std::to_string(stride[3]));
  }
}

/// Rules of a tensor that is written: besides those of a view, no two elements at one address.
void check_output(const std::string& argument, const Tensor& tensor, const Shape& shape,
                  Dtype dtype) {
  check_view(argument, tensor.data, tensor.stride, shape, dtype);
  if (count_of(shape) == 0) return;
  std::pair<std::uint64_t, std::uint64_t> dims[4];  // |stride|, extent
  for (std::size_t i = 0; i < 4; ++i) {
    dims[i] = {magnitude(tensor.stride[i]), magnitude(shape[i])};
  }
  std::sort(std::begin(dims), std::end(dims));
  std::uint64_t span = 0;
  for (const auto& [stride, extent] : dims) {
    if (extent == 1) continue;
    if (stride <= span) {
      fail(argument + ".stride: elements of an output must not overlap: a stride of " +
           std::to_string(stride) + " must exceed the span " + std::to_string(span) +
           " of the dimensions with smaller strides");
    }
    span += (extent - 1) * stride;
  }
}

void check_distinct(const char* out, const void* out_data, const char* in, const void* in_data) {
  if (out_data != nullptr && out_data == in_data) {
    fail(std::string(out) + ".data: must not be the same memory as " + in);
  }
}

/// The alignment of a slice is its offset's, which the device checks.
void check_workspace(std::span<std::byte> workspace, std::size_t needed, Memory memory) {
  if (workspace.data() == nullptr) return;
  if (workspace.size() < needed) {
    fail("workspace_bytes: must be at least " + std::to_string(needed) + " for this plan, got " +
         std::to_string(workspace.size()));
  }
  if (memory == Memory::metal_slice) return;
  const auto misaligned = reinterpret_cast<std::uintptr_t>(workspace.data()) % workspace_alignment;
  if (misaligned != 0) {
    fail("workspace: must be aligned to 64 bytes, is " + std::to_string(misaligned) + " beyond");
  }
}

void check_score(const Problem& p) {
  if (!std::isfinite(p.scale) || p.scale == 0.0F) {
    fail("scale: must be finite and not 0, got " + text(p.scale));
  }
  if (!is_moderate(p.scale)) {
    fail("scale: its magnitude must be from 1e-37 to 1e37, got " + text(p.scale));
  }
  if (!std::isfinite(p.softcap) || p.softcap < 0.0F) {
    fail("softcap: must be finite and not negative, got " + text(p.softcap));
  }
  if (p.softcap == 0.0F) return;
  if (!is_moderate(p.softcap)) {
    fail("softcap: must be 0 or from 1e-37 to 1e37, got " + text(p.softcap));
  }
  if (!is_moderate(p.scale / p.softcap)) {
    fail("softcap: the magnitude of scale / softcap must be from 1e-37 to 1e37, got scale " +
         text(p.scale) + ", softcap " + text(p.softcap));
  }
}

/// Strides that no element needs are not the caller's numbers any more: a pointer is NULL plus 0,
/// or some memory plus 0, whatever stood there.
template <class AnyTensor>
void settle(AnyTensor& tensor, const Shape& shape) {
  const bool empty = tensor.data == nullptr || count_of(shape) == 0;
  for (std::size_t i = 0; i < 4; ++i) {
    if (empty || shape[i] == 1) tensor.stride[i] = i == 3 ? 1 : 0;
  }
}

/// A part that is off, and its tensor.
void check_off(const OperandInfo& info, const void* data) {
  if (data == nullptr) return;
  fail(std::string(info.name) + ".data: must be NULL, the problem has no " +
       (info.name[0] == 'd' ? info.name + 1 : info.name));
}

void check_input(const OperandInfo& info, const ConstTensor& tensor) {
  if (!info.is_on) return check_off(info, tensor.data);
  check_view(info.name, tensor.data, tensor.stride, info.shape, info.dtype);
}

/// An output that is wanted.
void check_output(const OperandInfo& info, const Tensor& tensor) {
  if (!info.is_on) return check_off(info, tensor.data);
  check_output(info.name, tensor, info.shape, info.dtype);
}

/// Where the tensors of a call lie: inputs first, then outputs, each of which must lie elsewhere
/// than those before it.
class Places {
 public:
  void add_input(const char* name, const void* data) { places_[count_++] = {name, data}; }
  void add_output(const char* name, const void* data) {
    for (std::size_t i = 0; i < count_; ++i) {
      check_distinct(name, data, places_[i].first, places_[i].second);
    }
    add_input(name, data);
  }

 private:
  std::array<std::pair<const char*, const void*>, 16> places_{};
  std::size_t count_ = 0;
};

void check_dropout_state(const PartInputs& inputs, bool on) {
  if (inputs.dropout_state == nullptr) return;
  if (!on) fail("dropout_state: must be NULL, the problem has no dropout");
  if (reinterpret_cast<std::uintptr_t>(inputs.dropout_state) % alignof(std::uint64_t) != 0) {
    fail("dropout_state: must be aligned to 8 bytes");
  }
}

void check_bias(const Problem& p) {
  const Shape full = pair_shape(p);
  const char* const names[] = {"batch", "num_heads", "seqlen_q", "seqlen_k"};
  for (std::size_t i = 0; i < 4; ++i) {
    const std::int64_t extent = p.parts.bias_shape[i];
    if (extent == 1 || extent == full[i]) continue;
    fail("bias_shape[" + std::to_string(i) + "]: must be 1 or " + names[i] + " " +
         std::to_string(full[i]) + ", got " + std::to_string(extent));
  }
  for (const auto& [argument, dtype] : {std::pair{"bias_dtype", p.parts.bias_dtype},
                                        std::pair{"dbias_dtype", p.parts.dbias_dtype}}) {
    if (dtype == Dtype::f64) fail(std::string(argument) + ": must be f32, f16 or bf16, got f64");
  }
}

void check_parts(const Problem& p) {
  const Parts& parts = p.parts;
  if (parts.bias || parts.mask) {
    // A bias may have the extent 1 where the problem has 0.
    const auto extent = [](std::int64_t n) { return magnitude(std::max<std::int64_t>(n, 1)); };
    const std::uint64_t pairs = multiply(extent(p.seqlen_q), extent(p.seqlen_k));
    if (multiply(multiply(extent(p.batch), extent(p.num_heads)), pairs) > std::uint64_t{1} << 59) {
      fail(
          "problem: with a bias or mask, batch * num_heads * seqlen_q * seqlen_k must be at most "
          "2^59");
    }
  }
  if (parts.bias) check_bias(p);
  if (parts.sinks && parts.sinks_dtype != Dtype::f32 && parts.sinks_dtype != p.q) {
    fail("sinks_dtype: must be f32 or q_dtype " + std::string(name(p.q)) + ", got " +
         std::string(name(parts.sinks_dtype)));
  }
  if (parts.prefix && p.window_left >= 0) {
    fail("prefix: window_left must be -1 with it, got " + std::to_string(p.window_left));
  }
  constexpr float least = 0x1p-16F;  // weights are dropped by numbers of 16 bits
  const bool in_range = parts.dropout >= least && parts.dropout <= 1.0F - least;
  if (parts.dropout != 0.0F && !in_range) {
    fail("dropout: must be 0 or from 2^-16 to 1 - 2^-16, got " + text(parts.dropout));
  }
}

}  // namespace

void validate(const Problem& p) {
  check_enums(p);
  check_range("batch", p.batch, 0, max_count);
  check_range("num_heads", p.num_heads, 1, max_count);
  check_range("num_heads_kv", p.num_heads_kv, 1, max_count);
  check_range("seqlen_q", p.seqlen_q, 0, max_count);
  check_range("seqlen_k", p.seqlen_k, 0, max_count);
  check_range("head_dim", p.head_dim, 1, max_head_dim);
  check_range("head_dim_v", p.head_dim_v, 1, max_head_dim);
  if (p.num_heads % p.num_heads_kv != 0) {
    fail("num_heads_kv: must divide num_heads " + std::to_string(p.num_heads) + ", got " +
         std::to_string(p.num_heads_kv));
  }
  check_total(p);
  constexpr std::int64_t unbounded = INT64_MAX;
  check_range("window_left", p.window_left, -1, unbounded);
  check_range("window_right", p.window_right, -1, unbounded);
  check_score(p);
  check_parts(p);
  if (p.workspace_limit < 0) {
    fail("workspace_limit: must be at least 0, got " + std::to_string(p.workspace_limit));
  }
}

void validate(const Problem& p, const ForwardArgs& args, std::size_t workspace_needed) {
  Places places;
  for_each_input_of_forward(p, args, [&](const OperandInfo& info, const ConstTensor& tensor) {
    check_input(info, tensor);
    places.add_input(info.name, tensor.data);
  });
  for_each_output_of_forward(p, args, [&](const OperandInfo& info, const Tensor& tensor) {
    if (tensor.data != nullptr || &tensor == &args.o) check_output(info, tensor);
    places.add_output(info.name, tensor.data);
  });
  check_dropout_state(args.parts, p.parts.dropout > 0.0F);
  check_workspace(args.workspace, workspace_needed, args.submission.memory);
}

void validate(const Problem& p, const BackwardArgs& args, std::size_t workspace_needed) {
  Places places;
  for_each_input_of_backward(p, args, [&](const OperandInfo& info, const ConstTensor& tensor) {
    check_input(info, tensor);
    places.add_input(info.name, tensor.data);
  });
  bool any_wanted = false, any_element = false;
  for_each_output_of_backward(p, args, [&](const OperandInfo& info, const Tensor& tensor) {
    any_wanted = any_wanted || tensor.data != nullptr;
    any_element = any_element || (info.is_on && count_of(info.shape) > 0);
    if (tensor.data != nullptr) check_output(info, tensor);
    places.add_output(info.name, tensor.data);
  });
  if (!any_wanted && any_element) {
    const Parts& parts = p.parts;
    fail(std::string("dq.data, dk.data, dv.data") + (parts.bias ? ", dbias.data" : "") +
         (parts.sinks ? ", dsinks.data" : "") + ": at least one must not be NULL");
  }
  check_dropout_state(args.parts, p.parts.dropout > 0.0F);
  check_workspace(args.workspace, workspace_needed, args.submission.memory);
}

ForwardArgs settled(const Problem& p, ForwardArgs args) {
  const auto each = [](const OperandInfo& info, auto& tensor) { settle(tensor, info.shape); };
  for_each_input_of_forward(p, args, each);
  for_each_output_of_forward(p, args, each);
  return args;
}

BackwardArgs settled(const Problem& p, BackwardArgs args) {
  const auto each = [](const OperandInfo& info, auto& tensor) { settle(tensor, info.shape); };
  for_each_input_of_backward(p, args, each);
  for_each_output_of_backward(p, args, each);
  return args;
}

}  // namespace ingot
