// The only file that names every back end. The order is the order of preference of device "auto".
#include "core/backend.hpp"
#include "cpu/cpu_backend.hpp"
#include "cpu/reference.hpp"

namespace ingot {

std::vector<std::unique_ptr<Backend>> make_backends(const ContextOptions& options) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(make_cpu_backend(options));
  backends.push_back(make_reference_backend());
  return backends;
}

}  // namespace ingot
