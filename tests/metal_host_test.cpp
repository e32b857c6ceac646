// Attention on device metal:0 through the public interface, as a program with Metal buffers,
// command buffers and encoders of its own would use it.
#if defined(INGOT_WITH_METAL)
#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "conformance.hpp"
#include "devices.hpp"
#include "metal_slices.hpp"
#include "metal_support.hpp"

namespace ingot::conformance {
namespace {

using metal::AutoreleaseScope;
using metal::HostWorkspace;
using metal::inject;

constexpr const char* device_name = "metal:0";

class MetalHost : public testing::Test {
 protected:
  void SetUp() override {
    scope_ = std::make_unique<AutoreleaseScope>();
    device_ = metal::usable_device();
    INGOT_SKIP_UNLESS(device_, "skipped: no Metal device");
    queue_ = NS::TransferPtr(device_->newCommandQueue());
  }
  void TearDown() override {
    queue_.reset();
    device_.reset();
    scope_.reset();
  }

  static Case row(const Row& r) {
    Table table(true);
    table.add(Tier::quick, r);
    return table.take().front();
  }

  static Case small_row() { return row({.heads = 2, .heads_kv = 1, .q = 20, .k = 40, .d = 24}); }

  static PlanHandle plan_of(const Case& c) {
    Outcome outcome;
    PlanHandle plan = make_plan(shared_context(), device_name, c.problem, outcome);
    EXPECT_NE(plan, nullptr) << outcome.message;
    return plan;
  }

  /// Runs both passes by `submit(forward_args, backward_args)` and holds the results against the
  /// reference's.
  template <class F>
  void check(const Case& c, F&& submit) {
    const ingot_problem p = resolved(c.problem);
    const Operands t(p, c.layout);
    fill(t, p, c);
    Slices slices(device_.get(), t);
    ingot_forward_args f = slices.forward_args();
    ingot_backward_args g = slices.backward_args();
    submit(f, g);
    slices.copy_back();
    for (const Operand* x : {&t.o, &t.lse}) EXPECT_EQ(check_written({x}), "") << c.name;
    const Outcome outcome = compare(shared_context(), p, t);
    EXPECT_EQ(outcome.status, Status::passed) << c.name << ": " << outcome.message;
  }

  std::unique_ptr<AutoreleaseScope> scope_;
  NS::SharedPtr<MTL::Device> device_;
  NS::SharedPtr<MTL::CommandQueue> queue_;
};

#define INGOT_EXPECT_OK(call) EXPECT_EQ(call, INGOT_OK) << ingot_last_error()

TEST_F(MetalHost, NameWithoutNumberIsTheFirst) {
  ingot_plan* plan = nullptr;
  const Case c = small_row();
  INGOT_EXPECT_OK(ingot_plan_create(shared_context(), "metal", &c.problem, &plan));
  ingot_plan_destroy(plan);
}

TEST_F(MetalHost, SoftwareIsNeverPreferred) {
  const std::vector<std::string> names = device_names(shared_context());
#if defined(INGOT_METAL_IN_SOFTWARE)
  EXPECT_NE(names.front(), device_name);
#else
  EXPECT_EQ(names.front(), device_name);
#endif
}

TEST_F(MetalHost, SlicesAtOddOffsets) {
  for (const Layout layout : {Layout::bhsd, Layout::packed_qkv, Layout::transposed,
                              Layout::padded_rows, Layout::reversed}) {
    for (const ingot_dtype in : {INGOT_F32, INGOT_BF16}) {
      const Case c = row({.heads = 2,
                          .q = 20,
                          .k = 20,
                          .d = 24,
                          .in = in,
                          .causal = INGOT_CAUSAL_TOP_LEFT,
                          .layout = layout});
      const PlanHandle plan = plan_of(c);
      check(c, [&](const ingot_forward_args& f, const ingot_backward_args& g) {
        INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
        INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
      });
    }
  }
}

TEST_F(MetalHost, CallersCommandBuffer) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
    MTL::CommandBuffer* commands = queue_->commandBuffer();
    f.submission.stream = g.submission.stream = commands;
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
    INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
    EXPECT_LT(commands->status(), MTL::CommandBufferStatusCommitted);
    commands->commit();
    commands->waitUntilCompleted();
    EXPECT_EQ(commands->status(), MTL::CommandBufferStatusCompleted);
  });
}

