// Config of the Metal kernels: everything that changes their text, and nothing that changes per
// call. What a kernel does not look at keeps its default, so that equal kernels have equal text.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/literal.hpp"
#include "core/problem.hpp"

namespace ingot::metal {

struct Config {
  std::string_view kernel;  ///< "forward", "forward_wide", "decode", "combine", "backward_dq", ...
  std::string_view family;  ///< "apple7", "apple8", "apple9", "apple10"

  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  std::int64_t block_m = 0;   ///< query rows of a threadgroup (keys of one in backward_dkv)
  std::int64_t block_n = 0;   ///< keys of a step (query rows of one in backward_dkv)
  std::int64_t block_d = 0;   ///< columns of head_dim that are staged or streamed at once
  std::int64_t block_dv = 0;  ///< columns of o that a threadgroup accumulates
  std::int64_t simdgroups = 1;
  std::int64_t rows_per_simdgroup = 8;  ///< 8, 16 or 32: each right-hand tile feeds 1, 2 or 4 MMAs
  std::int64_t panel = 1;               ///< 8x8 tiles that one access of a thread fills: 1, 2 or 4

  // In memory: float, half, bfloat, or ushort for the bits of a bfloat where the GPU has none.
  TypeName q_type{"float"}, k_type{"float"}, v_type{"float"}, o_type{"float"};
  TypeName dout_type{"float"}, dq_type{"float"}, dk_type{"float"}, dv_type{"float"};
  TypeName bias_type{"float"}, dbias_type{"float"};
  TypeName sinks_type{"float"}, dsinks_type{"float"};
  // Operands of the matrix operations in registers: S = Q K^T, O = P V, dP = dO V^T, dQ = dS K.
  TypeName qk_reg{"float"}, pv_reg{"float"}, dp_reg{"float"}, ds_reg{"float"};

  bool masked = false;  ///< causal or window: blocks on the boundary are tested per pair
  bool softcap = false;
  bool alibi = false, bias = false, mask = false, prefix = false, sinks = false, dropout = false;
  bool has_lse = true;    ///< lse is wanted
  bool stage_rhs = true;  ///< right-hand operands pass through threadgroup memory
  bool cache_lhs = true;  ///< Q (K and V in backward_dkv) stays in registers
  bool cache_dout = true;
  bool q_strided = false, k_strided = false, v_strided = false, o_strided = false;
  bool dout_strided = false, dq_strided = false, dk_strided = false, dv_strided = false;
  std::int64_t unit_bytes = 16;  ///< alignment of every row of every tensor: 16, 8, 4 or 2
  std::int64_t split_k = 1;      ///< more than 1: partial results go to the workspace

  bool operator==(const Config&) const = default;

  /// Calls f(name, value) for every field, once: emitted text, cache key and explain.
  template <class F>
  void visit(F&& f) const {
    f("kernel", kernel), f("family", family);
    f("head_dim", head_dim), f("head_dim_v", head_dim_v);
    f("block_m", block_m), f("block_n", block_n), f("block_d", block_d), f("block_dv", block_dv);
    f("simdgroups", simdgroups), f("rows_per_simdgroup", rows_per_simdgroup), f("panel", panel);
    f("q_type", q_type), f("k_type", k_type), f("v_type", v_type), f("o_type", o_type);
    f("dout_type", dout_type), f("dq_type", dq_type), f("dk_type", dk_type), f("dv_type", dv_type);
    f("bias_type", bias_type), f("dbias_type", dbias_type);
    f("sinks_type", sinks_type), f("dsinks_type", dsinks_type);
    f("qk_reg", qk_reg), f("pv_reg", pv_reg), f("dp_reg", dp_reg), f("ds_reg", ds_reg);
    f("masked", masked), f("softcap", softcap), f("has_lse", has_lse);
    f("alibi", alibi), f("bias", bias), f("mask", mask), f("prefix", prefix);
    f("sinks", sinks), f("dropout", dropout);
    f("stage_rhs", stage_rhs), f("cache_lhs", cache_lhs), f("cache_dout", cache_dout);
    f("q_strided", q_strided), f("k_strided", k_strided), f("v_strided", v_strided);
    f("o_strided", o_strided), f("dout_strided", dout_strided), f("dq_strided", dq_strided);
    f("dk_strided", dk_strided), f("dv_strided", dv_strided);
    f("unit_bytes", unit_bytes), f("split_k", split_k);
  }
};

}  // namespace ingot::metal
