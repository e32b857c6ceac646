// Tiles of the backward kernels for Hopper that every form shares.
#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {

Config choose_statistics(const Problem& p, const DeviceCaps& caps) {
  Config c;
  c.kernel = "statistics";
  c.arch = arch_of(caps);
  c.output = type_of(p.o);
  c.dout_type = type_of(p.dout);
  c.head_dim_v = p.head_dim_v;
  c.warps = 8;
  return c;
}

}  // namespace ingot::cuda
