// Launches of a decoding call, on a driver that needs no GPU.
#include <gtest/gtest.h>

#include <utility>

#include "core/context.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/kernels/mma_params.h"
#include "cuda_host.hpp"

namespace ingot {
namespace {

class CudaDecodeHost : public CudaHostFixture {};

/// Tickets, and the value of one, that the last decoding kernel was given.
const unsigned* last_tickets = nullptr;
unsigned last_ticket = 1;
bool is_first_of_call = true;
void note_tickets(void** arguments) {
  if (!std::exchange(is_first_of_call, false)) return;  // the kernel that merges has no tickets
  last_tickets = static_cast<const MmaForwardParams*>(arguments[0])->tickets;
  last_ticket = last_tickets == nullptr ? 1 : last_tickets[7];
}

TEST_F(CudaDecodeHost, OneLaunchDecodesWithSplitKeys) {
  const Context context({});
  Problem p = small();
  p.num_heads = 32, p.num_heads_kv = 8;
  p.seqlen_q = 1, p.seqlen_k = 8192;
  p.head_dim = p.head_dim_v = 64;
  p.q = p.k = p.v = p.o = Dtype::bf16;
  const BoundPlan plan = make_plan(context, "cuda", p);
  const auto& any = *dynamic_cast<const cuda::ForwardDetail&>(*plan.plan.forward.detail).any;
  ASSERT_TRUE(any.engine && any.combine);
  fake_->kernel = note_tickets;
  constexpr std::size_t bytes = 8 * 8192 * 72 * 2;
  std::byte* const memory[] = {static_cast<std::byte*>(device_memory(bytes)),
                               static_cast<std::byte*>(device_memory(bytes))};
  const auto tickets_of = [&](std::int64_t pitch, int launches) {
    const Strides keys{0, 8192 * pitch, pitch, 1}, rows{0, 64, 64, 1};
    fake_->launches = 0;
    is_first_of_call = true;
    forward(
        plan,
        {{memory[0], rows}, {memory[0], keys}, {memory[0], keys}, {memory[1], rows}, {}, {}, {}});
    EXPECT_EQ(fake_->launches, launches);
    return last_tickets;
  };
  const unsigned* const first = tickets_of(64, 1);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(last_ticket, 0U);
  EXPECT_EQ(tickets_of(64, 1), first) << "calls of a stream share";
  EXPECT_EQ(tickets_of(66, 2), nullptr) << "not by the copy engine: a second kernel merges";
  fake_->capturing = true;
  const unsigned* const captured = tickets_of(64, 1);
  EXPECT_GE(captured, first + 8);
  EXPECT_GE(tickets_of(64, 1), captured + 8) << "a captured call has its own";
  for (std::byte* block : memory) free_device(block);
}

}  // namespace
}  // namespace ingot
