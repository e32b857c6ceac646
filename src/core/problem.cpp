#include "core/problem.hpp"

#include "core/error.hpp"

namespace ingot {

std::string_view name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::f16:
      return "f16";
    case Dtype::bf16:
      return "bf16";
    case Dtype::f64:
      return "f64";
    case Dtype::u8:
      return "u8";
    case Dtype::i32:
      return "i32";
  }
  return "?";
}

std::string_view name(Causal causal) {
  switch (causal) {
    case Causal::none:
      return "none";
    case Causal::top_left:
      return "top_left";
    case Causal::bottom_right:
      return "bottom_right";
  }
  return "?";
}

std::string_view name(Precision precision) {
  switch (precision) {
    case Precision::highest:
      return "highest";
    case Precision::high:
      return "high";
  }
  return "?";
}

std::int64_t size_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return 4;
    case Dtype::f16:
    case Dtype::bf16:
      return 2;
    case Dtype::f64:
      return 8;
    case Dtype::u8:
      return 1;
    case Dtype::i32:
      return 4;
  }
  return 0;
}

double multiply_adds(const Problem& p) {
  return static_cast<double>(p.batch * p.num_heads) * static_cast<double>(p.seqlen_q) *
         static_cast<double>(p.seqlen_k) * static_cast<double>(p.head_dim + p.head_dim_v);
}

std::string names_of(const Parts& parts) {
  const std::pair<const char*, bool> all[] = {
      {"alibi", parts.alibi},   {"bias", parts.bias},   {"mask", parts.mask},
      {"prefix", parts.prefix}, {"sinks", parts.sinks}, {"dropout", parts.dropout > 0.0F}};
  std::string names;
  for (const auto& [name, is_on] : all) {
    if (is_on) names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

void throw_cancelled() {
  throw Error(Code::cancelled, "cancelled: the caller set submission.cancel during the call");
}

}  // namespace ingot
