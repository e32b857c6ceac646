// The parts of attention that a problem turns on, for kernels that compile what is on (Config) and
// nothing else. One order, whatever the kernel:
//
//   score = scale * <q, k>, softcap            score.h
//   score = score - ALiBi + bias               RowParts::add
//   visible: mask, and prefix or band          RowParts::shows, BandOf
//   softmax begins with the sink               Variant::sink
//   weights times keep                         dropout.h
//
// Config: literals alibi, bias, mask, prefix, sinks and dropout; types bias_type and sinks_type.
// The compiler's own code makes abs_(float), multiply_wide and to_float(x) visible, the last for
// the numbers in memory. Coordinates are those of the sequence: rows are queries, cols are keys.
#ifndef INGOT_VARIANT_H
#define INGOT_VARIANT_H

#include "algorithm/band.h"
#include "variants/alibi.h"
#include "variants/part_params.h"

namespace INGOT_NAMESPACE {

// Where the tensors of the parts lie. Those of parts that are off are not looked at.
template <class Config>
struct PartAddresses {
  INGOT_GLOBAL const float* alibi_slopes;
  INGOT_GLOBAL const typename Config::bias_type* bias;
  INGOT_GLOBAL const unsigned char* mask;
  INGOT_GLOBAL const typename Config::sinks_type* sinks;
  INGOT_GLOBAL const int* prefix_len;
  // Two numbers of 64 bits, low halves first: seed and offset. Null: those of PartParams count.
  INGOT_GLOBAL const unsigned* dropout_state;
};

// Every pair has to be looked at, wherever its block lies.
template <class Config>
INGOT_FN constexpr bool hides_pairs() {
  return Config::mask;
}

// The band of a batch entry: ScoreParams, or Band if there is a prefix.
template <class Config, bool prefix = Config::prefix>
struct BandOf {
  typedef ScoreParams type;
  INGOT_FN static type of(ScoreParams score, Index) { return score; }
};
template <class Config>
struct BandOf<Config, true> {
  typedef Band type;
  INGOT_FN static type of(ScoreParams score, Index prefix) {
    type band;
    band.p = score;
    band.prefix = clamp_index(prefix, 0, score.seqlen_k);
    return band;
  }
};

// The parts at one row of one head.
template <class Config>
struct RowParts {
  INGOT_GLOBAL const typename Config::bias_type* bias;  // of col 0
  INGOT_GLOBAL const unsigned char* mask;
  Index bias_step, mask_step;  // from a col to the next
  Index position;              // of the row among the keys
  float slope;

  // The same with cols counted from `col` on.
  INGOT_FN RowParts from(Index col) const {
    RowParts parts = *this;
    parts.position -= col;
    if constexpr (Config::bias) parts.bias += col * bias_step;
    if constexpr (Config::mask) parts.mask += col * mask_step;
    return parts;
  }

  // score: in natural units, with its softcap.
  INGOT_FN float add(float score, Index col) const {
    if constexpr (Config::alibi) {
      score -= alibi_penalty(slope, static_cast<float>(col - position));
    }
    if constexpr (Config::bias) score += to_float(bias[col * bias_step]);
    return score;
  }
  INGOT_FN bool shows(Index col) const {
    if constexpr (Config::mask) return mask[col * mask_step] != 0;
    return true;
  }
};

// Params: PartParams, or a reference to them.
template <class Config, class Params>
struct Variant {
  Params p;
  PartAddresses<Config> from;

  INGOT_FN typename BandOf<Config>::type band(ScoreParams score, Index batch) const {
    Index prefix = 0;
    if constexpr (Config::prefix) prefix = from.prefix_len[batch * p.prefix_len.batch];
    return BandOf<Config>::of(score, prefix);
  }

  // The row must exist.
  INGOT_FN RowParts<Config> row(Index batch, Index head, Index row) const {
    RowParts<Config> parts;
    parts.position = row + p.position_shift;
    if constexpr (Config::alibi) {
      parts.slope = from.alibi_slopes[batch * p.alibi_slopes.batch + head * p.alibi_slopes.head];
    }
    if constexpr (Config::bias) {
      parts.bias = from.bias + batch * p.bias.batch + head * p.bias.head + row * p.bias.row;
      parts.bias_step = p.bias.col;
    }
    if constexpr (Config::mask) {
      parts.mask = from.mask + batch * p.mask.batch + head * p.mask.head + row * p.mask.row;
      parts.mask_step = p.mask.col;
    }
    return parts;
  }

  // The logit without a value, in natural units.
  INGOT_FN float sink(Index head) const {
    if constexpr (Config::sinks) return to_float(from.sinks[head * p.sinks.head]);
    return 0.0f;
  }

  INGOT_FN DropoutParams dropout() const {
    DropoutParams d = p.dropout;
    if constexpr (Config::dropout) {
      if (from.dropout_state != nullptr) {
        d.seed_low = from.dropout_state[0];
        d.seed_high = from.dropout_state[1] ^ from.dropout_state[3];
        d.offset = from.dropout_state[2];
      }
    }
    return d;
  }
};

}  // namespace INGOT_NAMESPACE
#endif
