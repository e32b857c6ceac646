// Every rule of ingot.h that a caller can break: the status, and a message that names the argument,
// the rule and the value.
#include <gtest/gtest.h>

#include <limits>

#include "broken_calls.hpp"

namespace ingot::conformance {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

std::vector<Rule> size_rules() {
  return {
      {[](auto& p) { p.batch = -1; }, "batch: must be from 0 to 1099511627776, got -1"},
      {[](auto& p) { p.batch = INT64_MAX; },
       "batch: must be from 0 to 1099511627776, got 9223372036854775807"},
      {[](auto& p) { p.num_heads = 0; }, "num_heads: must be from 1 to 1099511627776, got 0"},
      {[](auto& p) { p.num_heads_kv = 0; }, "num_heads_kv: must be from 1 to 1099511627776, got 0"},
      {[](auto& p) { p.num_heads_kv = 3; }, "num_heads_kv: must divide num_heads 4, got 3"},
      {[](auto& p) { p.num_heads_kv = 8; }, "num_heads_kv: must divide num_heads 4, got 8"},
      {[](auto& p) { p.seqlen_q = -7; }, "seqlen_q: must be from 0 to 1099511627776, got -7"},
      {[](auto& p) { p.seqlen_k = -1; }, "seqlen_k: must be from 0 to 1099511627776, got -1"},
      {[](auto& p) { p.head_dim = 0; }, "head_dim: must be from 1 to 1024, got 0"},
      {[](auto& p) { p.head_dim = 1025; }, "head_dim: must be from 1 to 1024, got 1025"},
      {[](auto& p) { p.head_dim_v = 0; }, "head_dim_v: must be from 1 to 1024, got 0"},
      {[](auto& p) { p.head_dim_v = 1025; }, "head_dim_v: must be from 1 to 1024, got 1025"},
      {[](auto& p) { p.batch = p.seqlen_q = std::int64_t{1} << 40; },
       "problem: batch * num_heads * seqlen * head_dim must be at most 2^59, got 1099511627776 * 4 "
       "* 1099511627776 * 8"},
  };
}

std::vector<Rule> variant_rules() {
  return {
      {[](auto& p) { p.window_left = -2; },
       "window_left: must be from -1 to 9223372036854775807, got -2"},
      {[](auto& p) { p.window_right = INT64_MIN; },
       "window_right: must be from -1 to 9223372036854775807, got -9223372036854775808"},
      {[](auto& p) { p.scale = nan; }, "scale: must be finite and not 0, got nan"},
      {[](auto& p) { p.scale = -infinity; }, "scale: must be finite and not 0, got -inf"},
      {[](auto& p) { p.softcap = -1; }, "softcap: must be finite and not negative, got -1"},
      {[](auto& p) { p.softcap = infinity; }, "softcap: must be finite and not negative, got inf"},
      {[](auto& p) { p.softcap = nan; }, "softcap: must be finite and not negative, got nan"},
      {[](auto& p) { p.scale = 1e30F, p.softcap = 1e-30F; },
       "softcap: the magnitude of scale / softcap must be from 1e-37 to 1e37, got scale 1e+30, "
       "softcap 1e-30"},
      {[](auto& p) { p.scale = 1e-30F, p.softcap = 1e30F; },
       "softcap: the magnitude of scale / softcap must be from 1e-37 to 1e37, got scale 1e-30, "
       "softcap 1e+30"},
      {[](auto& p) { p.scale = 1e-38F; },
       "scale: its magnitude must be from 1e-37 to 1e37, got 1e-38"},
      {[](auto& p) { p.scale = -2e37F; },
       "scale: its magnitude must be from 1e-37 to 1e37, got -2e+37"},
      {[](auto& p) { p.softcap = 1e-38F; }, "softcap: must be 0 or from 1e-37 to 1e37, got 1e-38"},
      {[](auto& p) { p.softcap = 2e38F; }, "softcap: must be 0 or from 1e-37 to 1e37, got 2e+38"},
  };
}

std::vector<Rule> enum_rules() {
  std::vector<Rule> rules;
  const std::pair<const char*, ingot_dtype ingot_problem::*> dtypes[] = {
      {"q_dtype", &ingot_problem::q_dtype},       {"k_dtype", &ingot_problem::k_dtype},
      {"v_dtype", &ingot_problem::v_dtype},       {"o_dtype", &ingot_problem::o_dtype},
      {"dout_dtype", &ingot_problem::dout_dtype}, {"dq_dtype", &ingot_problem::dq_dtype},
      {"dk_dtype", &ingot_problem::dk_dtype},     {"dv_dtype", &ingot_problem::dv_dtype}};
  for (const auto& [name, field] : dtypes) {
    for (const int value : {5, -1, 257}) {
      rules.push_back(
          {[f = field, value](ingot_problem& p) { p.*f = beyond<ingot_dtype>(value); },
           std::string(name) + ": must be an ingot_dtype (0 to 4), got " + std::to_string(value)});
    }
  }
  for (const int value : {3, -1, 256}) {
    rules.push_back({[value](ingot_problem& p) { p.causal = beyond<ingot_causal>(value); },
                     "causal: must be an ingot_causal (0 to 2), got " + std::to_string(value)});
  }
  for (const int value : {2, -1, 256}) {
    rules.push_back(
        {[value](ingot_problem& p) { p.precision = beyond<ingot_precision>(value); },
         "precision: must be an ingot_precision (0 or 1), got " + std::to_string(value)});
  }
  return rules;
}

TEST(ProblemErrors, Sizes) { expect_rules(size_rules()); }
TEST(ProblemErrors, Variants) { expect_rules(variant_rules()); }
TEST(ProblemErrors, Enumerators) { expect_rules(enum_rules()); }

TEST(ProblemErrors, DeviceThatIsNotThere) {
  const ingot_problem p = small_problem();
  ingot_plan* plan = nullptr;
  EXPECT_EQ(ingot_plan_create(shared_context(), "abacus:3", &p, &plan), INGOT_INVALID_ARGUMENT);
  const std::string message = ingot_last_error();
  std::string names = "auto";
  for (const std::string& name : device_names(shared_context())) names += ", " + name;
  EXPECT_EQ(message, "device: must be one of " + names + " on this machine, got abacus:3");
}

TEST(ProblemErrors, F64OutsideTheReferenceIsUnsupported) {
  for (const std::string& device : device_names(shared_context())) {
    ingot_problem p = small_problem();
    p.v_dtype = INGOT_F64;
    ingot_plan* plan = nullptr;
    const ingot_status status = ingot_plan_create(shared_context(), device.c_str(), &p, &plan);
    EXPECT_EQ(status, device == "reference" ? INGOT_OK : INGOT_UNSUPPORTED) << device;
    ingot_plan_destroy(plan);
    if (device == "reference") continue;
    const std::string message = ingot_last_error();
    EXPECT_EQ(message.rfind("unsupported: ", 0), 0U) << message;
    EXPECT_NE(message.find("f64"), std::string::npos) << message;
  }
}

TEST(ArgumentErrors, NoneForACorrectCall) {
  const Call call;
  EXPECT_EQ(ingot_forward(call.plan.get(), &call.f), INGOT_OK) << ingot_last_error();
  EXPECT_EQ(ingot_backward(call.plan.get(), &call.g), INGOT_OK) << ingot_last_error();
  EXPECT_STREQ(ingot_last_error(), "");
}

TEST(ArgumentErrors, MissingTensors) {
  const std::tuple<const char*, ingot_tensor ingot_forward_args::*, int> forward[] = {
      {"q", &ingot_forward_args::q, 192},
      {"k", &ingot_forward_args::k, 160},
      {"v", &ingot_forward_args::v, 120},
      {"o", &ingot_forward_args::o, 144}};
  for (const auto& [name, field, count] : forward) {
    Call call;
    (call.f.*field).data = nullptr;
    call.expect_forward(std::string(name) + ".data: must not be NULL, the tensor has " +
                        std::to_string(count) + " elements");
  }
  const std::tuple<const char*, ingot_tensor ingot_backward_args::*, int> backward[] = {
      {"q", &ingot_backward_args::q, 192},    {"k", &ingot_backward_args::k, 160},
      {"v", &ingot_backward_args::v, 120},    {"o", &ingot_backward_args::o, 144},
      {"lse", &ingot_backward_args::lse, 24}, {"dout", &ingot_backward_args::dout, 144}};
  for (const auto& [name, field, count] : backward) {
    Call call;
    (call.g.*field).data = nullptr;
    call.expect_backward(std::string(name) + ".data: must not be NULL, the tensor has " +
                         std::to_string(count) + " elements");
  }
  Call call;
  call.g.dq.data = call.g.dk.data = call.g.dv.data = nullptr;
  call.expect_backward("dq.data, dk.data, dv.data: at least one must not be NULL");
}

TEST(ArgumentErrors, Alignment) {
  Call call;
  call.f.k = shifted(call.f.k, 2);
  const std::string ending = std::to_string(reinterpret_cast<std::uintptr_t>(call.f.k.data) % 16);
  call.expect_forward("k.data: must be aligned to its element of 4 bytes, got address ending in " +
                      ending);
}

TEST(ArgumentErrors, Strides) {
  Call far;
  far.f.q.stride[2] = INT64_MIN;
  far.expect_forward(
      "q.stride: offsets must stay below 2^62 bytes, got strides 96, 24, -9223372036854775808, 1");
  Call overlap;
  overlap.f.o.stride[2] = 5;
  overlap.expect_forward(
      "o.stride: elements of an output must not overlap: a stride of 5 must exceed the span 5 of "
      "the "
      "dimensions with smaller strides");
  Call broadcast;
  broadcast.g.dk.stride[1] = 0;
  broadcast.expect_backward(
      "dk.stride: elements of an output must not overlap: a stride of 0 must exceed the span 0 of "
      "the dimensions with smaller strides");
}

TEST(ArgumentErrors, SharedMemory) {
  Call forward;
  forward.p.head_dim_v = forward.p.head_dim;
  forward.f.o.data = forward.f.q.data;
  forward.expect_forward("o.data: must not be the same memory as q");
  Call lse;
  lse.f.lse.data = lse.f.o.data;
  lse.expect_forward("lse.data: must not be the same memory as o");
  Call input;
  input.g.dv.data = input.g.v.data;
  input.expect_backward("dv.data: must not be the same memory as v");
  Call outputs;
  outputs.g.dk.data = outputs.g.dq.data;
  outputs.expect_backward("dk.data: must not be the same memory as dq");
}

TEST(ArgumentErrors, Workspace) {
  alignas(64) std::byte memory[128];
  Call none;
  none.f.workspace_bytes = 64;
  none.expect_forward("workspace: must not be NULL with workspace_bytes 64");
  Call misaligned;
  misaligned.f.workspace = memory + 8, misaligned.f.workspace_bytes = 64;
  misaligned.expect_forward("workspace: must be aligned to 64 bytes, is 8 beyond");

  ingot_problem p = resolved(small_problem());
  p.seqlen_q = p.seqlen_k = 200;
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cpu", p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  std::size_t needed = 0;
  ASSERT_EQ(ingot_plan_workspace_bytes(plan.get(), INGOT_FORWARD, &needed), INGOT_OK);
  ASSERT_GT(needed, 64U);
  const Operands t(p, Layout::bhsd);
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor();
  f.workspace = memory, f.workspace_bytes = 64;
  EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT);
  EXPECT_EQ(ingot_last_error(), "workspace_bytes: must be at least " + std::to_string(needed) +
                                    " for this plan, got 64");
}

