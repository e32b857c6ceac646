// Which parts a row of the table turns on (ingot_problem: ALiBi, bias, mask, sinks, dropout,
// prefix) and what their tensors look like. Needs ingot.h and the standard library alone.
#pragma once

#include <ingot/ingot.h>

#include <cmath>
#include <cstdint>
#include <string>

namespace ingot::conformance {

enum class Slopes { none, of_heads, of_batches };  // of_heads: the same in all batch entries

/// What a mask hides.
enum class Mask {
  none,
  half,        // every pair by chance
  blocks,      // squares of 64 x 64, empty, full or half
  holes,       // half, and some rows see nothing, and some keys are seen by nobody
  padding,     // keys from a length of the batch entry on: no heads and no rows (stride 0)
  everything,  // all pairs
  of_heads,    // half, the same in all batch entries (stride 0)
  of_batches,  // half, the same for all heads (stride 0)
};

enum class Sinks { finite, some_absent };  // some_absent: -inf for every other head

struct PartChoice {
  Slopes alibi = Slopes::none;
  ingot_dtype bias = INGOT_DTYPE_DEFAULT;   // off
  ingot_dtype dbias = INGOT_DTYPE_DEFAULT;  // as bias
  // What bias has of batch, heads, rows, cols: a letter for a dimension with all its extent, 1 for
  // an extent of 1, 0 for all its extent with stride 0.
  const char* bias_dims = "bhqk";
  bool bias_holes = false;  // -inf by chance, in a whole row, and in a whole column
  Mask mask = Mask::none;
  ingot_dtype sinks = INGOT_DTYPE_DEFAULT;   // off
  ingot_dtype dsinks = INGOT_DTYPE_DEFAULT;  // as sinks
  Sinks sink_values = Sinks::finite;
  float dropout = 0;
  bool prefix = false;

  bool any() const {
    return alibi != Slopes::none || bias != INGOT_DTYPE_DEFAULT || mask != Mask::none ||
           sinks != INGOT_DTYPE_DEFAULT || dropout > 0 || prefix;
  }
};

inline const char* name_of(ingot_dtype dtype) {
  static const char* const names[] = {"default", "f32", "f16", "bf16", "f64"};
  return names[dtype];
}
inline const char* name_of(Mask mask) {
  static const char* const names[] = {"none",    "half",       "blocks",   "holes",
                                      "padding", "everything", "of_heads", "of_batches"};
  return names[static_cast<int>(mask)];
}

/// "" without parts, else "_alibi_bias_f32_bhqk" and so on.
inline std::string name_of(const PartChoice& c) {
  std::string s;
  if (c.alibi != Slopes::none) s += c.alibi == Slopes::of_heads ? "_alibi" : "_alibi_of_batches";
  if (c.bias != INGOT_DTYPE_DEFAULT) s += std::string("_bias_") + name_of(c.bias);
  if (c.dbias != INGOT_DTYPE_DEFAULT) s += std::string("_dbias_") + name_of(c.dbias);
  if (c.bias != INGOT_DTYPE_DEFAULT) s += std::string("_") + c.bias_dims;
  if (c.bias_holes) s += "_holes";
  if (c.mask != Mask::none) s += std::string("_mask_") + name_of(c.mask);
  if (c.sinks != INGOT_DTYPE_DEFAULT) s += std::string("_sinks_") + name_of(c.sinks);
  if (c.dsinks != INGOT_DTYPE_DEFAULT) s += std::string("_dsinks_") + name_of(c.dsinks);
  if (c.sink_values == Sinks::some_absent) s += "_some_absent";
  if (c.dropout > 0) s += "_dropout" + std::to_string(std::lround(c.dropout * 1000));
  if (c.prefix) s += "_prefix";
  return s;
}

/// Says in the problem what the choice turns on.
inline void turn_on(const PartChoice& c, ingot_problem& p) {
  p.alibi = c.alibi != Slopes::none ? 1 : 0;
  p.mask = c.mask != Mask::none ? 1 : 0;
  p.prefix = c.prefix ? 1 : 0;
  p.bias_dtype = c.bias, p.dbias_dtype = c.dbias;
  p.sinks_dtype = c.sinks, p.dsinks_dtype = c.dsinks;
  p.dropout = c.dropout;
  for (int i = 0; i < 4; ++i) p.bias_shape[i] = c.bias_dims[i] == '1' ? 1 : 0;
}

}  // namespace ingot::conformance
