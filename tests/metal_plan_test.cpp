// Plans for Metal devices: pure functions, tested without one.
#include "metal/metal_plan.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/error.hpp"
#include "core/source.hpp"
#include "metal/metal_arguments.hpp"
#include "metal/metal_program.hpp"

namespace ingot::metal {
namespace {

Problem problem_of(std::int64_t seqlen_q, std::int64_t seqlen_k, std::int64_t head_dim,
                   Dtype dtype = Dtype::f16) {
  Problem p;
  p.batch = 2;
  p.num_heads = 4;
  p.num_heads_kv = 2;
  p.seqlen_q = seqlen_q;
  p.seqlen_k = seqlen_k;
  p.head_dim = p.head_dim_v = head_dim;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  return p;
}

DeviceCaps device_of_family(int family) {
  for (const DeviceCaps& caps : known_devices()) {
    if (caps.family == family) return caps;
  }
  return {};
}

const ForwardDetail& forward_of(const Plan& plan) {
  return dynamic_cast<const ForwardDetail&>(*plan.forward.detail);
}

constexpr Dtype dtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16};
constexpr std::int64_t head_dims[] = {1,  7,   8,   16,  24,  33,  64,  72,  80,
                                      96, 128, 160, 192, 256, 384, 512, 1024};

TEST(MetalPlan, RespectsTheLimitsOfEveryDevice) {
  for (const DeviceCaps& caps : known_devices()) {
    for (const Dtype dtype : dtypes) {
      for (const std::int64_t dim : head_dims) {
        const Plan plan = plan_metal(problem_of(1000, 1500, dim, dtype), caps, "metal:0");
        for (const PassPlan* pass : {&plan.forward, &plan.backward}) {
          ASSERT_FALSE(pass->kernels.empty());
          EXPECT_FALSE(pass->why.empty()) << caps.chip << " " << pass->config.kernel << " " << dim;
          for (const KernelPlan& kernel : pass->kernels) {
            EXPECT_LE(kernel.shared_bytes, caps.max_threadgroup_bytes) << caps.chip << " " << dim;
            EXPECT_GT(kernel.threads, 0);
            EXPECT_LE(kernel.threads, 1024);
            EXPECT_EQ(kernel.threads % 32, 0);
            for (const std::int64_t extent : kernel.grid) EXPECT_GT(extent, 0);
            EXPECT_NO_THROW(kernel_file(kernel.file));
          }
        }
      }
    }
  }
}

TEST(MetalPlan, ANewLengthCompilesNothing) {
  const DeviceCaps caps = device_of_family(7);
  const auto keys = [&](std::int64_t n) {
    std::set<std::string> found;
    const Plan plan = plan_metal(problem_of(n, n + 500, 64), caps, "metal:0");
    for (const PassPlan* pass : {&plan.forward, &plan.backward}) {
      for (const KernelPlan& kernel : pass->kernels) {
        found.insert(kernel.file + emit_config(kernel.config, ""));
      }
    }
    return found;
  };
  EXPECT_EQ(keys(600), keys(601));
  EXPECT_EQ(keys(600), keys(5000));
}

std::string refusal(const Problem& p, const DeviceCaps& caps) {
  try {
    (void)plan_metal(p, caps, "metal:0");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::unsupported);
    return error.what();
  }
  return "";
}

TEST(MetalPlan, F64IsRefusedWithTheReason) {
  Problem p = problem_of(8, 8, 8);
  p.dk = Dtype::f64;
  EXPECT_NE(refusal(p, {}).find("device metal:0 computes f32, f16 and bf16"), std::string::npos);
}

TEST(MetalPlan, OldSystemsAreRefusedWithTheReason) {
  DeviceCaps caps = device_of_family(9);
  caps.os_major = 13;
  EXPECT_EQ(refusal(problem_of(8, 8, 8, Dtype::f16), caps), "");
  EXPECT_EQ(refusal(problem_of(8, 8, 8, Dtype::bf16), caps),
            "unsupported: dtype bf16: device metal:0 has it from macOS 14 on, this is macOS 13");
  caps.family = 7;
  EXPECT_EQ(refusal(problem_of(8, 8, 8, Dtype::bf16), caps), "") << "widened, not native";
  caps.os_major = 12;
  EXPECT_EQ(refusal(problem_of(8, 8, 8), caps),
            "unsupported: macOS 12: device metal:0 needs macOS 13 or newer");
}

TEST(MetalPlan, FewRowsWithManyKeysSplitThem) {
  const DeviceCaps caps = device_of_family(9);
  const Plan split = plan_metal(problem_of(1, 8192, 64), caps, "metal:0");
  const ForwardDetail& detail = forward_of(split);
  ASSERT_TRUE(detail.combine);
  EXPECT_GT(detail.splits, 1);
  EXPECT_GE(detail.splits * detail.split_length, 8192);
  EXPECT_LT((detail.splits - 1) * detail.split_length, 8192) << "no split is empty";
  const std::size_t rows = 2 * 4 * 1 * static_cast<std::size_t>(detail.splits);
  EXPECT_GE(split.forward.workspace_bytes, rows * (64 + 1) * sizeof(float));
  EXPECT_EQ(detail.partial_sums_at % 256, 0U);
  EXPECT_EQ(plan_metal(problem_of(512, 512, 64), caps, "metal:0").forward.workspace_bytes, 0U);
}

