// Planners are pure functions of any problem that is valid, and no such problem ends them: random
// ones of extreme sizes, on every back end and every kind of device that a table knows.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "core/context.hpp"
#include "core/error.hpp"
#include "cpu/cpu_plan.hpp"
#include "metal/metal_plan.hpp"
#if defined(__linux__)
#include "cuda/cuda_plan.hpp"
#endif

namespace ingot {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr int problems = 8'000;
#else
constexpr int problems = 100'000;
#endif

class Draw {
 public:
  template <class T>
  T one_of(std::span<const T> values) {
    return values[random_() % values.size()];
  }
  template <class T, std::size_t N>
  T one_of(const T (&values)[N]) {
    return one_of(std::span<const T>(values));
  }

  /// Mostly an edge of what is allowed or of what a planner tells apart, else any number.
  std::int64_t size(std::int64_t most) {
    constexpr std::int64_t edges[] = {0, 0, 1, 1, 1, 2, 3, 7, 8, 16, 17, 64, 127, 256, 1000, 4096};
    const int bits = static_cast<int>(random_() % 64);
    const std::int64_t any = static_cast<std::int64_t>(random_() >> bits) & INT64_MAX;
    const std::int64_t drawn = random_() % 2 == 0 ? one_of(edges) : any;
    if (random_() % 16 == 0) return most;
    return drawn <= most ? drawn : most - drawn % (most / 2 + 1);
  }

  Problem problem() {
    constexpr std::int64_t most = std::int64_t{1} << 40;
    Problem p;
    p.batch = size(most);
    p.num_heads_kv = std::max<std::int64_t>(size(1 << 20), 1);
    p.num_heads = p.num_heads_kv * std::max<std::int64_t>(size(1 << 20), 1);
    p.seqlen_q = size(most);
    p.seqlen_k = size(most);
    p.head_dim = std::max<std::int64_t>(size(1024), 1);
    p.head_dim_v = random_() % 2 == 0 ? p.head_dim : std::max<std::int64_t>(size(1024), 1);
    make_possible(p);
    constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};
    p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = one_of(dtypes);
    if (random_() % 4 == 0) p.k = one_of(dtypes), p.o = one_of(dtypes), p.dv = one_of(dtypes);
    constexpr Causal causal[] = {Causal::none, Causal::none, Causal::top_left,
                                 Causal::bottom_right};
    p.causal = one_of(causal);
    p.window_left = window();
    p.window_right = window();
    constexpr float scales[] = {1, 0.125F, -3, 2e-37F, 9e36F, -2e-37F};
    p.scale = one_of(scales);
    constexpr float caps[] = {0, 0, 0, 30, 1e-3F, 9e36F};
    p.softcap = one_of(caps);
    const float quotient = std::fabs(p.scale / p.softcap);
    if (!(quotient > 1e-37F && quotient < 1e37F)) p.softcap = 0;
    p.precision = random_() % 2 == 0 ? Precision::highest : Precision::high;
    constexpr std::int64_t limits[] = {0, 1, 4096, std::int64_t{5} << 28, INT64_MAX, INT64_MAX - 1};
    p.workspace_limit = random_() % 4 == 0 ? size(INT64_MAX) : one_of(limits);
    if (random_() % 2 == 0) p.parts = parts(p);
    return p;
  }

 private:
  Parts parts(const Problem& p) {
    const auto any = [&] { return random_() % 2 == 0; };
    Parts parts;
    parts.alibi = any(), parts.sinks = any();
    parts.prefix = any() && p.window_left < 0;
    parts.dropout = any() ? 0.1F : 0.0F;
    double pairs = 1;
    for (const std::int64_t n : {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k}) {
      pairs *= static_cast<double>(std::max<std::int64_t>(n, 1));
    }
    if (pairs >= 0x1p58) return parts;
    parts.mask = any(), parts.bias = any();
    const std::int64_t full[] = {p.batch, p.num_heads, p.seqlen_q, p.seqlen_k};
    for (std::size_t i = 0; i < 4; ++i) parts.bias_shape[i] = any() ? 1 : full[i];
    return parts;
  }

  std::int64_t window() {
    constexpr std::int64_t edges[] = {-1, -1, -1, 0, 1, 127, INT64_MAX, INT64_MAX - 1};
    return random_() % 4 == 0 ? size(INT64_MAX) : one_of(edges);
  }

  /// Halves sizes until the problem is one that validate() takes.
  void make_possible(Problem& p) {
    const auto total = [&] {
      const auto longest = static_cast<double>(std::max<std::int64_t>({p.seqlen_q, p.seqlen_k, 1}));
      return static_cast<double>(std::max<std::int64_t>(p.batch, 1)) *
             static_cast<double>(p.num_heads) * longest *
             static_cast<double>(std::max(p.head_dim, p.head_dim_v));
    };
    while (total() > 0x1p59) {
      std::int64_t* const sizes[] = {&p.batch, &p.seqlen_q, &p.seqlen_k};
      *one_of(sizes) /= 2;
      if (random_() % 4 == 0) p.num_heads = p.num_heads_kv;
    }
  }

