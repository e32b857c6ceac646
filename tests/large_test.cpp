// Offsets and lengths beyond 2^31 elements, on memory that is reserved but hardly touched.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

/// Zeros that cost memory only where written.
class SparseMemory {
 public:
  explicit SparseMemory(std::size_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  ~SparseMemory() {
    if (valid()) munmap(data_, bytes_);
  }
  SparseMemory(const SparseMemory&) = delete;
  SparseMemory& operator=(const SparseMemory&) = delete;
  bool valid() const { return data_ != MAP_FAILED; }
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

/// A packed tensor again, with one dimension spread over more than 2^31 elements.
struct Spread {
  View view;
  std::unique_ptr<SparseMemory> memory;

  Spread(const Operand& packed, std::size_t dimension) : view(packed.view) {
    const Index wide = (Index{1} << 31) / std::max<Index>(1, view.shape[dimension] - 1) + 64;
    view.stride[dimension] = wide / 16 * 16 + 16;
    memory =
        std::make_unique<SparseMemory>(static_cast<std::size_t>(span_of(view)) * sizeof(float));
  }
  ingot_tensor tensor() const {
    return {memory->data(), {view.stride[0], view.stride[1], view.stride[2], view.stride[3]}};
  }
  std::byte* at(Index element) const {
    return memory->data() + element * static_cast<Index>(sizeof(float));
  }
  void copy_from(const Operand& packed) const {
    view.for_each([&](Index b, Index h, Index s, Index d) {
      std::memcpy(at(view.element(b, h, s, d)), packed.buffer->at(packed.view.element(b, h, s, d)),
                  sizeof(float));
    });
  }
  void expect_equal(const Operand& packed, std::size_t dimension) const {
    view.for_each([&](Index b, Index h, Index s, Index d) {
      const double got = read_element(at(view.element(b, h, s, d)), INGOT_F32);
      const double want =
          read_element(packed.buffer->at(packed.view.element(b, h, s, d)), INGOT_F32);
      ASSERT_NEAR(got, want, 1e-5)
          << packed.name << position(b, h, s, d) << " spread over dimension " << dimension;
    });
  }
};

class Large : public testing::TestWithParam<std::string> {};

TEST_P(Large, OffsetsBeyondTwoToThe31) {
  Table table(true);
  table.add(Tier::quick, {.batch = 2, .heads = 4, .heads_kv = 2, .q = 5, .k = 6, .d = 4});
  const Case c = table.take().front();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), GetParam().c_str(), p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  const Operands t(p, c.layout);
  fill(t, p, c);
  ASSERT_EQ(run(plan.get(), t, false), "");
  for (std::size_t dimension = 0; dimension < 4; ++dimension) {
    const Spread q(t.q, dimension), k(t.k, dimension), v(t.v, dimension), o(t.o, dimension),
        dout(t.dout, dimension), dq(t.dq, dimension), dk(t.dk, dimension), dv(t.dv, dimension);
    for (const Spread* spread : {&q, &k, &v, &o, &dout, &dq, &dk, &dv}) {
      if (!spread->memory->valid())
        GTEST_SKIP() << "skipped: no address space for sparse tensors of 8 GiB";
    }
    q.copy_from(t.q), k.copy_from(t.k), v.copy_from(t.v), dout.copy_from(t.dout);
    ingot_forward_args f;
    ingot_forward_args_init(&f);
    f.q = q.tensor(), f.k = k.tensor(), f.v = v.tensor(), f.o = o.tensor(), f.lse = t.lse.tensor();
    ASSERT_EQ(ingot_forward(plan.get(), &f), INGOT_OK) << ingot_last_error();
    ingot_backward_args g;
    ingot_backward_args_init(&g);
    g.q = f.q, g.k = f.k, g.v = f.v, g.o = f.o, g.lse = f.lse, g.dout = dout.tensor();
    g.dq = dq.tensor(), g.dk = dk.tensor(), g.dv = dv.tensor();
    ASSERT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error();
    o.expect_equal(t.o, dimension);
    dq.expect_equal(t.dq, dimension), dk.expect_equal(t.dk, dimension),
        dv.expect_equal(t.dv, dimension);
  }
}

std::string device_name(const testing::TestParamInfo<std::string>& info) { return info.param; }
INSTANTIATE_TEST_SUITE_P(Devices, Large, testing::Values("cpu", "reference"), device_name);

/// 2^33 keys of which a window leaves the last few: only those have memory behind them.
TEST(LargeLengths, KeysBeyondTwoToThe33BehindAWindow) {
  const Index with_memory = 4096, all = (Index{1} << 33) + 5, dim = 8, rows = 3;
  Table table(true);
  table.add(
      Tier::quick,
      {.q = rows, .k = with_memory, .d = dim, .causal = INGOT_CAUSAL_BOTTOM_RIGHT, .left = 20});
  const Case c = table.take().front();
  ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout);
  fill(t, p, c);
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor(),
  f.lse = t.lse.tensor();
  ASSERT_EQ(ingot_attention_forward(shared_context(), "cpu", &p, &f), INGOT_OK)
      << ingot_last_error();
  const Dense want = t.o.dense(), want_lse = t.lse.dense();

  p.seqlen_k = all;
  const auto before = static_cast<std::uintptr_t>((all - with_memory) * dim) * sizeof(float);
  f.k.data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(f.k.data) - before);
  f.v.data = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(f.v.data) - before);
  ASSERT_EQ(ingot_attention_forward(shared_context(), "cpu", &p, &f), INGOT_OK)
      << ingot_last_error();
  const Dense got = t.o.dense(), got_lse = t.lse.dense();
  for (std::size_t i = 0; i < want.data.size(); ++i)
    EXPECT_NEAR(got.data[i], want.data[i], 1e-5) << i;
  for (std::size_t i = 0; i < want_lse.data.size(); ++i)
    EXPECT_NEAR(got_lse.data[i], want_lse.data[i], 1e-5) << i;
}

}  // namespace
}  // namespace ingot::conformance