TEST(MetalPlan, SplitsReachAllKeysThatAPrefixMayShow) {
  Problem p = problem_of(1, 8192, 64);
  p.causal = Causal::top_left;  // the row sees one key
  EXPECT_FALSE(forward_of(plan_metal(p, device_of_family(9), "metal:0")).combine);
  p.parts.prefix = true;
  const Plan plan = plan_metal(p, device_of_family(9), "metal:0");
  const ForwardDetail& detail = forward_of(plan);
  ASSERT_TRUE(detail.combine);
  EXPECT_GE(detail.splits * detail.split_length, 8192);
}

TEST(MetalPlan, PartsAreCompiledInWhereTheyAreOn) {
  Problem p = problem_of(100, 100, 64);
  const Plan plain = plan_metal(p, device_of_family(7), "metal:0");
  EXPECT_EQ(plain.backward.kernels.size(), 3U);
  EXPECT_NE(source_of(plain, Pass::forward).find("bool bias = false;"), std::string::npos);
  p.parts.bias = p.parts.sinks = true;
  p.parts.bias_shape = {1, 4, 1, 100};
  p.parts.bias_dtype = Dtype::bf16;
  const Plan plan = plan_metal(p, device_of_family(7), "metal:0");
  const Config& forward = forward_of(plan).main.config;
  EXPECT_TRUE(forward.bias && forward.sinks);
  EXPECT_FALSE(forward.mask || forward.dropout || forward.alibi || forward.prefix);
  EXPECT_EQ(forward.bias_type.name, "ushort");
  const auto& backward = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
  ASSERT_TRUE(backward.dbias && backward.dsinks);
  EXPECT_EQ(backward.dbias->grid, (std::array<std::int64_t, 3>{4, 1, 4}));
  EXPECT_EQ(backward.dsinks->grid, (std::array<std::int64_t, 3>{4, 1, 1}));
}

TEST(MetalPlan, SourceHoldsEveryKernelOfAPass) {
  const Plan plan = plan_metal(problem_of(1, 8192, 64), device_of_family(7), "metal:0");
  const std::string forward = source_of(plan, Pass::forward);
  for (const KernelPlan& kernel : plan.forward.kernels) {
    EXPECT_NE(forward.find("// ---- " + kernel.file + " ----\n"), std::string::npos);
    EXPECT_NE(forward.find("#line 1 \"" + kernel.file + "\""), std::string::npos);
  }
  EXPECT_NE(source_of(plan, Pass::backward).find("kernel void backward_dq("), std::string::npos);
}

TEST(MetalPlan, LayoutsChangeWhatIsCompiledOnlyWhereTheyMust) {
  const Problem p = problem_of(100, 100, 64);
  const Plan plan = plan_metal(p, device_of_family(7), "metal:0");
  const Config& plain = forward_of(plan).main.config;
  float memory = 0;
  ForwardArgs args;
  const Strides packed{4 * 100 * 64, 100 * 64, 64, 1};
  args.q = args.k = args.v = {&memory, packed};
  args.o = {&memory, packed};
  args.lse.data = &memory;
  const auto config = [&] { return specialise(plain, operands_of(p, args)); };
  EXPECT_EQ(kernel_key(config()), kernel_key(plain));
  args.q.stride = {4 * 100 * 64, 64, 4 * 64, 1};  // BSHD
  EXPECT_EQ(config(), plain);
  args.k.stride = {4 * 100 * 64, 100 * 64, 1, 100};  // transposed
  EXPECT_TRUE(config().k_strided);
  EXPECT_FALSE(config().q_strided);
  EXPECT_EQ(config().unit_bytes, 16) << "its rows are not read as rows";
  args.v.stride[2] = 66;
  EXPECT_EQ(config().unit_bytes, 4);
  args.lse.data = nullptr;
  EXPECT_FALSE(config().has_lse);
  ForwardOperands offset = operands_of(p, args);
  offset.o.address = 2;
  EXPECT_EQ(specialise(plain, offset).unit_bytes, 2);
}

TEST(MetalPlan, KeysTellConfigsApart) {
  const Plan plan = plan_metal(problem_of(100, 100, 64), device_of_family(7), "metal:0");
  const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
  const std::set<std::string> keys = {kernel_key(forward_of(plan).main.config),
                                      kernel_key(detail.delta.config), kernel_key(detail.dq.config),
                                      kernel_key(detail.dkv.config)};
  EXPECT_EQ(keys.size(), 4U);
}

TEST(MetalCaps, TheLanguageIsTheNewestOfTheSystem) {
  const auto language = [](int os_major) {
    DeviceCaps caps;
    caps.os_major = os_major;
    return language_of(caps);
  };
  EXPECT_EQ(language(13), (Language{3, 0}));
  EXPECT_EQ(language(14), (Language{3, 1}));
  EXPECT_EQ(language(15), (Language{3, 2}));
  EXPECT_EQ(language(26), (Language{4, 0}));
  EXPECT_EQ(language(27), (Language{4, 0})) << "the newest that is known here";
}

TEST(MetalCaps, KnownChips) {
  EXPECT_EQ(cores_of("Apple M3 Max"), 40);
  EXPECT_EQ(cores_of("Apple M99"), 0);
  std::set<int> families;
  for (const DeviceCaps& caps : known_devices()) families.insert(caps.family);
  EXPECT_EQ(families, (std::set<int>{7, 8, 9, 10}));
}

}  // namespace
}  // namespace ingot::metal