  std::mt19937_64 random_{20261130};
};

std::string text_of(const Problem& p) {
  Plan plan;
  plan.problem = p;
  return explain_json(plan);
}

/// A plan, or a refusal with a reason; never anything else.
template <class F>
void expect_plan(const Problem& p, const std::string& device, F&& make) {
  SCOPED_TRACE(device);
  try {
    const Plan plan = make();
    for (const PassPlan* pass : {&plan.forward, &plan.backward}) {
      ASSERT_GE(pass->units, 0) << text_of(p);
      ASSERT_LT(pass->workspace_bytes, std::size_t{1} << 63) << text_of(p);
      for (const KernelPlan& kernel : pass->kernels) {
        for (const std::int64_t extent : kernel.grid) ASSERT_GE(extent, 0) << text_of(p);
      }
    }
  } catch (const Error& error) {
    ASSERT_EQ(error.code(), Code::unsupported) << error.what() << text_of(p);
  } catch (const std::exception& error) {
    FAIL() << error.what() << text_of(p);
  }
}

std::vector<CpuCaps> processors() {
  std::vector<CpuCaps> all;
  for (const int threads : {1, 2, 64, 4096}) {
    for (const std::int64_t lanes : {4, 8, 16}) {
      CpuCaps caps;
      caps.threads = threads;
      caps.lanes = lanes;
      caps.target = "any";
      all.push_back(caps);
    }
  }
  return all;
}

TEST(PlanExtremes, EveryValidProblemHasAPlanOrAReason) {
  Draw draw;
  const std::vector<CpuCaps> cpus = processors();
  const std::vector<metal::DeviceCaps> chips = metal::known_devices();
#if defined(__linux__)
  const cuda::DeviceCaps gpus[] = {{80, 108, 166912, 0, "A100"},  {86, 84, 101376, 0, "A40"},
                                   {89, 142, 101376, 0, "L40"},   {90, 132, 232448, 0, "H100"},
                                   {90, 114, 232448, 0, "H100"},  {100, 148, 232448, 0, "B200"},
                                   {120, 170, 101376, 0, "5090"}, {90, 1, 232448, 0, "MIG"}};
#endif
  for (int i = 0; i < problems && !HasFatalFailure(); ++i) {
    const Problem p = draw.problem();
    ASSERT_NO_THROW(validate(p)) << text_of(p);
    const CpuCaps& cpu = draw.one_of(std::span<const CpuCaps>(cpus));
    expect_plan(p, "cpu", [&] { return plan_cpu(p, cpu); });
    const auto& chip = draw.one_of(std::span<const metal::DeviceCaps>(chips));
    expect_plan(p, chip.chip, [&] { return metal::plan_metal(p, chip, "metal:0"); });
#if defined(__linux__)
    const cuda::DeviceCaps& gpu = draw.one_of(gpus);
    expect_plan(p, gpu.name, [&] { return cuda::plan_cuda(p, gpu, "cuda:0"); });
#endif
  }
}

/// The names that a caller can give, with what a plan of each says.
TEST(PlanExtremes, EveryDeviceExplainsProblemsWithoutElements) {
  const Context context{ContextOptions{}};
  std::vector<std::string> names = {"cpu", "reference"};
  for (const metal::DeviceCaps& chip : metal::known_devices()) {
    std::string name = "metal:" + chip.chip.substr(6);
    for (char& c : name) c = c == ' ' ? '-' : static_cast<char>(std::tolower(c));
    names.push_back(name);
  }
  for (const std::string& name : names) {
    for (int zeros = 0; zeros < 8; ++zeros) {
      Problem p;
      p.batch = (zeros & 1) != 0 ? 0 : std::int64_t{1} << 30;
      p.seqlen_q = (zeros & 2) != 0 ? 0 : 1;
      p.seqlen_k = (zeros & 4) != 0 ? 0 : 300;
      p.head_dim = p.head_dim_v = 64;
      BoundPlan bound;
      ASSERT_NO_THROW(bound = make_plan(context, name, p)) << name << " " << zeros;
      EXPECT_FALSE(explain_text(bound.plan).empty());
      EXPECT_FALSE(explain_json(bound.plan).empty());
    }
  }
}

TEST(PlanExtremes, HeadsWithoutRowsAreCountedToo) {
  Problem p;
  p.batch = p.num_heads = p.num_heads_kv = std::int64_t{1} << 40;
  p.head_dim = p.head_dim_v = 1;
  try {
    validate(p);
    FAIL() << "2^80 heads are valid";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "problem: batch * num_heads * seqlen * head_dim must be at most 2^59, got "
                 "1099511627776 * 1099511627776 * 1 * 1");
  }
}

}  // namespace
}  // namespace ingot
