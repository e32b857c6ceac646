#include "runner.hpp"

// The functions a kernel library calls. Each finds the worker that runs the calling kernel.

namespace softmetal::exec {
namespace {

using namespace softmetal_abi;

void* access(u64 address, u32 what, u32 site) {
  return Runner::current()->access(address, what, site, what & access_size_mask);
}
void* range(u64 address, u64 bytes, u32 what, u32 site) {
  return Runner::current()->access(address, what, site, bytes);
}
void count(u32 float_ops, u32 integer_ops, u32 special_ops) {
  msl::Counters& c = Runner::current()->count();
  c.float_operations += float_ops;
  c.integer_operations += integer_ops;
  c.special_operations += special_ops;
}
void inactive_lane(u32 site, u32 lane) { Runner::current()->inactive_lane(site, lane); }
void count_matrix(u32 operations) { Runner::current()->count().matrix_operations += operations; }
void count_atomic() { ++Runner::current()->count().atomics; }
u32 lane() { return Runner::current()->lane(); }
u32 active_mask() { return Runner::current()->active_mask(); }
u32 thread_index() { return Runner::current()->thread_index(); }

constexpr Runtime kTable{Runner::collective_entry,
                         Runner::barrier_entry,
                         access,
                         range,
                         count,
                         inactive_lane,
                         count_matrix,
                         count_atomic,
                         lane,
                         active_mask,
                         thread_index};

}  // namespace

const Runtime* runtime_table() { return &kTable; }

}  // namespace softmetal::exec
