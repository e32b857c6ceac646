// What ingot.hpp adds to ingot.h: events that end with their object, and a submission that every
// call takes.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <ingot/ingot.hpp>
#include <utility>
#include <vector>

namespace {

struct Calls {
  explicit Calls(const char* device) : plan(context, problem, device) {
    const auto view = [](const auto& of) { return ingot::bhsd(of.data(), 2, 5, 8); };
    forward = {.q = view(x), .k = view(x), .v = view(x), .o = view(o), .lse = lse_view()};
    backward = {.q = view(x),
                .k = view(x),
                .v = view(x),
                .o = view(o),
                .lse = lse_view(),
                .dout = view(x),
                .dv = view(dv)};
  }
  ingot::Tensor lse_view() { return {lse.data(), {10, 5, 1, 1}}; }

  ingot::Context context{1};
  ingot::Problem problem{.num_heads = 2,
                         .num_heads_kv = 2,
                         .seqlen_q = 5,
                         .seqlen_k = 5,
                         .head_dim = 8,
                         .head_dim_v = 8};
  ingot::Plan plan;
  std::vector<float> x = std::vector<float>(80, 0.5F), o = std::vector<float>(80),
                     dv = std::vector<float>(80), lse = std::vector<float>(10);
  ingot::ForwardArgs forward;
  ingot::BackwardArgs backward;
};

/// What a call throws; INGOT_OK where it returns.
template <class F>
ingot_status status_of(F&& call) {
  try {
    call();
    return INGOT_OK;
  } catch (const ingot::Error& error) {
    return error.status();
  }
}

TEST(CppInterface, AnEventIsWaitedForAndEndsWithItsObject) {
  for (const char* device : {"cpu", "reference"}) {
    Calls c(device);
    ingot::Event event;
    EXPECT_EQ(event.get(), nullptr);
    EXPECT_EQ(status_of([&] { event.wait(); }), INGOT_INVALID_ARGUMENT);
    c.forward.submission.event = event.out();
    c.plan.forward(c.forward);
    ASSERT_NE(event.get(), nullptr);
    EXPECT_GE(event.wait(), 0.0);
    EXPECT_TRUE(event.done());
    EXPECT_EQ(c.o, c.x);
    ingot::Event moved = std::move(event);
    EXPECT_TRUE(moved.done());
    c.backward.submission.event = moved.out();  // the one it had is destroyed
    EXPECT_EQ(moved.get(), nullptr);
    c.plan.backward(c.backward);
    moved.wait();
    EXPECT_NEAR(c.dv[0], 0.5F, 1e-6F);
  }
}

TEST(CppInterface, EveryCallCanBeCancelled) {
  for (const char* device : {"cpu", "reference"}) {
    Calls c(device);
    const std::int32_t cancel = 1;
    c.forward.submission.cancel = c.backward.submission.cancel = &cancel;
    EXPECT_EQ(status_of([&] { c.plan.forward(c.forward); }), INGOT_CANCELLED);
    EXPECT_EQ(status_of([&] { c.plan.backward(c.backward); }), INGOT_CANCELLED);
    const std::array<const ingot::Plan*, 1> plans{&c.plan};
    EXPECT_EQ(status_of([&] { ingot::forward_group(plans, std::array{c.forward}); }),
              INGOT_CANCELLED);
    EXPECT_EQ(status_of([&] { ingot::backward_group(plans, std::array{c.backward}); }),
              INGOT_CANCELLED);
  }
}

TEST(CppInterface, AStreamReachesTheDeviceWhichRefusesIt) {
  Calls c("cpu");
  c.forward.submission.stream = &c;
  try {
    c.plan.forward(c.forward);
    FAIL() << "a stream on a CPU";
  } catch (const ingot::Error& error) {
    EXPECT_STREQ(
        error.what(),
        "submission.stream: must be NULL, device cpu works on host memory and has no queue");
  }
}

/// A problem with every part, of one query, two keys and one number each.
struct AllParts {
  ingot::Problem problem{.seqlen_q = 1,
                         .seqlen_k = 2,
                         .head_dim = 1,
                         .head_dim_v = 1,
                         .alibi = true,
                         .mask = true,
                         .prefix = true,
                         .bias_dtype = ingot::Dtype::f32,
                         .dbias_dtype = ingot::Dtype::f16,
                         .bias_shape = {1, 1, 1, 2},
                         .sinks_dtype = ingot::Dtype::f32,
                         .dsinks_dtype = ingot::Dtype::bf16};
  float slopes[1] = {std::log(2.0F)}, bias[2] = {std::log(6.0F), 0}, sinks[1] = {std::log(4.0F)};
  std::uint8_t mask[2] = {1, 2};
  std::int32_t prefix_len[1] = {2};
  float x[2] = {}, v[2] = {8, 16}, dout[1] = {1}, o[1] = {}, lse[1] = {}, dq[1] = {};
  std::uint16_t dbias[2] = {}, dsinks[1] = {};

