// The parts in the reference: cases that can be computed by hand, gradients against finite
// differences with all parts on, and dropout: known answers of Philox4x32-10, its statistics, and
// the same decisions on every device.
#include "core/problem.hpp"
#include "cpu/reference_pairs.hpp"
#include "reference_fixture.hpp"

namespace ingot::conformance {
namespace {

/// One head without influence of q: every score is 0 before the parts.
Fixture flat(const Row& row) {
  Fixture s(make_case(row));
  s.t.q.view.for_each([&](Index b, Index h, Index r, Index d) { set(s.t.q, b, h, r, d, 0); });
  return s;
}

double lse_of(const Fixture& s, Index row) { return get(s.t.lse, 0, 0, row, 0); }

TEST(ReferenceParts, AlibiByHand) {
  // Two rows at the end of three keys: row 0 is at key 1.
  const Fixture s = flat({.q = 2, .k = 3, .d = 1, .parts = {.alibi = Slopes::of_heads}});
  set(s.t.parts.slopes, 0, 0, 0, 0, std::log(2.0));
  s.run();
  EXPECT_NEAR(lse_of(s, 0), std::log(0.5 + 1 + 0.5), 1e-6);
  EXPECT_NEAR(lse_of(s, 1), std::log(0.25 + 0.5 + 1), 1e-6);
  // With causal top left a row is at the key of its own number.
  const Fixture t = flat({.q = 2,
                          .k = 3,
                          .d = 1,
                          .causal = INGOT_CAUSAL_TOP_LEFT,
                          .parts = {.alibi = Slopes::of_heads}});
  set(t.t.parts.slopes, 0, 0, 0, 0, std::log(2.0));
  t.run();
  EXPECT_NEAR(lse_of(t, 0), 0, 1e-6);
  EXPECT_NEAR(lse_of(t, 1), std::log(0.5 + 1), 1e-6);
}

TEST(ReferenceParts, BiasIsAddedAfterTheSoftcapAndItsGradientIsThatOfTheScore) {
  const Fixture s(
      make_case({.q = 1, .k = 2, .d = 1, .scale = 1, .softcap = 2, .parts = {.bias = INGOT_F32}}));
  set(s.t.q, 0, 0, 0, 0, 1);
  set(s.t.k, 0, 0, 0, 0, 1e6), set(s.t.k, 0, 0, 1, 0, 1e6);  // both scores are 2
  set(s.t.parts.bias, 0, 0, 0, 0, std::log(3.0)), set(s.t.parts.bias, 0, 0, 0, 1, 0);
  set(s.t.v, 0, 0, 0, 0, 10), set(s.t.v, 0, 0, 1, 0, 2), set(s.t.dout, 0, 0, 0, 0, 1);
  s.run();
  EXPECT_NEAR(get(s.t.o, 0, 0, 0, 0), 8, 1e-6);
  EXPECT_NEAR(lse_of(s, 0), 2 + std::log(4.0), 1e-6);
  EXPECT_NEAR(get(s.t.parts.dbias, 0, 0, 0, 0), 0.75 * (10 - 8), 1e-6);
  EXPECT_NEAR(get(s.t.parts.dbias, 0, 0, 0, 1), 0.25 * (2 - 8), 1e-6);
  EXPECT_EQ(get(s.t.dk, 0, 0, 0, 0), 0);  // beyond the cap
}

TEST(ReferenceParts, BiasOfMinusInfinityHides) {
  const double hole = -std::numeric_limits<double>::infinity();
  const Fixture s = flat({.q = 2, .k = 2, .d = 1, .parts = {.bias = INGOT_F32}});
  for (const Index col : {0, 1}) set(s.t.parts.bias, 0, 0, 1, col, hole);
  set(s.t.parts.bias, 0, 0, 0, 0, hole), set(s.t.parts.bias, 0, 0, 0, 1, 0);
  s.run();
  EXPECT_EQ(get(s.t.o, 0, 0, 0, 0), get(s.t.v, 0, 0, 1, 0));
  EXPECT_EQ(get(s.t.o, 0, 0, 1, 0), 0);
  EXPECT_EQ(lse_of(s, 1), hole);
  for (const Index col : {0, 1}) EXPECT_EQ(get(s.t.parts.dbias, 0, 0, 1, col), 0);
}

TEST(ReferenceParts, AnyByteOfAMaskButZeroIsAYes) {
  const Fixture s = flat({.q = 3, .k = 2, .d = 1, .parts = {.mask = Mask::half}});
  const std::uint8_t bytes[3][2] = {{0, 0x80}, {2, 0}, {0, 0}};
  for (Index row = 0; row < 3; ++row) {
    for (Index col = 0; col < 2; ++col) s.t.parts.mask.at(0, 0, row, col) = bytes[row][col];
  }
  s.run();
  EXPECT_EQ(get(s.t.o, 0, 0, 0, 0), get(s.t.v, 0, 0, 1, 0));
  EXPECT_EQ(get(s.t.o, 0, 0, 1, 0), get(s.t.v, 0, 0, 0, 0));
  EXPECT_EQ(get(s.t.o, 0, 0, 2, 0), 0);
  EXPECT_TRUE(std::isinf(lse_of(s, 2)));
}

TEST(ReferenceParts, ASinkTakesWeightAndHasNoValue) {
  const Fixture s = flat({.q = 1, .k = 1, .d = 1, .parts = {.sinks = INGOT_F32}});
  set(s.t.parts.sinks, 0, 0, 0, 0, std::log(3.0));
  set(s.t.v, 0, 0, 0, 0, 8), set(s.t.dout, 0, 0, 0, 0, 1);
  s.run();
  EXPECT_NEAR(get(s.t.o, 0, 0, 0, 0), 2, 1e-6);
  EXPECT_NEAR(lse_of(s, 0), std::log(4.0), 1e-6);
  EXPECT_NEAR(get(s.t.parts.dsinks, 0, 0, 0, 0), -0.75 * 2, 1e-6);
  EXPECT_NEAR(get(s.t.dv, 0, 0, 0, 0), 0.25, 1e-6);
}

TEST(ReferenceParts, ARowThatSeesNothingHasTheSinkAlone) {
  const Fixture s =
      flat({.q = 2, .k = 2, .d = 1, .parts = {.mask = Mask::half, .sinks = INGOT_F32}});
  for (const Index row : {0, 1}) {
    for (const Index col : {0, 1}) s.t.parts.mask.at(0, 0, row, col) = row == 1 ? 1 : 0;
  }
  set(s.t.parts.sinks, 0, 0, 0, 0, 0.5);
  s.run();
  EXPECT_EQ(lse_of(s, 0), 0.5);
  EXPECT_EQ(get(s.t.o, 0, 0, 0, 0), 0);
  // A sink of -inf is none.
  const double second = get(s.t.o, 0, 0, 1, 0);
  set(s.t.parts.sinks, 0, 0, 0, 0, -std::numeric_limits<double>::infinity());
  s.run();
  EXPECT_TRUE(std::isinf(lse_of(s, 0)));
  EXPECT_EQ(get(s.t.parts.dsinks, 0, 0, 0, 0), 0);
  EXPECT_NEAR(get(s.t.o, 0, 0, 1, 0), second * (2 + std::exp(0.5)) / 2, 1e-12);
}

TEST(ReferenceParts, APrefixIsVisibleToEveryRow) {
  const Fixture s = flat({.batch = 3,
                          .q = 3,
                          .k = 3,
                          .d = 1,
                          .causal = INGOT_CAUSAL_TOP_LEFT,
                          .parts = {.prefix = true}});
  *s.t.parts.prefix_len = {2, -5, INT32_MAX};
  s.run();
  const double seen[3][3] = {{2, 2, 3}, {1, 2, 3}, {3, 3, 3}};
  for (Index b = 0; b < 3; ++b) {
    for (Index row = 0; row < 3; ++row)
      EXPECT_NEAR(std::exp(get(s.t.lse, b, 0, row, 0)), seen[b][row], 1e-5) << b << ", " << row;
  }
}

TEST(ReferenceParts, GradientsAreFiniteDifferencesWithAllPartsOn) {
  for (const ingot_causal causal : all_causals) {
    for (const char* dims : {"bhqk", "1h1k", "b1q1", "1111"}) {
      Row row{.batch = 2, .heads = 4, .heads_kv = 2, .q = 4, .k = 6, .d = 3, .dv = 2};
      row.causal = causal, row.scale = 0.8F, row.softcap = 1.5F, row.layout = Layout::bshd;
      row.parts = all_parts(INGOT_F32, INGOT_F64);
      row.parts.bias_dims = dims, row.parts.dropout = 0.3F;
      const Fixture s(make_case(row));
      const PartOperands& parts = s.t.parts;
      // Multiples of 2^-10, so that a step of 2^-14 is exact in the dtype of bias.
      parts.bias.view.for_each([&](Index b, Index h, Index r, Index c) {
        set(parts.bias, b, h, r, c, std::round(get(parts.bias, b, h, r, c) * 1024) / 1024);
      });
      check_gradient(s, s.t.q, s.t.dq, name_of(row));
      check_gradient(s, s.t.k, s.t.dk, name_of(row));
      check_gradient(s, s.t.v, s.t.dv, name_of(row));
      check_gradient(s, parts.sinks, parts.dsinks, name_of(row));
      check_gradient(s, parts.bias, parts.dbias, name_of(row), 0x1p-14, 2e-6);
    }
  }
}

using Words = std::array<std::uint32_t, 4>;

struct KnownAnswer {
  Words counter;
  std::array<std::uint32_t, 2> key;
  Words words;
};

/// Philox4x32-10, of the known answers that come with Random123.
constexpr KnownAnswer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};

/// The 16 bits behind a decision of the reference, found by asking for many probabilities.
std::uint32_t reference_number(const PartInputs& inputs, Index head, Index row, Index col) {
  std::uint32_t low = 0, high = 65535;  // dropped from some threshold in (low, high] on, if at all
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    Problem p;
    p.parts.dropout = static_cast<float>(middle) * 0x1p-16F;
    const bool is_dropped = reference::Dropout(p, inputs).keep(head, row, col) == 0;
    (is_dropped ? high : low) = is_dropped ? middle - 1 : middle;
  }
  return low;
}