TEST(ArgumentErrors, OneCallFunctionsReportTheSame) {
  Call call;
  call.f.q.data = nullptr;
  EXPECT_EQ(ingot_attention_forward(shared_context(), "reference", &call.p, &call.f),
            INGOT_INVALID_ARGUMENT);
  EXPECT_STREQ(ingot_last_error(), "q.data: must not be NULL, the tensor has 192 elements");
  call.p.head_dim = 0;
  EXPECT_EQ(ingot_attention_backward(shared_context(), "reference", &call.p, &call.g),
            INGOT_INVALID_ARGUMENT);
  EXPECT_STREQ(ingot_last_error(), "head_dim: must be from 1 to 1024, got 0");
}

TEST(ArgumentErrors, EmptyTensorsNeedNoMemory) {
  ingot_problem p = small_problem();
  p.batch = 0;
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  ingot_backward_args g;
  ingot_backward_args_init(&g);
  for (const std::string& device : device_names(shared_context())) {
    EXPECT_EQ(ingot_attention_forward(shared_context(), device.c_str(), &p, &f), INGOT_OK)
        << ingot_last_error();
    EXPECT_EQ(ingot_attention_backward(shared_context(), device.c_str(), &p, &g), INGOT_OK)
        << ingot_last_error();
  }
}

}  // namespace
}  // namespace ingot::conformance
