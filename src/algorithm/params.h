// Run-time arguments of the score: what changes every call and never compiles anything. Read by
// hosts and kernels.
#ifndef INGOT_PARAMS_H
#define INGOT_PARAMS_H

#include "algorithm/dialect.h"

namespace INGOT_NAMESPACE {

typedef INGOT_INDEX Index;

struct ScoreParams {
  float scale;    // score = scale * <q, k>
  float softcap;  // looked at where Config::softcap
  Index seqlen_q;
  Index seqlen_k;
  // A row sees cols in [row + band_left, row + band_right]: the causal mask, the window and their
  // alignment folded into two numbers; see make_score_params.
  Index band_left;
  Index band_right;
};

}  // namespace INGOT_NAMESPACE
#endif
