// Config of the CUDA kernels: everything that changes generated code or its registers, and nothing
// that changes per call. One struct for every kernel; fields a kernel does not read keep their
// default.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/literal.hpp"

namespace ingot::cuda {

struct Config {
  std::string_view kernel;    ///< "forward_sm90", "forward_mma", "decode", "combine", ...
  std::string_view arch;      ///< "sm_90a", "sm_80", ...: what it is compiled for
  TypeName element{"bf16"};   ///< of q, k, v as the kernel reads them: bf16, f16, float
  TypeName output{"bf16"};    ///< of o: bf16, f16, float
  std::int64_t planes = 1;    ///< bf16 terms an f32 operand is split into: 1 none, 2 or 3
  std::int64_t head_dim = 0;  ///< of q and k, as the caller has it
  std::int64_t head_dim_v = 0;
  std::int64_t block_m = 0;     ///< query rows per tile, of all warpgroups or warps together
  std::int64_t block_n = 0;     ///< keys per tile
  std::int64_t warpgroups = 0;  ///< sm_90a: those that compute, 64 rows each; one more loads
  std::int64_t warps = 0;       ///< sm_80 family: of a block
  std::int64_t stages = 0;      ///< tiles of K, and of V, in shared memory
  std::int64_t cluster = 1;     ///< blocks that share every load of K and V
  bool masked = false;          ///< causal or window: tiles on the boundary are tested per pair
  bool softcap = false;
  bool ordered = false;  ///< a token passes between warpgroups around their products
  bool packed = false;   ///< rows of a tile are (row, query head of the group)
  bool wide = false;     ///< sm_90a: two warpgroups share 64 rows, half of o's columns each
  // sm_80 family only.
  TypeName q_type{"bf16"}, k_type{"bf16"}, v_type{"bf16"};  ///< in memory
  std::int64_t columns = 0;                                 ///< of o that a block computes
  std::int64_t chunk = 0;    ///< columns of q and k in shared memory at a time
  std::int64_t chunk_v = 0;  ///< columns of v
  bool resident = false;     ///< q stays in shared memory; else it comes with every tile of k
  bool split = false;        ///< o and lse of a piece of the keys, for the kernel combine
  // Its backward pass: `columns` are of dq or dk, `output` is the type of o.
  TypeName dout_type{"bf16"}, dq_type{"bf16"}, dk_type{"bf16"}, dv_type{"bf16"};
  std::int64_t columns_v = 0;  ///< of dv that a block computes
  // product_sm90: `columns` are of a slice of the result.
  bool by_keys = false;  ///< rows of the result are keys, those of the matrices; else queries
  // Parts that are on (variants/variant.h), and types of their tensors. sm_80 family only, and
  // decode_sm90; `output` of backward_dbias and backward_dsinks is the type of what they make.
  bool alibi = false, bias = false, mask = false, prefix = false, sinks = false, dropout = false;
  TypeName bias_type{"float"}, sinks_type{"float"};

  /// A part is on that is made pair by pair.
  bool has_pair_parts() const { return alibi || bias || mask || dropout; }

  bool operator==(const Config&) const = default;

  /// Calls f(name, value) for every field, once. Emitted text, cache key, equality and explain use
  /// this.
  template <class F>
  void visit(F&& f) const {
    f("kernel", kernel);
    f("arch", arch);
    f("element", element);
    f("output", output);
    f("planes", planes);
    f("head_dim", head_dim);
    f("head_dim_v", head_dim_v);
    f("block_m", block_m);
    f("block_n", block_n);
    f("warpgroups", warpgroups);
    f("warps", warps);
    f("stages", stages);
    f("cluster", cluster);
    f("masked", masked);
    f("softcap", softcap);
    f("ordered", ordered);
    f("packed", packed);
    f("wide", wide);
    f("q_type", q_type);
    f("k_type", k_type);
    f("v_type", v_type);
    f("columns", columns);
    f("chunk", chunk);
    f("chunk_v", chunk_v);
    f("resident", resident);
    f("split", split);
    f("dout_type", dout_type);
    f("dq_type", dq_type);
    f("dk_type", dk_type);
    f("dv_type", dv_type);
    f("columns_v", columns_v);
    f("by_keys", by_keys);
    f("alibi", alibi);
    f("bias", bias);
    f("mask", mask);
    f("prefix", prefix);
    f("sinks", sinks);
    f("dropout", dropout);
    f("bias_type", bias_type);
    f("sinks_type", sinks_type);
  }
};

/// What stands in front of the Config of a CUDA kernel, and of its numbers (assemble_source):
/// kernels/dialect.h defines the types.
inline constexpr std::string_view kernel_prologue = "struct f16;\nstruct bf16;\n";
inline constexpr std::string_view kernel_qualifiers = "static constexpr";

}  // namespace ingot::cuda