TEST_F(MetalHost, CallersCommandBufferWithEvents) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
    MTL::CommandBuffer* commands = queue_->commandBuffer();
    ingot_event* events[2] = {nullptr, nullptr};
    f.submission.stream = g.submission.stream = commands;
    f.submission.event = &events[0], g.submission.event = &events[1];
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
    INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
    std::int32_t done = 1;
    INGOT_EXPECT_OK(ingot_event_done(events[0], &done));
    EXPECT_EQ(done, 0);
    EXPECT_EQ(ingot_event_wait(events[0], nullptr), INGOT_INVALID_ARGUMENT)
        << "nobody has committed it: waiting would never end";
    EXPECT_NE(std::string(ingot_last_error()).find("must be committed"), std::string::npos);
    commands->commit();
    for (ingot_event* event : events) {
      double seconds = 0;
      INGOT_EXPECT_OK(ingot_event_wait(event, &seconds));
      EXPECT_GT(seconds, 0);
      ingot_event_destroy(event);
    }
  });
}

TEST_F(MetalHost, CallersEncoder) {
  const Case rows[] = {small_row(), row({.heads = 2, .q = 1, .k = 2100, .d = 32})};
  for (const Case& c : rows) {
    for (const auto type : {MTL::DispatchTypeSerial, MTL::DispatchTypeConcurrent}) {
      const PlanHandle plan = plan_of(c);
      check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
        MTL::CommandBuffer* commands = queue_->commandBuffer();
        MTL::ComputeCommandEncoder* encoder = commands->computeCommandEncoder(type);
        f.submission.encoder = g.submission.encoder = encoder;
        INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
        encoder->memoryBarrier(MTL::BarrierScopeBuffers);
        INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
        encoder->endEncoding();
        commands->commit();
        commands->waitUntilCompleted();
      });
    }
  }
}

TEST_F(MetalHost, EventsFromSeveralThreads) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  const ingot_problem p = resolved(c.problem);
  std::vector<std::thread> workers;
  for (int worker = 0; worker < 4; ++worker) {
    workers.emplace_back([&] {
      const Operands t(p, c.layout);
      fill(t, p, c);
      ingot_event* event = nullptr;
      ingot_forward_args f;
      ingot_forward_args_init(&f);
      f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor();
      f.lse = t.lse.tensor();
      f.submission.event = &event;
      INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
      INGOT_EXPECT_OK(ingot_event_wait(event, nullptr));
      std::int32_t done = 0;
      INGOT_EXPECT_OK(ingot_event_done(event, &done));
      EXPECT_EQ(done, 1);
      ingot_event_destroy(event);
      EXPECT_EQ(check_written({&t.o}), "");
    });
  }
  for (std::thread& worker : workers) worker.join();
}

TEST_F(MetalHost, WorkspaceOfTheCallersOwn) {
  const Case c = row({.heads = 2, .q = 1, .k = 2100, .d = 32});
  const PlanHandle plan = plan_of(c);
  check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
    std::size_t bytes[2];
    INGOT_EXPECT_OK(ingot_plan_workspace_bytes(plan.get(), INGOT_FORWARD, &bytes[0]));
    INGOT_EXPECT_OK(ingot_plan_workspace_bytes(plan.get(), INGOT_BACKWARD, &bytes[1]));
    constexpr std::size_t offset = 64;
    const std::size_t most = std::max(bytes[0], bytes[1]);
    const auto memory =
        NS::TransferPtr(device_->newBuffer(offset + most, MTL::ResourceStorageModePrivate));
    ingot_metal_slice slice{memory.get(), offset + 4};
    f.workspace = g.workspace = &slice;
    f.workspace_bytes = bytes[0], g.workspace_bytes = bytes[1];
    EXPECT_GT(bytes[0], 0U) << "the keys are split here";
    EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT);
    EXPECT_NE(std::string(ingot_last_error()).find("workspace"), std::string::npos);
    slice.offset = offset;
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
    INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
  });
}

