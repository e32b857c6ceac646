#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>

#include "../msl/pipeline.hpp"
#include "crash.hpp"
#include "crew.hpp"
#include "runner.hpp"

namespace softmetal::msl {
namespace {

using exec::Job;
using exec::Runner;

constexpr std::size_t kThreadgroupLimit = 32 * 1024;

void check_grid(const Pipeline& pipeline, const DispatchInput& input) {
  auto refuse = [](const std::string& what) { throw std::invalid_argument("dispatch: " + what); };
  const Size3& t = input.threads_per_threadgroup;
  if (t.count() == 0) refuse("threads_per_threadgroup has a zero");
  if (t.count() > pipeline.max_total_threads_per_threadgroup()) {
    refuse("threads_per_threadgroup must be at most " +
           std::to_string(pipeline.max_total_threads_per_threadgroup()) + ", got " +
           std::to_string(t.count()));
  }
  if (input.threads_per_grid && input.threads_per_grid->count() == 0) {
    refuse("threads_per_grid has a zero");
  }
  if (!input.threads_per_grid && input.threadgroups.count() == 0) {
    refuse("threadgroups has a zero");
  }
  std::size_t bytes = pipeline.static_threadgroup_bytes();
  for (std::size_t b : input.threadgroup_bytes) bytes += b;
  if (bytes > kThreadgroupLimit) {
    refuse("threadgroup memory must be at most 32768 bytes, got " + std::to_string(bytes));
  }
}

Size3 groups_of(const DispatchInput& input) {
  if (!input.threads_per_grid) return input.threadgroups;
  auto divide = [](std::uint32_t n, std::uint32_t by) { return (n + by - 1) / by; };
  const Size3& grid = *input.threads_per_grid;
  const Size3& full = input.threads_per_threadgroup;
  return {divide(grid.x, full.x), divide(grid.y, full.y), divide(grid.z, full.z)};
}

Finding unbound(const std::string& kernel, const Binding& b, int line, std::string text) {
  Finding f;
  f.kind = FindingKind::unbound_buffer;
  f.kernel = kernel;
  f.file = "program_source";
  f.line = line;
  f.buffer_index = static_cast<int>(b.index);
  f.text = b.name + ": " + std::move(text);
  return f;
}

void bind(Job& job, const Pipeline& pipeline, const DispatchInput& input) {
  for (std::size_t i = 0; i < input.buffers.size(); ++i) {
    const BufferSlot& from = input.buffers[i];
    job.memory.slots[i] = {from.data, from.bytes, from.writable, from.label,
                           nullptr,   nullptr,    from.start};
    if (job.options.uses && pipeline.instrumented() && from.data != nullptr) {
      job.memory.slots[i].touched = std::make_shared<exec::TouchMap>(from.bytes);
    }
  }
  for (const BufferSlot& r : input.resident) {
    job.memory.resident.push_back({r.data, r.bytes, r.writable, r.label, nullptr, nullptr});
  }
  job.dynamic_bytes = input.threadgroup_bytes;
  const FunctionInfo& info = pipeline.info();
  for (const Binding& b : info.bindings) {
    if (b.kind != BindingKind::buffer || !b.active) continue;
    auto& slot = job.memory.slots[b.index];
    if (slot.data == nullptr) {
      job.findings->add(unbound(info.name, b, info.line, "nothing is bound"));
    } else if (b.by_reference && slot.bytes - slot.start < b.size) {
      job.findings->add(unbound(info.name, b, info.line,
                                "needs " + std::to_string(b.size) + " bytes, has " +
                                    std::to_string(slot.bytes - slot.start)));
    }
    if (b.access == Access::read) slot.writable = false;
    job.constant[b.index] = b.address_space == AddressSpace::constant;
  }
  if (pipeline.instrumented() && job.options.races) job.memory.build_shadows();
}

// A loop that never ends is found after about a minute.
constexpr std::uint64_t kStepBudget = 4'000'000'000;

std::uint64_t number(const std::string& name, const char* text) {
  char* end = nullptr;
  const std::uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end != '\0') {
    throw std::invalid_argument(name + " takes a number, got " + text);
  }
  return value;
}

/// The threadgroups of a dispatch; workers take them from one counter.
class Grid : public exec::SharedWork {
 public:
  explicit Grid(const Job& job) : job_(job), total_(job.groups.count()) {
    if (job.options.schedule_seed == 0) return;
    // A random schedule visits threadgroups in the order (a + b g) mod total.
    exec::Random random;
    random.seed(job.options.schedule_seed);
    first_ = random() % total_;
    do {
      stride_ = 1 + random() % total_;
    } while (std::gcd(stride_, total_) != 1);
  }

