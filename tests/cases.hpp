// THE table: shapes x dtypes x variants x layouts x data. The conformance test and `ingot check`
// run every row of it on every device. Adding a variant of attention means adding rows here. Needs
// ingot.h and the standard library alone.
#pragma once

#include <utility>
#include <vector>

#include "part_cases.hpp"

namespace ingot::conformance {

/// Every residue around the powers of two that blocks have.
inline std::vector<std::int64_t> sizes() {
  std::vector<std::int64_t> s;
  for (std::int64_t n = 1; n <= 17; ++n) s.push_back(n);
  for (const std::int64_t n : {32, 64, 128, 256}) s.insert(s.end(), {n - 1, n, n + 1});
  return s;
}

inline std::vector<std::int64_t> head_dims() {
  std::vector<std::int64_t> s;
  for (std::int64_t n = 1; n <= 17; ++n) s.push_back(n);
  for (const std::int64_t n : {31, 32, 33, 40, 64, 72, 80, 96, 128, 160, 192, 256, 320, 512, 1024})
    s.push_back(n);
  return s;
}

inline void add_lengths(Table& table) {
  std::size_t i = 0;
  for (const std::int64_t n : sizes()) {
    const ingot_dtype in = all_dtypes[i++ % 3];
    table.add(Tier::quick, {.q = n, .k = n, .d = 64});
    table.add(Tier::quick, {.q = n, .k = n, .in = in, .causal = INGOT_CAUSAL_TOP_LEFT});
    table.add(Tier::quick,
              {.heads = 2, .q = n, .k = 70, .in = in, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    table.add(Tier::quick, {.q = 70, .k = n, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
  }
  for (const std::int64_t q : sizes()) {
    for (const std::int64_t k : sizes()) {
      table.add(
          Tier::full,
          {.q = q, .k = k, .d = 16, .causal = all_causals[i % 3], .left = i % 4 == 3 ? 9 : -1});
      ++i;
    }
  }
  table.add(Tier::quick,
            {.heads = 2, .q = 300, .k = 520, .d = 64, .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
  table.add(Tier::full, {.heads = 2, .q = 1031, .k = 1031, .d = 64, .in = INGOT_BF16});
  table.add(Tier::full, {.q = 2050, .k = 1000, .d = 80, .causal = INGOT_CAUSAL_TOP_LEFT});
  table.add(Tier::full,
            {.q = 700, .k = 2050, .d = 128, .causal = INGOT_CAUSAL_BOTTOM_RIGHT, .left = 100});
}

inline void add_head_dims(Table& table) {
  std::size_t i = 0;
  for (const std::int64_t d : head_dims()) {
    table.add(d == 17 ? Tier::smoke : Tier::quick, {.q = 37, .k = 70, .d = d});
    table.add(Tier::quick, {.q = 37,
                            .k = 70,
                            .d = d,
                            .in = all_dtypes[1 + i++ % 2],
                            .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    for (const ingot_dtype in : all_dtypes) {
      table.add(Tier::full,
                {.heads = 2, .q = 130, .k = 97, .d = d, .in = in, .causal = INGOT_CAUSAL_TOP_LEFT});
      table.add(Tier::full, {.heads = 2, .q = 5, .k = 300, .d = d, .in = in});
      table.add(Tier::full, {.q = 66, .k = 66, .d = d, .in = in, .softcap = 15});
    }
  }
  const std::pair<std::int64_t, std::int64_t> pairs[] = {
      {192, 128}, {576, 512}, {5, 3}, {3, 5}, {1, 1024}, {1024, 1}, {64, 65}, {40, 256}};
  for (const auto& [d, dv] : pairs) {
    table.add(d == 5 ? Tier::smoke : Tier::quick, {.heads = 2, .q = 35, .k = 67, .d = d, .dv = dv});
    table.add(
        Tier::quick,
        {.q = 35, .k = 67, .d = d, .dv = dv, .in = INGOT_BF16, .causal = INGOT_CAUSAL_TOP_LEFT});
    table.add(Tier::full,
              {.heads = 4, .heads_kv = 2, .q = 129, .k = 200, .d = d, .dv = dv, .in = INGOT_F16});
  }
}

inline void add_heads(Table& table) {
  for (const std::int64_t heads_kv : {1, 2, 3, 6}) {
    const Tier tier = heads_kv == 2 ? Tier::smoke : Tier::quick;
    table.add(tier, {.batch = 2,
                     .heads = 6,
                     .heads_kv = heads_kv,
                     .q = 50,
                     .k = 50,
                     .causal = INGOT_CAUSAL_TOP_LEFT});
    table.add(Tier::quick, {.batch = 3,
                            .heads = 6,
                            .heads_kv = heads_kv,
                            .q = 33,
                            .k = 80,
                            .d = 64,
                            .in = INGOT_BF16});
    table.add(Tier::quick, {.batch = 2,
                            .heads = 6,
                            .heads_kv = heads_kv,
                            .q = 20,
                            .k = 40,
                            .in = INGOT_F16,
                            .layout = Layout::bshd});
  }
  table.add(Tier::quick, {.batch = 7, .heads = 5, .heads_kv = 1, .q = 3, .k = 9, .d = 8});
  table.add(Tier::full, {.batch = 1,
                         .heads = 32,
                         .heads_kv = 8,
                         .q = 150,
                         .k = 150,
                         .d = 128,
                         .in = INGOT_BF16,
                         .causal = INGOT_CAUSAL_TOP_LEFT});
}

inline void add_masks(Table& table) {
  const std::pair<std::int64_t, std::int64_t> lengths[] = {
      {50, 50}, {30, 75}, {75, 30}, {129, 200}, {200, 129}};
  const std::pair<std::int64_t, std::int64_t> windows[] = {{-1, -1}, {0, 0},  {5, -1},     {-1, 5},
                                                           {7, 3},   {64, 0}, {1000, 1000}};
  std::size_t i = 0;
  for (const auto& [q, k] : lengths) {
    for (const ingot_causal causal : all_causals) {
      for (const auto& [left, right] : windows) {
        const bool smoke = q < 100 && left == 7;
        table.add(smoke ? Tier::smoke : Tier::quick,
                  {.q = q, .k = k, .causal = causal, .left = left, .right = right});
        table.add(Tier::quick, {.q = q,
                                .k = k,
                                .d = 20,
                                .in = all_dtypes[i++ % 3],
                                .causal = causal,
                                .left = left,
                                .right = right,
                                .softcap = 5});
        for (const ingot_dtype in : all_dtypes) {
          table.add(Tier::full, {.heads = 4,
                                 .heads_kv = 2,
                                 .q = 2 * q,
                                 .k = 2 * k,
                                 .d = 64,
                                 .in = in,
                                 .causal = causal,
                                 .left = left,
                                 .right = right,
                                 .softcap = i % 2 ? 30.0F : 0.0F});
        }
      }
    }
  }
  // Bounds at the ends of the number range must not overflow.
  table.add(Tier::quick, {.q = 20, .k = 30, .left = INT64_MAX, .right = INT64_MAX});
  table.add(Tier::quick,
            {.q = 20, .k = 30, .causal = INGOT_CAUSAL_BOTTOM_RIGHT, .left = INT64_MAX - 1});
}

/// Few rows and many keys: the keys are cut into pieces there.
inline void add_decode(Table& table) {
  for (std::int64_t q = 1; q <= 16; ++q) {
    const Tier tier = q == 1 ? Tier::smoke : Tier::quick;
    table.add(tier, {.heads = 4,
                     .heads_kv = 2,
                     .q = q,
                     .k = 1030,
                     .d = 64,
                     .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    table.add(Tier::quick, {.heads = 2, .q = q, .k = 1030, .d = 64, .in = all_dtypes[1 + q % 2]});
    table.add(Tier::full, {.heads = 8,
                           .heads_kv = 2,
                           .q = q,
                           .k = 4097,
                           .d = 128,
                           .in = all_dtypes[q % 3],
                           .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
    table.add(Tier::full, {.heads = 2,
                           .heads_kv = 1,
                           .q = q,
                           .k = 5000,
                           .d = 72,
                           .in = all_dtypes[q % 3],
                           .causal = INGOT_CAUSAL_BOTTOM_RIGHT,
                           .left = 1500,
                           .softcap = 20});
  }
  table.add(Tier::quick,
            {.batch = 2, .heads = 8, .heads_kv = 1, .q = 1, .k = 3000, .d = 128, .in = INGOT_BF16});
  table.add(Tier::quick, {.heads = 2, .q = 1, .k = 20000, .d = 64});
  table.add(
      Tier::quick,
      {.heads = 2, .q = 1, .k = 6000, .d = 64, .causal = INGOT_CAUSAL_BOTTOM_RIGHT, .left = 7});
  table.add(Tier::quick, {.heads = 2, .q = 2, .k = 3000, .d = 64, .causal = INGOT_CAUSAL_TOP_LEFT});
  table.add(Tier::quick,
            {.heads = 16, .heads_kv = 1, .q = 1, .k = 2049, .d = 576, .dv = 512, .in = INGOT_BF16});
  table.add(Tier::quick, {.heads = 2, .q = 1, .k = 2100, .d = 64, .layout = Layout::transposed});
  table.add(Tier::quick,
            {.heads = 2, .q = 1, .k = 2100, .d = 64, .in = INGOT_F16, .layout = Layout::bshd});
  for (const Data data : {Data::negative_logits, Data::huge_logits, Data::inf_k, Data::inf_v,
                          Data::nan_k, Data::nan_q}) {
    table.add(Tier::quick, {.heads = 2, .heads_kv = 1, .q = 2, .k = 2500, .d = 64, .data = data});
  }
}

inline void add_empty(Table& table) {
  for (const ingot_causal causal : all_causals) {
    table.add(Tier::smoke, {.heads = 2, .q = 5, .k = 0, .causal = causal});
    table.add(Tier::quick, {.heads = 2, .q = 0, .k = 5, .causal = causal});
    table.add(Tier::quick, {.q = 0, .k = 0, .causal = causal});
    table.add(Tier::quick, {.batch = 0, .q = 4, .k = 4, .causal = causal});
  }
  table.add(Tier::quick, {.heads = 4, .heads_kv = 2, .q = 70, .k = 0, .d = 64, .in = INGOT_BF16});
}

inline void add_dtypes(Table& table) {
  for (const ingot_dtype in : all_dtypes) {
    for (const ingot_dtype out : all_dtypes) {
      for (const ingot_dtype grad : all_dtypes) {
        table.add(in == out && out == grad ? Tier::smoke : Tier::quick,
                  {.heads = 2, .q = 45, .k = 52, .d = 40, .in = in, .out = out, .grad = grad});
      }
    }
    for (const ingot_dtype in_k : all_dtypes) {
      for (const ingot_dtype in_v : all_dtypes) {
        table.add(Tier::quick, {.q = 30,
                                .k = 70,
                                .d = 64,
                                .in = in,
                                .in_k = in_k,
                                .in_v = in_v,
                                .out = INGOT_F32,
                                .causal = INGOT_CAUSAL_BOTTOM_RIGHT});
      }
    }
    table.add(Tier::quick, {.heads = 4, .heads_kv = 2, .q = 150, .k = 150, .d = 64, .in = in});
    table.add(Tier::full, {.heads = 8, .heads_kv = 2, .q = 500, .k = 500, .d = 128, .in = in});
  }
}

inline void add_layouts(Table& table) {
  for (int i = static_cast<int>(Layout::bhsd); i <= static_cast<int>(Layout::reversed); ++i) {
    const auto layout = static_cast<Layout>(i);
    for (const ingot_dtype in : all_dtypes) {
      table.add(in == INGOT_F32 ? Tier::smoke : Tier::quick, {.batch = 2,
                                                              .heads = 4,
                                                              .heads_kv = 2,
                                                              .q = 45,
                                                              .k = 45,
                                                              .d = 40,
                                                              .in = in,
                                                              .causal = INGOT_CAUSAL_TOP_LEFT,
                                                              .layout = layout});
      table.add(Tier::quick, {.batch = 2,
                              .heads = 2,
                              .heads_kv = 2,
                              .q = 70,
                              .k = 70,
                              .d = 64,
                              .in = in,
                              .layout = layout});
      table.add(Tier::full, {.batch = 2,
                             .heads = 2,
                             .q = 130,
                             .k = 130,
                             .d = 128,
                             .in = in,
                             .causal = INGOT_CAUSAL_BOTTOM_RIGHT,
                             .left = 50,
                             .layout = layout});
    }
    table.add(Tier::quick, {.heads = 2, .heads_kv = 1, .q = 3, .k = 3, .d = 7, .layout = layout});
  }
}

inline void add_data(Table& table) {
  for (int i = static_cast<int>(Data::negative_logits); i <= static_cast<int>(Data::nan_dout);
       ++i) {
    const auto data = static_cast<Data>(i);
    for (const ingot_dtype in : all_dtypes) {
      table.add(in == INGOT_F32 ? Tier::smoke : Tier::quick,
                {.heads = 2, .q = 40, .k = 70, .d = 24, .in = in, .data = data});
      table.add(Tier::quick, {.heads = 4,
                              .heads_kv = 2,
                              .q = 70,
                              .k = 90,
                              .d = 64,
                              .in = in,
                              .causal = INGOT_CAUSAL_BOTTOM_RIGHT,
                              .left = 25,
                              .data = data});
      table.add(Tier::full, {.heads = 2,
                             .q = 200,
                             .k = 150,
                             .d = 80,
                             .in = in,
                             .causal = INGOT_CAUSAL_TOP_LEFT,
                             .data = data});
    }
    table.add(Tier::quick, {.q = 60, .k = 70, .d = 24, .softcap = 8, .data = data});
  }
  for (const float scale : {1.0F, -0.3F}) {
    table.add(Tier::quick, {.q = 60, .k = 70, .d = 24, .scale = scale});
    table.add(
        Tier::quick,
        {.q = 60, .k = 70, .d = 24, .causal = INGOT_CAUSAL_TOP_LEFT, .scale = scale, .softcap = 3});
  }
}

/// Scores far beyond what exp can tell apart: the keys with the largest score share the weight of
/// their row, whatever the size of the scores. Gradients are f32, whose range those of f16 leave.
inline void add_large_scores(Table& table) {
  for (const Data data : {Data::large_scores_1e6, Data::large_scores_1e9, Data::large_scores_1e37,
                          Data::large_scores_mixed}) {
    for (const ingot_dtype in : all_dtypes) {
      if (in == INGOT_F16 && data == Data::large_scores_1e37) continue;
      Row row{.heads = 2, .q = 70, .k = 150, .d = 64, .in = in, .out = in, .data = data};
      row.grad = INGOT_F32;
      table.add(data == Data::large_scores_mixed ? Tier::smoke : Tier::quick, row);
      row.d = 16, row.heads_kv = 1, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 60;
      table.add(Tier::quick, row);
      row.left = -1, row.d = 256, row.k = 90, row.scale = -1;
      table.add(Tier::quick, row);
      row.scale = 0, row.q = 2, row.k = 2500, row.d = 64;
      table.add(Tier::quick, row);
      row.softcap = data == Data::large_scores_1e6 ? 1e6F : 4e9F;
      table.add(Tier::quick, row);
      row.q = 70, row.k = 150, row.causal = INGOT_CAUSAL_NONE;
      table.add(Tier::quick, row);
    }
  }
}

/// Keys that share the weight of a row, which an lse of f32 does not say from 1e9 on.
inline void add_tied_scores(Table& table) {
  for (const Data data : {Data::tied_scores_1e6, Data::tied_scores_1e9, Data::tied_scores_1e30}) {
    const float cap = data == Data::tied_scores_1e6   ? 2e6F
                      : data == Data::tied_scores_1e9 ? 2e9F
                                                      : 4e30F;
    for (const ingot_dtype in : all_dtypes) {
      if (in == INGOT_F16 && data == Data::tied_scores_1e30) continue;
      Row row{.heads = 2, .q = 40, .k = 90, .d = 32, .in = in, .out = in, .data = data};
      row.grad = INGOT_F32;
      table.add(data == Data::tied_scores_1e9 ? Tier::smoke : Tier::quick, row);
      row.heads_kv = 2, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.softcap = cap;
      table.add(Tier::quick, row);
      row.heads = 4, row.softcap = 0, row.scale = -0.2F, row.right = 0;
      table.add(Tier::quick, row);
      // As many as the forms of a device for longer sequences want.
      for (const std::int64_t d : {64, 128, 256}) {
        Row large{.heads = 8, .heads_kv = 4, .q = 300, .k = 1000, .d = d, .in = in, .out = in};
        large.data = data, large.grad = INGOT_F32;
        table.add(Tier::full, large);
        large.causal = INGOT_CAUSAL_BOTTOM_RIGHT, large.softcap = cap;
        table.add(Tier::full, large);
      }
    }
  }
}

/// A device may compute f32 less exactly where the caller says so, and nothing else.
inline void add_precisions(Table& table) {
  for (const ingot_dtype in : all_dtypes) {
    Row row{.heads = 2, .heads_kv = 1, .q = 70, .k = 130, .d = 64, .in = in};
    row.precision = INGOT_PRECISION_HIGH;
    table.add(in == INGOT_F32 ? Tier::smoke : Tier::quick, row);
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.softcap = 20;
    table.add(Tier::quick, row);
  }
  Row large{.heads = 4, .heads_kv = 2, .q = 1000, .k = 1027, .d = 64};
  large.precision = INGOT_PRECISION_HIGH;
  table.add(Tier::full, large);
}

/// The quick rows, or all of them.
inline std::vector<Case> cases(bool full) {
  Table table(full);
  add_lengths(table);
  add_head_dims(table);
  add_heads(table);
  add_masks(table);
  add_decode(table);
  add_empty(table);
  add_dtypes(table);
  add_layouts(table);
  add_data(table);
  add_large_scores(table);
  add_tied_scores(table);
  add_precisions(table);
  add_parts(table);
  return table.take();
}

}  // namespace ingot::conformance
