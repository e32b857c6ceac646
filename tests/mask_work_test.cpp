// Blocks outside the mask are not visited. Two measures without a clock: a NaN in one key reaches
// every row that is computed with it, as 0 * NaN also rows of its block that do not see it; and
// keys that no row sees have no memory.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {
namespace {

constexpr Index seqlen = 1024;
constexpr Index step = 128;  // every so many keys or rows hold the NaN in turn

struct Work {
  double forward = 0, dq = 0, dkv = 0;  // parts of the pairs of rows and cols that were computed
};

Index count_nan_rows(const Operand& t) {
  const Dense x = t.dense();
  Index count = 0;
  for (Index row = 0; row < seqlen; ++row) count += std::isnan(*x.row(0, 0, row)) ? 1 : 0;
  return count;
}

void set_row(const Operand& t, Index row, double x) {
  for (Index d = 0; d < t.view.shape[3]; ++d) {
    write_element(t.buffer->at(t.view.element(0, 0, row, d)), t.buffer->dtype(), x);
  }
}

/// Runs f with row `row` of t set to NaN.
template <class F>
void with_nan(const Operand& t, Index row, F&& f) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double was = read_element(t.buffer->at(t.view.element(0, 0, row, 0)), t.buffer->dtype());
  set_row(t, row, nan);
  f();
  set_row(t, row, was);
}

Work measure(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  const Case c = table.take().front();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cpu", p, outcome);
  EXPECT_NE(plan, nullptr) << outcome.message;
  const Operands t(p, c.layout), dirty(p, c.layout);
  fill(t, p, c);
  EXPECT_EQ(run(plan.get(), t, false), "");

  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = dirty.o.tensor();
  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = t.o.tensor(), g.lse = t.lse.tensor(),
  g.dout = t.dout.tensor();
  g.dq = dirty.dq.tensor(), g.dk = dirty.dk.tensor(), g.dv = dirty.dv.tensor();
  Work work;
  for (Index i = step / 2; i < seqlen; i += step) {
    with_nan(t.v, i,
             [&] { EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_OK) << ingot_last_error(); });
    work.forward += static_cast<double>(count_nan_rows(dirty.o));
    with_nan(t.k, i,
             [&] { EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error(); });
    work.dq += static_cast<double>(count_nan_rows(dirty.dq));
    with_nan(t.dout, i,
             [&] { EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error(); });
    work.dkv += static_cast<double>(count_nan_rows(dirty.dv));
  }
  const double pairs = static_cast<double>(seqlen * seqlen) / step;
  return {work.forward / pairs, work.dq / pairs, work.dkv / pairs};
}

void expect_between(const Work& work, double least, double most) {
  for (const double part : {work.forward, work.dq, work.dkv}) {
    EXPECT_GE(part, least);
    EXPECT_LE(part, most);
  }
}

TEST(MaskWork, EverythingWithoutMask) {
  expect_between(measure({.q = seqlen, .k = seqlen, .d = 16}), 1, 1);
}

TEST(MaskWork, CausalIsAboutHalf) {
  for (const ingot_causal causal : {INGOT_CAUSAL_TOP_LEFT, INGOT_CAUSAL_BOTTOM_RIGHT}) {
    for (const ingot_dtype in : {INGOT_F32, INGOT_BF16}) {
      expect_between(measure({.q = seqlen, .k = seqlen, .d = 16, .in = in, .causal = causal}), 0.48,
                     0.63);
    }
  }
}

TEST(MaskWork, AWindowCostsItsWidth) {
  // 65 of 1024 keys, and a block more on both sides.
  expect_between(measure({.q = seqlen, .k = seqlen, .d = 16, .left = 32, .right = 32}), 0.06, 0.33);
  expect_between(
      measure({.q = seqlen, .k = seqlen, .d = 16, .causal = INGOT_CAUSAL_TOP_LEFT, .left = 64}),
      0.06, 0.33);
}

/// `size` bytes of which only [first, last) can be touched.
class PartlyMapped {
 public:
  PartlyMapped(std::size_t size, std::size_t first, std::size_t last) : size_(size) {
    data_ = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data_ == MAP_FAILED || mprotect(at(first), last - first, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("no memory for a partly mapped tensor");
    }
  }
  ~PartlyMapped() { munmap(data_, size_); }
  PartlyMapped(const PartlyMapped&) = delete;
  PartlyMapped& operator=(const PartlyMapped&) = delete;
  std::byte* at(std::size_t offset) const { return static_cast<std::byte*>(data_) + offset; }

 private:
  std::size_t size_;
  void* data_;
};

struct Seen {
  Row row;
  Index first, last;  // keys that may be read: those that a row sees and the rest of their blocks
};

/// A read of any other key ends the test program with a fault.
void run_with_seen_keys_only(const Seen& seen) {
  Table table(true);
  table.add(Tier::quick, seen.row);
  const Case c = table.take().front();
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), "cpu", p, outcome);
  ASSERT_NE(plan, nullptr) << outcome.message;
  const Operands t(p, c.layout), masked(p, c.layout);
  fill(t, p, c);
  ASSERT_EQ(run(plan.get(), t, false), "");

  const auto row_bytes = static_cast<std::size_t>(p.head_dim * size_of(p.k_dtype));
  const auto bytes = [&](Index keys) { return static_cast<std::size_t>(keys) * row_bytes; };
  const PartlyMapped k(bytes(p.seqlen_k), bytes(seen.first), bytes(seen.last));
  const PartlyMapped v(bytes(p.seqlen_k), bytes(seen.first), bytes(seen.last));
  std::memcpy(k.at(bytes(seen.first)), t.k.buffer->at(seen.first * p.head_dim),
              bytes(seen.last - seen.first));
  std::memcpy(v.at(bytes(seen.first)), t.v.buffer->at(seen.first * p.head_dim),
              bytes(seen.last - seen.first));
  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = masked.o.tensor();
  f.k.data = k.at(0), f.v.data = v.at(0);
  ASSERT_EQ(ingot_forward(plan.get(), &f), INGOT_OK) << ingot_last_error();
  EXPECT_TRUE(masked.o.buffer->bytes() == t.o.buffer->bytes());
  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = t.o.tensor(), g.lse = t.lse.tensor(),
  g.dout = t.dout.tensor();
  g.dq = masked.dq.tensor(), g.dk = masked.dk.tensor(), g.dv = masked.dv.tensor();
  ASSERT_EQ(ingot_backward(plan.get(), &g), INGOT_OK) << ingot_last_error();
  EXPECT_TRUE(masked.dq.buffer->bytes() == t.dq.buffer->bytes());
  EXPECT_TRUE(masked.dk.buffer->bytes() == t.dk.buffer->bytes());
  EXPECT_TRUE(masked.dv.buffer->bytes() == t.dv.buffer->bytes());
}

TEST(MaskWork, KeysThatNoRowSeesAreNotRead) {
  for (const Index q : {3, 40, 256}) {
    for (const ingot_dtype in : {INGOT_F32, INGOT_BF16}) {
      Row row{.q = q, .k = 8192, .d = 64, .in = in, .causal = INGOT_CAUSAL_TOP_LEFT};
      run_with_seen_keys_only({row, 0, 512});
      row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 16;
      run_with_seen_keys_only({row, 7680, 8192});
    }
  }
}

}  // namespace
}  // namespace ingot::conformance
