#include "exec/launch.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "crew.hpp"  // softmetal's
#include "exec/fault.hpp"
#include "exec/worker.hpp"

namespace softcuda {
namespace {

/// Workers take clusters in order of their index: a block may wait for blocks before it.
class Work final : public softmetal::exec::SharedWork {
 public:
  explicit Work(Launch& launch) : launch_(launch) {}
  void take_part() override {
    catch_faults();
    while (!launch_.failed) {
      const u32 cluster = launch_.next_cluster++;
      if (cluster >= launch_.clusters()) return;
      Worker::current().run(launch_, cluster);
    }
  }

 private:
  Launch& launch_;
};

unsigned workers() {
  if (const char* chosen = std::getenv("SOFTCUDA_WORKERS"); chosen != nullptr) {
    const int count = std::atoi(chosen);
    if (count > 0) return static_cast<unsigned>(count);
  }
  const unsigned cores = std::thread::hardware_concurrency();
  return cores == 0 ? 1 : cores;
}

/// "copies", "products", or another word but 0 for both.
bool is_lazy(std::string_view which) {
  const char* const value = std::getenv("SOFTCUDA_LAZY");
  const std::string_view chosen = value == nullptr ? "" : value;
  if (chosen == "copies" || chosen == "products") return chosen == which;
  return !chosen.empty() && chosen != "0";
}

}  // namespace

bool execute(Launch& launch) {
  launch.lazy_copies = is_lazy("copies");
  launch.lazy_products = is_lazy("products");
  Work work(launch);
  const unsigned most = std::min(workers(), launch.clusters());
  softmetal::exec::Helpers::instance().run(work, most - 1);
  return !launch.failed;
}

}  // namespace softcuda
