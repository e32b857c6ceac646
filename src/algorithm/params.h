// Run-time arguments of the score: what changes every call and never compiles anything. Read by
// hosts and kernels.
#if defined(INGOT_PARAMS_H) == defined(INGOT_INCLUDE_AGAIN)
#ifdef INGOT_PARAMS_H
#undef INGOT_PARAMS_H
#else
#define INGOT_PARAMS_H
#endif

#include "algorithm/dialect.h"

namespace INGOT_NAMESPACE {

typedef INGOT_INDEX Index;

struct ScoreParams {
  float scale;    // score = scale * <q, k>
  float softcap;  // looked at where Config::softcap
  Index seqlen_q;
  Index seqlen_k;
  Index band_left;   // row sees cols in [row + band_left, row + band_right]: the causal mask, the
                     // window and their
  Index band_right;  // alignment folded into two numbers; see make_score_params
};

}  // namespace INGOT_NAMESPACE
#endif
