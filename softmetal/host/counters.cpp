#include "counters.hpp"

#include <map>
#include <mutex>

#include <softmetal/softmetal.h>

namespace softmetal {
namespace {

struct Total {
  std::uint64_t dispatches = 0;
  std::uint64_t checked = 0;
  msl::Counters counters;
};

struct Totals {
  std::mutex mutex;
  std::map<std::string, Total> by_kernel;
};

Totals& totals() {
  static Totals* const instance = new Totals;
  return *instance;
}

void copy_out(const Total& total, softmetal_counters* out) {
  const msl::Counters& c = total.counters;
  out->dispatches = total.dispatches;
  out->checked_dispatches = total.checked;
  out->threads = c.threads;
  out->threadgroups = c.threadgroups;
  out->matrix_operations = c.matrix_operations;
  out->barriers = c.barriers;
  out->simdgroup_barriers = c.simdgroup_barriers;
  out->simd_operations = c.simd_operations;
  out->atomics = c.atomics;
  out->device_bytes_read = c.device_bytes_read;
  out->device_bytes_written = c.device_bytes_written;
  out->threadgroup_bytes_read = c.threadgroup_bytes_read;
  out->threadgroup_bytes_written = c.threadgroup_bytes_written;
  out->constant_bytes_read = c.constant_bytes_read;
  out->float_operations = c.float_operations;
  out->integer_operations = c.integer_operations;
  out->special_operations = c.special_operations;
}

}  // namespace

void count_dispatch(const std::string& kernel, const msl::Counters& counters, bool checked) {
  const std::lock_guard lock(totals().mutex);
  Total& total = totals().by_kernel[kernel];
  ++total.dispatches;
  total.checked += checked ? 1 : 0;
  total.counters += counters;
}

}  // namespace softmetal

int softmetal_get_counters(const char* kernel, softmetal_counters* counters) {
  using namespace softmetal;
  if (counters == nullptr || counters->struct_size != sizeof(softmetal_counters)) {
    return -1;
  }
  const std::lock_guard lock(totals().mutex);
  Total sum;
  for (const auto& [name, total] : totals().by_kernel) {
    if (kernel == nullptr || name == kernel) {
      sum.dispatches += total.dispatches;
      sum.checked += total.checked;
      sum.counters += total.counters;
    }
  }
  copy_out(sum, counters);
  return sum.dispatches == 0 ? -1 : 0;
}

void softmetal_reset_counters(void) {
  const std::lock_guard lock(softmetal::totals().mutex);
  softmetal::totals().by_kernel.clear();
}
