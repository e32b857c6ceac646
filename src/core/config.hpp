// Config: everything that changes code generation or register allocation, and nothing that changes
// per call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/problem.hpp"

namespace ingot {

struct Config {
  std::string_view kernel;  ///< "forward", "decode", "backward_fused", ...
  std::string_view target;  ///< instruction set or GPU family the kernel is built for
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  std::int64_t block_m = 0;  ///< query rows per tile
  std::int64_t block_n = 0;  ///< keys per tile
  std::int64_t split_k = 1;  ///< pieces the keys of one row are cut into; merged in order
  bool masked = false;       ///< causal or window: tiles on the boundary are tested per pair
  bool softcap = false;
  bool convert_kv =
      false;  ///< K and V tiles are copied to f32 before use (16-bit or badly strided)

  bool operator==(const Config&) const = default;

  /// Calls f(name, value) for every field, once. Emitted text, cache key, explain and Python's
  /// dictionary use this.
  template <class F>
  void visit(F&& f) const {
    f("kernel", kernel);
    f("target", target);
    f("head_dim", head_dim);
    f("head_dim_v", head_dim_v);
    f("block_m", block_m);
    f("block_n", block_n);
    f("split_k", split_k);
    f("masked", masked);
    f("softcap", softcap);
    f("convert_kv", convert_kv);
  }
};

}  // namespace ingot