  Counters run(unsigned workers) {
    const auto useful = static_cast<unsigned>(std::min<std::uint64_t>(workers, total_));
    exec::Helpers::instance().run(*this, useful - 1);
    return sum_;
  }

  void take_part() override {
    const std::uint64_t chunk =
        std::max<std::uint64_t>(1, std::min<std::uint64_t>(64, total_ / 64));
    std::uint64_t at = next_.fetch_add(chunk);
    if (at >= total_) return;
    const exec::RunnerLoan loan;
    Runner& runner = loan.runner();
    runner.begin(job_);
    for (; at < total_; at = next_.fetch_add(chunk)) {
      for (std::uint64_t g = at; g < std::min(at + chunk, total_); ++g) run_one(runner, g);
    }
    std::lock_guard lock(mutex_);
    sum_ += runner.counters();
  }

 private:
  void run_one(Runner& runner, std::uint64_t turn) {
    using Wide = unsigned __int128;
    const auto g = static_cast<std::uint64_t>((first_ + Wide{stride_} * turn) % total_);
    const auto x = static_cast<std::uint32_t>(g % job_.groups.x);
    const auto y = static_cast<std::uint32_t>(g / job_.groups.x % job_.groups.y);
    const auto z = static_cast<std::uint32_t>(g / job_.groups.x / job_.groups.y);
    runner.run_group({x, y, z}, static_cast<std::uint32_t>(g));
  }

  const Job& job_;
  std::uint64_t total_;
  std::uint64_t first_ = 0, stride_ = 1;
  std::atomic<std::uint64_t> next_{0};
  std::mutex mutex_;
  Counters sum_;
};

}  // namespace

ExecOptions exec_options_from_environment() {
  ExecOptions options;
  if (const char* schedule = std::getenv("SOFTMETAL_SCHEDULE")) {
    const std::string text = schedule;
    if (text.starts_with("random:")) {
      options.schedule_seed =
          std::max<std::uint64_t>(1, number("SOFTMETAL_SCHEDULE=random:SEED", schedule + 7));
    } else if (text != "inorder") {
      throw std::invalid_argument("SOFTMETAL_SCHEDULE must be inorder or random:SEED, got " + text);
    }
  }
  if (const char* workers = std::getenv("SOFTMETAL_WORKERS")) {
    options.workers = static_cast<unsigned>(number("SOFTMETAL_WORKERS", workers));
  }
  options.step_budget = kStepBudget;
  if (const char* budget = std::getenv("SOFTMETAL_STEP_BUDGET")) {
    options.step_budget = number("SOFTMETAL_STEP_BUDGET", budget);
  }
  return options;
}

DispatchResult dispatch(const Pipeline& pipeline, const DispatchInput& input,
                        const ExecOptions& options) {
  check_grid(pipeline, input);
  const auto& loaded = dynamic_cast<const LoadedPipeline&>(pipeline);
  exec::FindingSink sink(options.max_findings);
  Job job;
  job.entry = loaded.entry();
  job.regions = loaded.regions();
  job.kernel = pipeline.info().name;
  if (pipeline.instrumented()) std::tie(job.module_begin, job.module_end) = loaded.image();
  job.sites = &loaded.sites();
  job.collective_files = &loaded.collective_files();
  job.instrumented = pipeline.instrumented();
  job.options = options;
  job.groups = groups_of(input);
  job.threads = input.threads_per_threadgroup;
  job.exact_grid = input.threads_per_grid;
  job.zero_page.resize(4096);
  job.findings = &sink;
  bind(job, pipeline, input);
  exec::arrange_crash_reports();
  unsigned workers = options.workers != 0 ? options.workers : std::thread::hardware_concurrency();
  DispatchResult result;
  result.counters = Grid(job).run(std::max(1u, workers));
  result.findings = sink.take();
  for (std::size_t i = 0; i < result.uses.size(); ++i) {
    if (const auto& touched = job.memory.slots[i].touched) result.uses[i] = touched->summary();
  }
  return result;
}

}  // namespace softmetal::msl