/// Of a tensor with positive strides: such host memory is mapped, not copied.
bool starts_at_page(const Operand* x) {
  return reinterpret_cast<std::uintptr_t>(x->tensor().data) % 16384 == 0;
}

TEST_F(MetalHost, WorkspaceAtAnAddressIsUsed) {
  const Case c = row({.heads = 2, .q = 1, .k = 2100, .d = 32});
  const PlanHandle plan = plan_of(c);
  const ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout);
  fill(t, p, c);
  std::size_t bytes[2];
  INGOT_EXPECT_OK(ingot_plan_workspace_bytes(plan.get(), INGOT_FORWARD, &bytes[0]));
  INGOT_EXPECT_OK(ingot_plan_workspace_bytes(plan.get(), INGOT_BACKWARD, &bytes[1]));
  HostWorkspace forward(bytes[0]), backward(bytes[1]);

  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor();
  f.lse = t.lse.tensor();
  f.workspace = forward.data(), f.workspace_bytes = forward.bytes();
  INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
  EXPECT_GE(forward.written(), 2U * 2 * (32 + 1)) << "two heads of at least two splits";

  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = t.q.tensor(), g.k = t.k.tensor(), g.v = t.v.tensor(), g.o = t.o.tensor();
  g.lse = t.lse.tensor(), g.dout = t.dout.tensor();
  g.dq = t.dq.tensor(), g.dk = t.dk.tensor(), g.dv = t.dv.tensor();
  g.workspace = backward.data(), g.workspace_bytes = backward.bytes();
  INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
  EXPECT_EQ(backward.written(), bytes[1] / sizeof(float)) << "delta of every row";
  const Outcome outcome = compare(shared_context(), p, t);
  EXPECT_EQ(outcome.status, Status::passed) << outcome.message;

  // Tensors that start at a page are mapped, before the workspace is; copies of the others are the
  // pool's by now. What fails is the workspace alone.
  const auto mapped =
      std::ranges::count_if(std::array{&t.q, &t.k, &t.v, &t.o, &t.lse}, starts_at_page);
  INGOT_SKIP_UNLESS(inject("out-of-memory", static_cast<unsigned>(mapped)),
                    "skipped: failures cannot be made to order here");
  EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT);
  EXPECT_NE(std::string(ingot_last_error()).find("workspace: must be memory that the GPU can map"),
            std::string::npos)
      << ingot_last_error();
}

TEST_F(MetalHost, WantedGradientsAreTheSameAlone) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
    for (int wanted = 0; wanted < 3; ++wanted) {
      ingot_backward_args one = g;
      if (wanted != 0) one.dq.data = nullptr;
      if (wanted != 1) one.dk.data = nullptr;
      if (wanted != 2) one.dv.data = nullptr;
      INGOT_EXPECT_OK(ingot_backward(plan.get(), &one));
    }
  });
}

TEST_F(MetalHost, LseIsOptional) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  check(c, [&](ingot_forward_args& f, ingot_backward_args& g) {
    ingot_forward_args without = f;
    without.lse.data = nullptr;
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &without));
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
    INGOT_EXPECT_OK(ingot_backward(plan.get(), &g));
  });
}

TEST_F(MetalHost, DropoutStateIsRefused) {
  Case c = small_row();
  c.problem.dropout = 0.5F;
  const PlanHandle plan = plan_of(c);
  const Operands t(resolved(c.problem), c.layout);
  Slices slices(device_.get(), t);
  const std::uint64_t state[2] = {};
  ingot_forward_args f = slices.forward_args();
  f.parts.dropout_state = state;
  EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT);
  const char* const words =
      "dropout_state: must be NULL, device metal:0 takes dropout_seed and dropout_offset";
  EXPECT_STREQ(ingot_last_error(), words);
  ingot_backward_args g = slices.backward_args();
  g.parts.dropout_state = state;
  EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_INVALID_ARGUMENT);
  EXPECT_STREQ(ingot_last_error(), words);
}

