// Everything a caller can get wrong is found here, once, before any kernel runs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "core/error.hpp"
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

void check_range(const char* argument, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    fail(std::string(argument) + ": must be from " + std::to_string(low) + " to " +
         std::to_string(high) + ", got " + std::to_string(value));
  }
}

void check_enums(const Problem& p) {
  const std::pair<const char*, Dtype> dtypes[] = {
      {"q_dtype", p.q},       {"k_dtype", p.k},   {"v_dtype", p.v},   {"o_dtype", p.o},
      {"dout_dtype", p.dout}, {"dq_dtype", p.dq}, {"dk_dtype", p.dk}, {"dv_dtype", p.dv}};
  for (const auto& [argument, dtype] : dtypes) {
    if (size_bytes(dtype) == 0) {
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

/// Element counts and byte sizes of every contiguous tensor fit 63 bits with room to spare.
void check_total(const Problem& p) {
  const std::int64_t widest = std::max(p.head_dim, p.head_dim_v);
  const std::uint64_t rows = multiply(magnitude(p.batch), magnitude(p.num_heads));
  const std::uint64_t widest_row = magnitude(std::max(p.seqlen_q, p.seqlen_k) * widest);
  if (multiply(rows, widest_row) > std::uint64_t{1} << 59) {
    fail("problem: batch * num_heads * seqlen * head_dim must be at most 2^59, got " +
         std::to_string(p.batch) + " * " + std::to_string(p.num_heads) + " * " +
         std::to_string(std::max(p.seqlen_q, p.seqlen_k)) + " * " + std::to_string(widest));
  }
}

struct Extents {
  std::int64_t size[4];
  std::int64_t count() const { return size[0] * size[1] * size[2] * size[3]; }
};

/// Rules of a tensor that is read: present, aligned to its element, every offset within 63 bits.
void check_view(const std::string& argument, const void* data, const Strides& stride,
                const Extents& extents, Dtype dtype) {
  if (extents.count() == 0) return;
  const std::int64_t element = size_bytes(dtype);
  if (data == nullptr) {
    fail(argument + ".data: must not be NULL, the tensor has " + std::to_string(extents.count()) +
         " elements");
  }
  if (reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(element) != 0) {
    fail(argument + ".data: must be aligned to its element of " + std::to_string(element) +
         " bytes, got address ending in " +
         std::to_string(reinterpret_cast<std::uintptr_t>(data) % 16));
  }
  std::uint64_t reach = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    reach = add(reach, multiply(magnitude(extents.size[i] - 1), magnitude(stride[i])));
  }
  if (multiply(reach, magnitude(element)) > std::uint64_t{1} << 62) {
    fail(argument + ".stride: offsets must stay below 2^62 bytes, got strides " +
         std::to_string(stride[0]) + ", " + std::to_string(stride[1]) + ", " +
         std::to_string(stride[2]) + ", " + std::to_string(stride[3]));
  }
}

/// Rules of a tensor that is written: besides those of a view, no two elements at one address.
void check_output(const std::string& argument, const Tensor& tensor, const Extents& extents,
                  Dtype dtype) {
  check_view(argument, tensor.data, tensor.stride, extents, dtype);
  if (extents.count() == 0) return;
  std::pair<std::uint64_t, std::uint64_t> dims[4];  // |stride|, extent
  for (std::size_t i = 0; i < 4; ++i) {
    dims[i] = {magnitude(tensor.stride[i]), magnitude(extents.size[i])};
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

struct Shapes {
  Extents q, k, v, o, lse;
};

Shapes shapes_of(const Problem& p) {
  return {{{p.batch, p.num_heads, p.seqlen_q, p.head_dim}},
          {{p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim}},
          {{p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v}},
          {{p.batch, p.num_heads, p.seqlen_q, p.head_dim_v}},
          {{p.batch, p.num_heads, p.seqlen_q, 1}}};
}

void check_gradient(const char* argument, const Tensor& tensor, const Extents& extents, Dtype dtype,
                    const BackwardArgs& args) {
  if (tensor.data == nullptr) return;
  check_output(argument, tensor, extents, dtype);
  const std::pair<const char*, const void*> inputs[] = {
      {"q", args.q.data}, {"k", args.k.data},     {"v", args.v.data},
      {"o", args.o.data}, {"lse", args.lse.data}, {"dout", args.dout.data}};
  for (const auto& [input, data] : inputs) check_distinct(argument, tensor.data, input, data);
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
  if (!std::isfinite(p.scale) || p.scale == 0.0F) {
    fail("scale: must be finite and not 0, got " + text(p.scale));
  }
  if (p.workspace_limit < 0) {
    fail("workspace_limit: must be at least 0, got " + std::to_string(p.workspace_limit));
  }
  if (!std::isfinite(p.softcap) || p.softcap < 0.0F) {
    fail("softcap: must be finite and not negative, got " + text(p.softcap));
  }
  if (p.softcap > 0.0F && !std::isfinite(p.scale / p.softcap)) {
    fail("softcap: scale / softcap must be finite, got scale " + text(p.scale) + ", softcap " +
         text(p.softcap));
  }
}

void validate(const Problem& p, const ForwardArgs& args, std::size_t workspace_needed) {
  const Shapes shapes = shapes_of(p);
  check_view("q", args.q.data, args.q.stride, shapes.q, p.q);
  check_view("k", args.k.data, args.k.stride, shapes.k, p.k);
  check_view("v", args.v.data, args.v.stride, shapes.v, p.v);
  check_output("o", args.o, shapes.o, p.o);
  if (args.lse.data != nullptr) check_output("lse", args.lse, shapes.lse, Dtype::f32);
  const std::pair<const char*, const void*> inputs[] = {
      {"q", args.q.data}, {"k", args.k.data}, {"v", args.v.data}};
  for (const auto& [input, data] : inputs) {
    check_distinct("o", args.o.data, input, data);
    check_distinct("lse", args.lse.data, input, data);
  }
  check_distinct("lse", args.lse.data, "o", args.o.data);
  check_workspace(args.workspace, workspace_needed, args.submission.memory);
}

void validate(const Problem& p, const BackwardArgs& args, std::size_t workspace_needed) {
  const Shapes shapes = shapes_of(p);
  check_view("q", args.q.data, args.q.stride, shapes.q, p.q);
  check_view("k", args.k.data, args.k.stride, shapes.k, p.k);
  check_view("v", args.v.data, args.v.stride, shapes.v, p.v);
  check_view("o", args.o.data, args.o.stride, shapes.o, p.o);
  check_view("lse", args.lse.data, args.lse.stride, shapes.lse, Dtype::f32);
  check_view("dout", args.dout.data, args.dout.stride, shapes.o, p.dout);
  if (args.dq.data == nullptr && args.dk.data == nullptr && args.dv.data == nullptr &&
      shapes.q.count() + shapes.k.count() > 0) {
    fail("dq.data, dk.data, dv.data: at least one must not be NULL");
  }
  check_gradient("dq", args.dq, shapes.q, p.dq, args);
  check_gradient("dk", args.dk, shapes.k, p.dk, args);
  check_gradient("dv", args.dv, shapes.v, p.dv, args);
  check_distinct("dk", args.dk.data, "dq", args.dq.data);
  check_distinct("dv", args.dv.data, "dq", args.dq.data);
  check_distinct("dv", args.dv.data, "dk", args.dk.data);
  check_workspace(args.workspace, workspace_needed, args.submission.memory);
}

}  // namespace ingot