  static ingot::Tensor view(const void* data) { return ingot::bhsd(data, 1, 2, 1); }
  ingot::PartTensors parts() const {
    ingot::PartTensors t{};
    t.alibi_slopes = view(slopes), t.sinks = view(sinks), t.prefix_len = view(prefix_len);
    t.bias = {const_cast<float*>(bias), {2, 2, 2, 1}};
    t.mask = {const_cast<std::uint8_t*>(mask), {2, 2, 2, 1}};
    return t;
  }
};

TEST(CppInterface, EveryPartReachesTheDevice) {
  for (const char* device : {"cpu", "reference"}) {
    const ingot::Context context{1};
    AllParts c;
    const ingot::Plan plan(context, c.problem, device);
    const auto view = AllParts::view;
    plan.forward({.q = view(c.x),
                  .k = view(c.x),
                  .v = view(c.v),
                  .o = view(c.o),
                  .lse = view(c.lse),
                  .parts = c.parts()});
    // Weights before the division: 6 / 2 (one key away), 1, and 4 of the sink.
    EXPECT_NEAR(c.lse[0], std::log(8.0F), 1e-5F) << device;
    EXPECT_NEAR(c.o[0], (3 * 8 + 1 * 16) / 8.0F, 1e-4F) << device;
    plan.backward({.q = view(c.x),
                   .k = view(c.x),
                   .v = view(c.v),
                   .o = view(c.o),
                   .lse = view(c.lse),
                   .dout = view(c.dout),
                   .dq = view(c.dq),
                   .parts = c.parts(),
                   .dbias = {c.dbias, {2, 2, 2, 1}},
                   .dsinks = view(c.dsinks)});
    EXPECT_EQ(c.dbias[0], 0x3C80) << device;   // 3 / 8 * (8 - 5) = 1.125, f16
    EXPECT_EQ(c.dbias[1], 0x3D80) << device;   // 1 / 8 * (16 - 5) = 1.375
    EXPECT_EQ(c.dsinks[0], 0xC020) << device;  // -4 / 8 * 5 = -2.5, bf16
  }
}

TEST(CppInterface, DropoutHasASeedOfTheCall) {
  const ingot::Context context{1};
  const ingot::Problem problem{
      .seqlen_q = 16, .seqlen_k = 16, .head_dim = 1, .head_dim_v = 1, .dropout = 0.5F};
  const std::vector<float> zero(16), one(16, 1.0F);
  const ingot::Plan plan(context, problem, "cpu");
  const auto run = [&](std::uint64_t seed, std::uint64_t offset) {
    std::vector<float> o(16);
    const auto view = [](const auto& of) { return ingot::bhsd(of.data(), 1, 16, 1); };
    ingot::PartTensors parts{};
    parts.dropout_seed = seed, parts.dropout_offset = offset;
    plan.forward({.q = view(zero), .k = view(zero), .v = view(one), .o = view(o), .parts = parts});
    return o;
  };
  EXPECT_EQ(run(1, 2), run(1, 2));
  EXPECT_NE(run(1, 2), run(3, 2));
  EXPECT_NE(run(1, 2), run(1, 3));
  EXPECT_NE(run(1, 2), one);
}

}  // namespace
