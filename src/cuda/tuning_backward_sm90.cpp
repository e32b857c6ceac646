// Tiles of the backward kernels for Hopper that every form shares.
#include "cuda/tuning_mma.hpp"

namespace ingot::cuda {

Config choose_statistics(const Problem& p, const DeviceCaps& caps) {
  Config c;
  c.kernel = "statistics";
  c.arch = arch_of(caps);
  c.q_type = type_of(p.q);
  c.k_type = type_of(p.k);
  c.output = type_of(p.o);
  c.dout_type = type_of(p.dout);
  c.head_dim = p.head_dim;
  c.head_dim_v = p.head_dim_v;
  c.softcap = p.softcap > 0;
  c.warps = 8;
  return c;
}

}  // namespace ingot::cuda