TEST(Dropout, PhiloxHasItsKnownAnswers) {
  for (const KnownAnswer& known : known_answers) {
    EXPECT_EQ(philox4x32(known.counter, known.key), known.words);
    const auto& [cols, rows, head, offset] = known.counter;
    const std::uint64_t high = 0xDEADBEEF;  // of the offset, which goes into the key
    PartInputs inputs;
    inputs.dropout_seed = (known.key[1] ^ high) << 32 | known.key[0];
    inputs.dropout_offset = high << 32 | offset;
    for (int word = 0; word < 4; ++word) {
      const Index row = Index{rows} / 8 * 16 + rows % 8 + word / 2 * 8;
      const Index col = Index{cols} / 4 * 16 + cols % 4 * 2 + word % 2 * 8;
      const std::uint32_t want = known.words[static_cast<std::size_t>(word)];
      for (const Index odd : {0, 1}) {
        const std::uint32_t half = odd == 0 ? want & 0xFFFF : want >> 16;
        EXPECT_EQ(reference_number(inputs, head, row, col + odd), half);
        EXPECT_EQ(dropout_number(inputs.dropout_seed, inputs.dropout_offset, head, row, col + odd),
                  half);
      }
    }
  }
}

/// Decisions of one head, by rows.
std::vector<bool> decisions(std::uint64_t seed, std::uint64_t offset, Index head, Index size,
                            double probability) {
  std::vector<bool> kept;
  for (Index row = 0; row < size; ++row) {
    for (Index col = 0; col < size; ++col)
      kept.push_back(dropout_number(seed, offset, head, row, col) >= probability * 65536);
  }
  return kept;
}

