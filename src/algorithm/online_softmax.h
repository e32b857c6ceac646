// Online softmax (Milakov and Gimelshein, 2018; FlashAttention, Dao et al., 2022): the running
// maximum and sum of a row in the base-2 domain, safe for rows that have seen no key yet (maximum
// -inf). F: float, or a vector of one row a lane.
#ifndef INGOT_ONLINE_SOFTMAX_H
#define INGOT_ONLINE_SOFTMAX_H

#include "algorithm/dialect.h"

namespace INGOT_NAMESPACE {

// finite_or_(x, y) is y where x is -inf, else x. It comes from the dialect, like max_, which may
// drop a NaN: a score that is NaN still makes its exp2_, and with it row_sum, NaN.
template <class F>
struct OnlineSoftmax {
  F row_max;  // of the scores so far, base 2; -inf: none
  F row_sum;  // of exp2(score - row_max)

  // Takes the maximum of the next tile. Returns what O and row_sum so far are to be multiplied by.
  INGOT_FN F raise_max(F tile_max) {
    const F higher = max_(row_max, tile_max);
    const F correction = exp2_(row_max - finite_or_(higher, F(0.0f)));
    row_max = higher;
    row_sum = row_sum * correction;
    return correction;
  }

  // What exp2 subtracts from the scores of the tile: finite even where no key was visible.
  INGOT_FN F offset() const { return finite_or_(row_max, F(0.0f)); }
};

}  // namespace INGOT_NAMESPACE
#endif
