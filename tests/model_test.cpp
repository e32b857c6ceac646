// The model of Apple GPUs (tools/ingot/model.hpp): its numbers by hand, against what is published
// of metal-flash-attention, and what it says of our own block shapes.
#if __has_include("model.hpp")
#include "model.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "failure.hpp"
#include "metal/metal_plan.hpp"
#include "model_plan.hpp"

namespace ingot::cli {
namespace {

constexpr std::array kernels{Kernel::forward, Kernel::dq, Kernel::dkv};

KernelProblem square(Kernel kernel, int element_bytes, std::int64_t head_dim,
                     std::int64_t seqlen = 8192, std::int64_t heads = 8) {
  return {.kernel = kernel,
          .element_bytes = element_bytes,
          .head_dim = head_dim,
          .head_dim_v = head_dim,
          .seqlen_q = seqlen,
          .seqlen_k = seqlen,
          .heads = heads,
          .heads_kv = heads};
}

/// Our own plan of the problem for a chip that need not be there.
KernelShape own_shape(const Chip& chip, const KernelProblem& p) {
  metal::DeviceCaps caps;
  caps.family = chip.family;
  caps.cores = chip.cores;
  ingot::Problem problem{.batch = p.batch,
                         .num_heads = p.heads,
                         .num_heads_kv = p.heads_kv,
                         .seqlen_q = p.seqlen_q,
                         .seqlen_k = p.seqlen_k,
                         .head_dim = p.head_dim,
                         .head_dim_v = p.head_dim_v};
  if (p.element_bytes == 2) {
    for (ingot::Dtype* dtype : {&problem.q, &problem.k, &problem.v, &problem.o, &problem.dout,
                                &problem.dq, &problem.dk, &problem.dv}) {
      *dtype = ingot::Dtype::f16;
    }
  }
  if (p.causal) problem.causal = ingot::Causal::top_left;
  const ingot::Plan plan = metal::plan_metal(problem, caps, std::string("metal:") + chip.name);
  return planned_shape(nlohmann::ordered_json::parse(explain_json(plan)), p);
}

double own_utilisation(const Chip& chip, const KernelProblem& p, Terms terms) {
  return 100 * tile_utilisation(chip, p, own_shape(chip, p), terms);
}

TEST(Model, OneTileByHand) {
  // M1, f16, forward, head_dim 128, blocks 32x128, Q cached, O paged. 32 products a tile:
  // issue 32 * 17 + 18; L2 (2 * 128 * 128 * 2 + 32 * 128 * 2 * 4) B / 64 tiles / 8 B a clock;
  // threadgroup 32 * 128 B / 16.
  const Chip& chip = find_chip("m1-max");
  const KernelProblem p = square(Kernel::forward, 2, 128);
  const TileClocks t = tile_clocks(chip, p, predecessor_shape(chip, p));
  EXPECT_DOUBLE_EQ(t.issue, 562);
  EXPECT_DOUBLE_EQ(t.l2, 192);
  EXPECT_DOUBLE_EQ(t.threadgroup, 256);
  EXPECT_DOUBLE_EQ(t.tile, 562 + 0.20 * 192 + 0.15 * 256);
  EXPECT_NEAR(100 * tile_utilisation(chip, p, predecessor_shape(chip, p)), 81.7, 0.05);
}

TEST(Model, ReproducesThePublishedFiguresWithinItsStatedError) {
  double sum = 0;
  int points = 0;
  for (const Published& point : published()) {
    if (point.fit != Fit::overlap) continue;
    sum += 100 * std::abs(error_of(point));
    ++points;
  }
  EXPECT_EQ(points, 19);
  EXPECT_GT(sum / points, 2.5);
  EXPECT_LT(sum / points, 3.5);
}

TEST(Model, LongSequencesOfOneHeadFollowThePublishedFigures) {
  for (const PublishedLength& point : published_lengths()) {
    const Chip& chip = find_chip(point.chip);
    const KernelProblem p = square(Kernel::forward, 4, 64, point.seqlen, 1);
    const Modelled m = model(chip, p, predecessor_shape(chip, p));
    EXPECT_GT(m.ginstrs, 0.8 * point.ginstrs) << point.seqlen;
    EXPECT_LT(m.ginstrs, 1.8 * point.ginstrs) << point.seqlen;
  }
}

TEST(Model, CountsTheBlocksOfACausalMask) {
  KernelProblem p = square(Kernel::forward, 2, 64, 1024, 1);
  KernelShape s;
  s.block_m = 64;
  s.block_n = 64;
  EXPECT_DOUBLE_EQ(worked_pairs(p, s), 1024.0 * 1024.0);
  p.causal = true;
  EXPECT_DOUBLE_EQ(visible_pairs(p), 1024.0 * 1025.0 / 2);
  EXPECT_DOUBLE_EQ(worked_pairs(p, s), 64.0 * 64.0 * 16 * 17 / 2);
  p.kernel = Kernel::dkv;
  EXPECT_DOUBLE_EQ(worked_pairs(p, s), 64.0 * 64.0 * 16 * 17 / 2);
}

// Two constants for M4, fitted to 30 of its figures. The 12 that the fit did not see, of other head
// dims, say whether there is something to it.
TEST(Model, TheWorkingSetExplainsM4) {
  double seen = 0, unseen = 0, plain = 0;
  int points = 0, others = 0;
  for (const Published& point : published()) {
    if (std::string(point.chip) != "m4") continue;
    const double error = 100 * std::abs(error_of(point));
    (point.fit == Fit::none ? unseen : seen) += error;
    ++(point.fit == Fit::none ? others : points);
    plain += 100 * std::abs(error_of(point, Terms::plain));
  }
  EXPECT_EQ(points, 30);
  EXPECT_EQ(others, 12);
  EXPECT_LT(seen / points, 1.5);
  EXPECT_LT(unseen / others, 2.0);
  EXPECT_GT(plain / (points + others), 5.0) << "what it is without";
}

TEST(Model, TheWorkingSetByHand) {
  // M4, f32, dK/dV, head_dim 384, blocks 16x128: a row keeps K, V (read again) and paged dK, dV:
  // (384 + 768) * 4 + 768 * 4 B = 7680 B, so all of L2's traffic is exposed but for the bound.
  const Chip& chip = find_chip("m4");
  const KernelProblem p = square(Kernel::dkv, 4, 384);
  const KernelShape s = predecessor_shape(chip, p);
  EXPECT_DOUBLE_EQ(tile_clocks(chip, p, s).l2_exposed, 1.0);
  EXPECT_DOUBLE_EQ(tile_clocks(chip, p, s, Terms::plain).l2_exposed, 0.20);
  const KernelProblem small = square(Kernel::forward, 2, 256);  // Q again, O paged: 2048 B
  EXPECT_DOUBLE_EQ(tile_clocks(chip, small, predecessor_shape(chip, small)).l2_exposed,
                   0.20 + 0.16 * 1536 / 1024);
  const Chip& old = find_chip("m1-max");
  EXPECT_DOUBLE_EQ(tile_clocks(old, p, predecessor_shape(old, p)).l2_exposed, 0.20);
}

TEST(Model, OwnShapesGainThreePointsOnThePredecessors) {
  for (const char* name_of_chip : {"m1-max", "m4"}) {
    const Chip& chip = find_chip(name_of_chip);
    for (const Kernel kernel : kernels) {
      for (const int bytes : {2, 4}) {
        for (const std::int64_t head_dim : {32, 64, 128, 256, 384}) {
          for (const Terms terms : {Terms::plain, Terms::working_set}) {
            const KernelProblem p = square(kernel, bytes, head_dim);
            const double theirs =
                100 * tile_utilisation(chip, p, predecessor_shape(chip, p), terms);
            EXPECT_GE(own_utilisation(chip, p, terms), theirs + 3)
                << chip.name << ' ' << name(kernel) << " bytes " << bytes << " head_dim "
                << head_dim << ' ' << own_shape(chip, p).label;
          }
        }
      }
    }
  }
}

TEST(Model, NoCliffAtOddHeadDims) {
  for (const char* name_of_chip : {"m1-max", "m4"}) {
    const Chip& chip = find_chip(name_of_chip);
    for (const Kernel kernel : kernels) {
      for (const int bytes : {2, 4}) {
        for (const std::int64_t head_dim : {33, 36, 72, 80, 100}) {
          const KernelProblem odd = square(kernel, bytes, head_dim);
          const KernelProblem even = square(kernel, bytes, (head_dim + 7) / 8 * 8);
          const double slowdown = model(chip, odd, own_shape(chip, odd)).seconds /
                                  model(chip, even, own_shape(chip, even)).seconds;
          EXPECT_LT(slowdown, 1.15) << chip.name << ' ' << name(kernel) << ' ' << head_dim;
        }
      }
    }
  }
}

TEST(Model, HeadDim512StaysAboveSeventyPercent) {
  for (const char* name_of_chip : {"m1-max", "m4"}) {
    const Chip& chip = find_chip(name_of_chip);
    for (const Kernel kernel : kernels) {
      for (const int bytes : {2, 4}) {
        const KernelProblem p = square(kernel, bytes, 512);
        EXPECT_GT(own_utilisation(chip, p, Terms::plain), 70)
            << chip.name << ' ' << name(kernel) << " bytes " << bytes << ' '
            << own_shape(chip, p).label;
      }
    }
  }
}

TEST(Model, ACausalMaskHalvesTheTime) {
  for (const char* name_of_chip : {"m1-max", "m4"}) {
    const Chip& chip = find_chip(name_of_chip);
    for (const Kernel kernel : kernels) {
      KernelProblem p = square(kernel, 2, 128);
      const double dense = model(chip, p, own_shape(chip, p)).seconds;
      p.causal = true;
      const double causal = model(chip, p, own_shape(chip, p)).seconds;
      EXPECT_LT(causal, 1.1 * dense / 2) << chip.name << ' ' << name(kernel);
    }
  }
}

TEST(Model, HeadsFillTheChipAtShortSequences) {
  const Chip& chip = find_chip("m1-max");
  const KernelProblem p = square(Kernel::forward, 4, 64, 512, 8);
  for (const PublishedLength& point : published_lengths()) {
    if (point.seqlen != 512) continue;
    EXPECT_GT(model(chip, p, own_shape(chip, p)).ginstrs, 5 * point.ginstrs);
  }
}

TEST(Model, NamesTheChipsItKnows) {
  try {
    find_chip("m9");
    FAIL() << "m9 was taken";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("m1-max"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("got m9"), std::string::npos);
  }
}

}  // namespace
}  // namespace ingot::cli
#endif