/// The share of places at which two sets of decisions agree.
double agreement(const std::vector<bool>& a, const std::vector<bool>& b, std::size_t shift = 0) {
  std::size_t equal = 0;
  for (std::size_t i = shift; i < a.size(); ++i) equal += a[i] == b[i - shift] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(a.size() - shift);
}

TEST(Dropout, TakesItsShareAndNoPlaceKnowsOfAnother) {
  constexpr Index size = 256;
  for (const double p : {0.1, 0.5, 0.9}) {
    const std::vector<bool> kept = decisions(7, 9, 3, size, p);
    const double places = static_cast<double>(kept.size());
    const double mean = static_cast<double>(std::count(kept.begin(), kept.end(), true)) / places;
    EXPECT_NEAR(mean, 1 - p, 5 * std::sqrt(p * (1 - p) / places)) << p;
    const double chance = p * p + (1 - p) * (1 - p);
    const double spread = 5 * std::sqrt(chance * (1 - chance) / places);
    for (const std::size_t shift : {1, 2, 7, 8, 9, 16, 256, 256 * 8, 256 * 16, 257})
      EXPECT_NEAR(agreement(kept, kept, shift), chance, 1.1 * spread) << p << ", " << shift;
    for (const auto& other :
         {decisions(8, 9, 3, size, p), decisions(7, 10, 3, size, p), decisions(7, 9, 4, size, p),
          decisions(7 + (std::uint64_t{1} << 32), 9, 3, size, p),
          decisions(7, 9 + (std::uint64_t{1} << 32), 3, size, p)})
      EXPECT_NEAR(agreement(kept, other), chance, spread) << p;
  }
}

