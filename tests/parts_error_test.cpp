// The rules of ingot.h for the parts: the status, and a message that names the argument, the rule
// and the value.
#include <limits>

#include "broken_calls.hpp"

namespace ingot::conformance {
namespace {

/// small_problem() has 2 batch entries, 4 heads, 3 queries and 5 keys.
const PartChoice every_part{.alibi = Slopes::of_batches,
                            .bias = INGOT_F32,
                            .mask = Mask::half,
                            .sinks = INGOT_F32,
                            .dropout = 0.5F,
                            .prefix = true};

TEST(PartErrors, FlagsAreZeroOrOne) {
  const std::pair<const char*, std::int32_t ingot_problem::*> flags[] = {
      {"alibi", &ingot_problem::alibi},
      {"mask", &ingot_problem::mask},
      {"prefix", &ingot_problem::prefix}};
  std::vector<Rule> rules;
  for (const auto& [name, field] : flags) {
    for (const std::int32_t value : {2, -1, 256, INT32_MIN}) {
      rules.push_back({[f = field, value](ingot_problem& p) { p.*f = value; },
                       std::string(name) + ": must be 0 or 1, got " + std::to_string(value)});
    }
  }
  expect_rules(rules);
}

TEST(PartErrors, DtypesAreThoseOfTheInterface) {
  const std::pair<const char*, ingot_dtype ingot_problem::*> dtypes[] = {
      {"bias_dtype", &ingot_problem::bias_dtype},
      {"dbias_dtype", &ingot_problem::dbias_dtype},
      {"sinks_dtype", &ingot_problem::sinks_dtype},
      {"dsinks_dtype", &ingot_problem::dsinks_dtype}};
  std::vector<Rule> rules;
  for (const auto& [name, field] : dtypes) {
    for (const int value : {5, -1, 256, 257}) {  // the last two are the library's own
      rules.push_back(
          {[f = field, value](ingot_problem& p) {
             p.bias_dtype = p.sinks_dtype = INGOT_F32;
             p.*f = beyond<ingot_dtype>(value);
           },
           std::string(name) + ": must be an ingot_dtype (0 to 4), got " + std::to_string(value)});
    }
  }
  expect_rules(rules);
}

TEST(PartErrors, WhatSaysMoreOfAPartThatIsOffIsAnError) {
  expect_rules({
      {[](auto& p) { p.dbias_dtype = INGOT_F32; },
       "dbias_dtype, without bias_dtype: must be 0, got 1"},
      {[](auto& p) { p.bias_shape[2] = 1; }, "bias_shape, without bias_dtype: must be 0, got 1"},
      {[](auto& p) { p.dsinks_dtype = INGOT_BF16; },
       "dsinks_dtype, without sinks_dtype: must be 0, got 3"},
  });
}

TEST(PartErrors, BiasHasNoF64AndSinksHaveTheDtypeOfQOrF32) {
  expect_rules({
      {[](auto& p) { p.bias_dtype = INGOT_F64; }, "bias_dtype: must be f32, f16 or bf16, got f64"},
      {[](auto& p) { p.bias_dtype = INGOT_F16, p.dbias_dtype = INGOT_F64; },
       "dbias_dtype: must be f32, f16 or bf16, got f64"},
      {[](auto& p) { p.sinks_dtype = INGOT_BF16; },
       "sinks_dtype: must be f32 or q_dtype f32, got bf16"},
      {[](auto& p) { p.q_dtype = INGOT_F16, p.sinks_dtype = INGOT_BF16; },
       "sinks_dtype: must be f32 or q_dtype f16, got bf16"},
  });
}

TEST(PartErrors, BiasBroadcasts) {
  const char* const names[] = {"batch 2", "num_heads 4", "seqlen_q 3", "seqlen_k 5"};
  std::vector<Rule> rules;
  for (int i = 0; i < 4; ++i) {
    for (const std::int64_t extent : {std::int64_t{6}, std::int64_t{-1}, INT64_MAX, INT64_MIN}) {
      rules.push_back({[i, extent](auto& p) { p.bias_dtype = INGOT_F32, p.bias_shape[i] = extent; },
                       "bias_shape[" + std::to_string(i) + "]: must be 1 or " + names[i] +
                           ", got " + std::to_string(extent)});
    }
  }
  expect_rules(rules);
}

TEST(PartErrors, DropoutIsAProbabilityThatSixteenBitsCanSay) {
  std::vector<Rule> rules;
  for (const auto& [value, text] :
       {std::pair{-0.1F, "-0.1"}, std::pair{1.0F, "1"}, std::pair{0.99999F, "0.99999"},
        std::pair{1e-6F, "1e-06"}, std::pair{2.0F, "2"},
        std::pair{std::numeric_limits<float>::quiet_NaN(), "nan"},
        std::pair{std::numeric_limits<float>::infinity(), "inf"}}) {
    rules.push_back({[x = value](auto& p) { p.dropout = x; },
                     std::string("dropout: must be 0 or from 2^-16 to 1 - 2^-16, got ") + text});
  }
  expect_rules(rules);
  for (const float edge : {0x1p-16F, 1 - 0x1p-16F}) {
    const Call call({.dropout = edge});
    EXPECT_NE(call.plan, nullptr) << edge;
  }
}

TEST(PartErrors, PrefixAndPairs) {
  expect_rules({
      {[](auto& p) { p.prefix = 1, p.window_left = 0; },
       "prefix: window_left must be -1 with it, got 0"},
      {[](auto& p) { p.prefix = 1, p.window_left = 7, p.window_right = 3; },
       "prefix: window_left must be -1 with it, got 7"},
      {[](auto& p) { p.mask = 1, p.seqlen_q = p.seqlen_k = std::int64_t{1} << 30; },
       "problem: with a bias or mask, batch * num_heads * seqlen_q * seqlen_k must be at most "
       "2^59"},
      {[](auto& p) { p.bias_dtype = INGOT_F16, p.seqlen_q = p.seqlen_k = std::int64_t{1} << 30; },
       "problem: with a bias or mask, batch * num_heads * seqlen_q * seqlen_k must be at most "
       "2^59"},
  });
  EXPECT_NE(Call({.prefix = true}).plan, nullptr);
}

TEST(PartErrors, NoneForACorrectCall) {
  const Call call(every_part);
  ASSERT_NE(call.plan, nullptr);
  for (const bool is_filled : {false, true}) {
    if (is_filled) fill(call.t, call.p, {.name = "errors", .parts = every_part});
    EXPECT_EQ(ingot_forward(call.plan.get(), &call.f), INGOT_OK) << ingot_last_error();
    EXPECT_EQ(ingot_backward(call.plan.get(), &call.g), INGOT_OK) << ingot_last_error();
  }
}

struct Part {
  const char* name;
  ingot_tensor ingot_part_tensors::* tensor;
  int count;
};
constexpr Part parts[] = {{"alibi_slopes", &ingot_part_tensors::alibi_slopes, 8},
                          {"bias", &ingot_part_tensors::bias, 120},
                          {"mask", &ingot_part_tensors::mask, 120},
                          {"sinks", &ingot_part_tensors::sinks, 4},
                          {"prefix_len", &ingot_part_tensors::prefix_len, 2}};

TEST(PartErrors, TensorsOfPartsThatAreOnAreThere) {
  for (const Part& part : parts) {
    Call call(every_part);
    (call.f.parts.*part.tensor).data = (call.g.parts.*part.tensor).data = nullptr;
    const std::string message = std::string(part.name) +
                                ".data: must not be NULL, the tensor has " +
                                std::to_string(part.count) + " elements";
    call.expect_forward(message);
    call.expect_backward(message);
  }
}

TEST(PartErrors, TensorsOfPartsThatAreOffAreNull) {
  for (const Part& part : parts) {
    Call call;
    (call.f.parts.*part.tensor).data = (call.g.parts.*part.tensor).data = &call;
    const std::string message =
        std::string(part.name) + ".data: must be NULL, the problem has no " + part.name;
    call.expect_forward(message);
    call.expect_backward(message);
  }
  Call dbias;
  dbias.g.dbias.data = &dbias;
  dbias.expect_backward("dbias.data: must be NULL, the problem has no bias");
  Call dsinks({.bias = INGOT_F32});
  dsinks.g.dsinks.data = &dsinks;
  dsinks.expect_backward("dsinks.data: must be NULL, the problem has no sinks");
}

TEST(PartErrors, DropoutStateNeedsDropoutAndAlignment) {
  std::uint64_t state[3] = {};
  Call off;
  off.f.parts.dropout_state = off.g.parts.dropout_state = state;
  off.expect_forward("dropout_state: must be NULL, the problem has no dropout");
  off.expect_backward("dropout_state: must be NULL, the problem has no dropout");
  Call on({.dropout = 0.5F});
  on.f.parts.dropout_state = on.g.parts.dropout_state =
      reinterpret_cast<const std::uint64_t*>(reinterpret_cast<std::byte*>(state) + 4);
  on.expect_forward("dropout_state: must be aligned to 8 bytes");
  on.expect_backward("dropout_state: must be aligned to 8 bytes");
  on.f.parts.dropout_state = on.g.parts.dropout_state = state;
  on.expect_forward(
      "dropout_state: must be NULL, device reference takes dropout_seed and dropout_offset");
  on.expect_backward(
      "dropout_state: must be NULL, device reference takes dropout_seed and dropout_offset");
}

TEST(PartErrors, OneOfFiveGradientsIsWanted) {
  Call call(every_part);
  call.g.dq.data = call.g.dk.data = call.g.dv.data = nullptr;
  EXPECT_EQ(ingot_backward(call.plan.get(), &call.g), INGOT_OK) << ingot_last_error();
  call.g.dbias.data = nullptr;
  EXPECT_EQ(ingot_backward(call.plan.get(), &call.g), INGOT_OK) << ingot_last_error();
  call.g.dsinks.data = nullptr;
  call.expect_backward(
      "dq.data, dk.data, dv.data, dbias.data, dsinks.data: at least one must not be NULL");
}

TEST(PartErrors, GradientsOfPartsOverlapNothing) {
  Call itself(every_part);
  itself.g.dbias.stride[2] = 4;
  itself.expect_backward(
      "dbias.stride: elements of an output must not overlap: a stride of 4 must exceed the span 4 "
      "of the dimensions with smaller strides");
  Call sinks(every_part);
  sinks.g.dsinks.stride[1] = 0;
  sinks.expect_backward(
      "dsinks.stride: elements of an output must not overlap: a stride of 0 must exceed the span 0 "
      "of the dimensions with smaller strides");
  Call input(every_part);
  input.g.dbias.data = input.g.parts.bias.data;
  input.expect_backward("dbias.data: must not be the same memory as bias");
  Call output(every_part);
  output.g.dbias.data = output.g.dk.data;
  output.expect_backward("dbias.data: must not be the same memory as dk");
  Call both(every_part);
  both.g.dsinks.data = both.g.dbias.data;
  both.expect_backward("dsinks.data: must not be the same memory as dbias");
  Call forward(every_part);
  forward.f.o.data = forward.f.parts.bias.data;
  forward.expect_forward("o.data: must not be the same memory as bias");
}

TEST(PartErrors, TensorsOfPartsAreAlignedAndWithinReach) {
  Call aligned(every_part);
  aligned.f.parts.bias = shifted(aligned.f.parts.bias, 2);
  const auto address = reinterpret_cast<std::uintptr_t>(aligned.f.parts.bias.data);
  aligned.expect_forward(
      "bias.data: must be aligned to its element of 4 bytes, got address ending in " +
      std::to_string(address % 16));
  Call lengths(every_part);
  lengths.f.parts.prefix_len = shifted(lengths.f.parts.prefix_len, 1);
  const auto odd = reinterpret_cast<std::uintptr_t>(lengths.f.parts.prefix_len.data);
  lengths.expect_forward(
      "prefix_len.data: must be aligned to its element of 4 bytes, got address ending in " +
      std::to_string(odd % 16));
  Call far(every_part);
  far.f.parts.mask.stride[0] = INT64_MIN;
  far.expect_forward(
      "mask.stride: offsets must stay below 2^62 bytes, got strides -9223372036854775808, 15, 5, "
      "1");
}

TEST(PartErrors, StridesThatAreNotLookedAtMayBeAnything) {
  Call call(every_part);
  fill(call.t, call.p, {.name = "strides", .parts = every_part});
  const auto spoil = [](ingot_part_tensors& t) {
    t.alibi_slopes.stride[2] = t.alibi_slopes.stride[3] = INT64_MAX;
    t.sinks.stride[0] = t.sinks.stride[2] = t.sinks.stride[3] = INT64_MIN;
    t.prefix_len.stride[1] = t.prefix_len.stride[2] = t.prefix_len.stride[3] = INT64_MAX;
  };
  spoil(call.f.parts), spoil(call.g.parts);
  call.g.dsinks.stride[0] = call.g.dsinks.stride[2] = call.g.dsinks.stride[3] = INT64_MAX;
  EXPECT_EQ(ingot_forward(call.plan.get(), &call.f), INGOT_OK) << ingot_last_error();
  EXPECT_EQ(ingot_backward(call.plan.get(), &call.g), INGOT_OK) << ingot_last_error();
}

}  // namespace
}  // namespace ingot::conformance
