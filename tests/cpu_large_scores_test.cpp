// Scores of any size, in every instruction set and both forms of the backward pass. The rows of
// cases.hpp ask for the contract of every device; gradients of the CPU are held to more here: those
// of large scores are as good as those of small ones.
#include "cpu_backward.hpp"

namespace ingot {
namespace {

/// Query and key rows of -size, 0 and size: <q, k> is exact in f32, and many keys share the largest
/// score of a row.
Case with_whole_numbers(const Problem& p, float size) {
  Case c(p);
  std::mt19937 random(3);
  for (Packed* t : {&c.q, &c.k}) {
    for (float& x : t->x) x = size * static_cast<float>(static_cast<int>(random() % 3) - 1);
  }
  c.run_reference_forward();
  return c;
}

void expect_close(const char* name, const Packed& got, const Packed& want, float size) {
  float largest = size;
  for (const float x : want.x) largest = std::max(largest, std::fabs(x));
  for (std::size_t i = 0; i < want.x.size(); ++i) {
    ASSERT_NEAR(got.x[i], want.x[i], 2e-5F * largest) << name << "[" << i << "], size " << size;
  }
}

void expect_as_reference(const Case& c, float size) {
  const Gradients want = run_reference(c);
  for (const int threads : {1, 16}) {
    const Gradients got = run(c, threads);
    expect_close("dq", got.dq, want.dq, size);
    expect_close("dk", got.dk, want.dk, size);
    expect_close("dv", got.dv, want.dv, 4);
  }
}

class CpuLargeScores : public testing::TestWithParam<std::int64_t> {
 protected:
  ForcedTarget forced_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(EveryTarget, CpuLargeScores, testing::ValuesIn(supported_targets()),
                         name_of_target);

constexpr float sizes[] = {0x1p3F, 0x1p5F, 0x1p9F, 0x1p14F, 0x1p30F, 0x1p60F};

TEST_P(CpuLargeScores, GradientsAreAsExactAsThoseOfSmallOnes) {
  for (const float size : sizes) {
    Problem p = shape(2, 1, 70, 90, 16, 20);
    expect_as_reference(with_whole_numbers(p, size), size);
    p.causal = Causal::bottom_right;
    p.window_left = 40;
    expect_as_reference(with_whole_numbers(p, size), size);
  }
}

TEST_P(CpuLargeScores, WithASoftcapOfTheirSize) {
  for (const float size : {0x1p5F, 0x1p9F, 0x1p14F}) {
    Problem p = shape(1, 1, 40, 150, 16, 8);
    p.softcap = 4 * size * size;
    expect_as_reference(with_whole_numbers(p, size), size);
  }
}

TEST_P(CpuLargeScores, OneRowsDoNotChangeTheBitsOfOthers) {
  const Problem p = shape(1, 1, 40, 90, 16, 16);
  Case c(p);
  const Gradients before = run(c);
  for (std::size_t d = 0; d < 16; ++d) c.q.x[5 * 16 + d] *= 1e5F;
  c.run_reference_forward();
  const Gradients after = run(c);
  for (std::size_t i = 0; i < before.dq.x.size(); ++i) {
    if (i / 16 == 5) continue;
    ASSERT_EQ(before.dq.x[i], after.dq.x[i]) << i;
  }
}

// Where a sequence is shared out, each part of the keys comes with the lse of them all.
TEST_P(CpuLargeScores, AnLseOfMoreKeysThanThereAreCounts) {
  constexpr std::int64_t half = 60;
  Problem p = shape(1, 1, 50, 2 * half, 16, 16);
  Case all(p);
  for (float& x : all.q.x) x *= 100;
  all.run_reference_forward();
  const Gradients want = run_reference(all);
  p.seqlen_k = half;
  Case part(p);
  part.p.scale = all.p.scale;
  part.q.x = all.q.x, part.dout.x = all.dout.x, part.o.x = all.o.x, part.lse.x = all.lse.x;
  std::copy_n(all.k.x.begin(), half * 16, part.k.x.begin());
  std::copy_n(all.v.x.begin(), half * 16, part.v.x.begin());
  const Gradients got = run(part);
  for (std::size_t i = 0; i < got.dv.x.size(); ++i) {
    ASSERT_NEAR(got.dv.x[i], want.dv.x[i], 2e-3) << i;
    ASSERT_NEAR(got.dk.x[i], want.dk.x[i], 0.2) << i;
  }
}

// Even if lse is not that of any keys: a weight is never beyond 1.
TEST_P(CpuLargeScores, AWrongLseMakesNoInfinity) {
  Case c = with_whole_numbers(shape(1, 1, 20, 30, 16, 16), 0x1p9F);
  for (const float factor : {0.5F, 1.01F, -1.0F}) {
    Case wrong = c;
    for (float& x : wrong.lse.x) x *= factor;
    for (const float x : run(wrong).dv.x) ASSERT_TRUE(std::isfinite(x));
  }
}

}  // namespace
}  // namespace ingot
