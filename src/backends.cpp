// The only file that names every back end. The order is the order of preference of device "auto":
// a Mac's GPU comes first; a Metal device in software comes after the CPU that executes it, so that
// it is used only where somebody names it.
#include <iterator>

#include "core/backend.hpp"
#include "cpu/cpu_backend.hpp"
#include "cpu/reference.hpp"
#include "metal/metal_chips.hpp"
#if defined(INGOT_WITH_CUDA)
#include "cuda/cuda_backend.hpp"
#endif
#if defined(INGOT_WITH_METAL)
#include "metal/metal_backend.hpp"
#endif

namespace ingot {
namespace {

#if defined(INGOT_WITH_METAL)
void add_metal_backends(std::vector<std::unique_ptr<Backend>>& backends) {
#if defined(INGOT_METAL_IN_SOFTWARE)
  const auto place = backends.end();
#else
  const auto place = backends.begin();
#endif
  auto found = make_metal_backends();
  backends.insert(place, std::make_move_iterator(found.begin()),
                  std::make_move_iterator(found.end()));
}
#endif

}  // namespace

std::vector<std::unique_ptr<Backend>> make_backends(const ContextOptions& options) {
  std::vector<std::unique_ptr<Backend>> backends;
#if defined(INGOT_WITH_CUDA)
  backends = make_cuda_backends();
#endif
  backends.push_back(make_cpu_backend(options));
#if defined(INGOT_WITH_METAL)
  add_metal_backends(backends);
#endif
  backends.push_back(make_reference_backend());
  return backends;
}

std::vector<std::unique_ptr<Backend>> make_plan_only_backends() {
  return make_metal_chip_backends();
}

std::string absence_reason([[maybe_unused]] std::string_view device) {
  if (device.starts_with("cuda")) {
#if defined(INGOT_WITH_CUDA)
    return cuda_absence();
#else
    return "this build has no CUDA back end";
#endif
  }
#if !defined(INGOT_WITH_METAL)
  if (device.starts_with("metal")) return "this build has no Metal back end";
#endif
  return {};
}

}  // namespace ingot