/// Every way to hand over memory that cannot be served, and the words that tell.
TEST_F(MetalHost, InvalidSubmissionsAreRefused) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  const ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout);
  Slices slices(device_.get(), t);
  const auto expect = [&](const ingot_forward_args& f, const std::string& words) {
    EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT) << words;
    EXPECT_NE(std::string(ingot_last_error()).find(words), std::string::npos) << ingot_last_error();
  };
  ingot_forward_args f = slices.forward_args();
  slices.slice_of(f.k).buffer = nullptr;
  expect(f, "k.data: buffer of the slice must not be NULL");
  f = slices.forward_args();
  slices.slice_of(f.v).offset += 2;
  expect(f, "v.data: offset of the slice must be a multiple of 4 bytes");
  f = slices.forward_args();
  slices.slice_of(f.o).offset += 4;
  expect(f, "o.data: must lie inside its buffer of ");
  f = slices.forward_args();
  slices.slice_of(f.q).offset = SIZE_MAX - 3;
  expect(f, "q.data: must lie inside its buffer of ");
  f = slices.forward_args();
  slices.slice_of(f.o) = slices.slice_of(f.q);
  expect(f, "o.data: must not be the same memory as q");

  MTL::CommandBuffer* commands = queue_->commandBuffer();
  ingot_event* event = nullptr;
  f = slices.forward_args();
  f.submission.stream = commands;
  f.submission.memory = INGOT_MEMORY_ADDRESS;
  expect(f, "submission.memory: must be INGOT_MEMORY_METAL_SLICE");
  f = slices.forward_args();
  MTL::ComputeCommandEncoder* encoder = commands->computeCommandEncoder();
  f.submission.encoder = encoder;
  f.submission.event = &event;
  expect(f, "submission.event: must be NULL with an encoder");
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  f = slices.forward_args();
  f.submission.stream = commands;
  expect(f, "submission.stream: must not be committed yet");
}

TEST_F(MetalHost, InjectedFailuresBecomeStatuses) {
  const Case c = small_row();
  const PlanHandle plan = plan_of(c);
  const ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout);
  fill(t, p, c);
  INGOT_EXPECT_OK(run(plan.get(), t, false).empty() ? INGOT_OK : INGOT_INTERNAL);
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor();
  const std::pair<const char*, ingot_status> failures[] = {
      {"device-error", INGOT_DEVICE_ERROR},
      {"timeout", INGOT_DEVICE_ERROR},
      {"gpu-out-of-memory", INGOT_OUT_OF_MEMORY}};
  for (const auto& [what, status] : failures) {
    INGOT_SKIP_UNLESS(inject(what), "skipped: failures cannot be made to order here");
    EXPECT_EQ(ingot_forward(plan.get(), &f), status) << what;
    EXPECT_NE(std::string(ingot_last_error()).find("injected failure"), std::string::npos)
        << ingot_last_error();
    INGOT_EXPECT_OK(ingot_forward(plan.get(), &f));
  }
}

TEST_F(MetalHost, InjectedCompileFailureBecomesAStatus) {
  const Case c = row({.heads = 1, .q = 9, .k = 9, .d = 23});  // a kernel nobody has compiled yet
  const PlanHandle plan = plan_of(c);
  const ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout);
  fill(t, p, c);
  INGOT_SKIP_UNLESS(inject("compile-failure"), "skipped: failures cannot be made to order here");
  EXPECT_NE(run(plan.get(), t, false).find("compile_failed: metal/kernels/"), std::string::npos);
  EXPECT_EQ(run(plan.get(), t, false), "");
}

}  // namespace
}  // namespace ingot::conformance
#endif