/// o of equal scores with v the identity: element [row, col] is keep / seqlen_k.
Dense kept_weights(const std::string& device, Row row, std::uint64_t seed, std::uint64_t offset) {
  row.dv = row.k;
  const Case c = make_case(row);
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(shared_context(), device.c_str(), p, outcome);
  if (plan == nullptr) return {};
  Operands t(p, c.layout, c.parts);
  fill(t, p, c);
  t.q.view.for_each([&](Index b, Index h, Index s, Index d) { set(t.q, b, h, s, d, 0); });
  t.v.view.for_each([&](Index b, Index h, Index s, Index d) { set(t.v, b, h, s, d, s == d); });
  t.parts.seed = seed, t.parts.offset = offset;
  EXPECT_EQ(run(plan.get(), t, false), "") << device;
  return t.o.dense();
}

TEST(Dropout, IsTheSameFunctionOfThePlaceOnEveryDevice) {
  const std::uint64_t seed = 0x0123456789ABCDEF, offset = 0xFEDCBA9876543210;
  for (const std::string& device : device_names(shared_context())) {
    for (const Index q : {1, 3, 70}) {
      const Row row{.batch = 2,
                    .heads = 2,
                    .heads_kv = 1,
                    .q = q,
                    .k = 200,
                    .d = 16,
                    .parts = {.dropout = 0.25F}};
      const Dense o = kept_weights(device, row, seed, offset);
      if (o.data.empty()) continue;  // a device that refuses it
      Index wrong = 0;
      for (Index head = 0; head < 4; ++head) {
        for (Index r = 0; r < q; ++r) {
          for (Index col = 0; col < 200; ++col) {
            const bool is_kept = dropout_number(seed, offset, head, r, col) >= 0.25 * 65536;
            const double want = is_kept ? 1 / (0.75 * 200) : 0;
            wrong += std::fabs(o.row(head / 2, head % 2, r)[col] - want) > 1e-6 ? 1 : 0;
          }
        }
      }
      EXPECT_EQ(wrong, 0) << device << ", " << q << " rows";
    }
  }
}

TEST(Dropout, CountsHeadsThroughTheBatch) {
  Row row{.batch = 1, .heads = 4, .heads_kv = 4, .q = 20, .k = 30, .d = 4};
  row.parts.dropout = 0.5F;
  const std::vector<double> once = kept_weights("reference", row, 1, 2).data;
  for (const Index batch : {2, 4}) {
    row.batch = batch, row.heads = row.heads_kv = 4 / batch;
    EXPECT_EQ(kept_weights("reference", row, 1, 2).data, once) << batch;
  }
}

}  // namespace
}  // namespace ingot::conformance
