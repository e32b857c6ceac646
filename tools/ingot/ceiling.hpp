// What this machine can do at most, measured: the figures benchmarks are held against.
#pragma once

namespace ingot::cli {

struct Ceilings {
  double gflops = 0;  ///< f32 matrix product in registers and the first cache, all threads, GFLOP/s
  double read_gbps =
      0;  ///< streaming read of a buffer much larger than the caches, all threads, GB/s
  const char* target = "";  ///< instruction set that was used
  int threads = 0;
};

/// Takes about two seconds. threads 0: all this process may use.
Ceilings measure_ceilings(int threads);

}  // namespace ingot::cli
