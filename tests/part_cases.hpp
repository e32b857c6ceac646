// The rows of cases.hpp with parts of the score and the softmax: each part alone, in pairs, and all
// together. Needs ingot.h and the standard library alone.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <utility>
#include <vector>

#include "case.hpp"

namespace ingot::conformance {

/// Every part, in one of its usual forms.
inline PartChoice all_parts(ingot_dtype bias, ingot_dtype sinks) {
  return {.alibi = Slopes::of_batches,
          .bias = bias,
          .mask = Mask::half,
          .sinks = sinks,
          .dropout = 0.2F,
          .prefix = true};
}

/// One part at a time, in all of its forms.
inline std::vector<PartChoice> single_parts(ingot_dtype in) {
  std::vector<PartChoice> all = {{.alibi = Slopes::of_heads}, {.alibi = Slopes::of_batches}};
  for (const char* dims : {"bhqk", "1hqk", "b1qk", "11qk", "bh1k", "b11k", "11q1", "1h11", "1111",
                           "0hqk", "b0qk", "bh0k", "bhq0", "10q1"}) {
    all.push_back({.bias = in, .bias_dims = dims});
  }
  all.push_back({.bias = in, .bias_holes = true});
  all.push_back({.bias = in, .bias_dims = "1h1k", .bias_holes = true});
  for (int i = static_cast<int>(Mask::half); i <= static_cast<int>(Mask::of_batches); ++i) {
    all.push_back({.mask = static_cast<Mask>(i)});
  }
  all.push_back({.sinks = INGOT_F32});
  all.push_back({.sinks = in, .sink_values = Sinks::some_absent});
  for (const float p : {0x1p-16F, 0.1F, 0.5F, 0.999F}) all.push_back({.dropout = p});
  all.push_back({.prefix = true});
  return all;
}

inline void add_single_parts(Table& table) {
  std::size_t i = 0;
  for (const ingot_dtype in : all_dtypes) {
    for (const PartChoice& parts : single_parts(in)) {
      Row row{.batch = 2, .heads = 4, .heads_kv = 2, .q = 37, .k = 52, .d = 24, .in = in};
      row.parts = parts;
      const bool smoke = in == INGOT_F32 && i % 5 == 0;
      if (parts.prefix) row.causal = INGOT_CAUSAL_BOTTOM_RIGHT;
      table.add(smoke ? Tier::smoke : Tier::quick, row);
      row.causal = all_causals[i % 3], row.softcap = 5, row.d = 40, row.q = 40;
      (parts.prefix ? row.right : row.left) = 12;
      table.add(Tier::quick, row);
      row.heads_kv = 4, row.q = 130, row.k = 200, row.d = 64, row.softcap = 0;
      table.add(parts.mask == Mask::blocks ? Tier::quick : Tier::full, row);
      row.q = 2, row.k = 1030, row.left = row.right = -1;
      table.add(Tier::full, row);
      ++i;
    }
  }
}

/// Any two of the parts.
inline void add_pairs_of_parts(Table& table) {
  using Choose = void (*)(PartChoice&);
  constexpr Choose choices[] = {[](PartChoice& c) { c.alibi = Slopes::of_heads; },
                                [](PartChoice& c) { c.bias = INGOT_F32, c.bias_dims = "1hqk"; },
                                [](PartChoice& c) { c.mask = Mask::holes; },
                                [](PartChoice& c) { c.sinks = INGOT_F32; },
                                [](PartChoice& c) { c.dropout = 0.3F; },
                                [](PartChoice& c) { c.prefix = true; }};
  std::size_t n = 0;
  for (std::size_t i = 0; i < std::size(choices); ++i) {
    for (std::size_t j = i + 1; j < std::size(choices); ++j, ++n) {
      for (const ingot_dtype in : all_dtypes) {
        Row row{.batch = 2, .heads = 4, .heads_kv = 2, .q = 35, .k = 67, .d = 32, .in = in};
        choices[i](row.parts), choices[j](row.parts);
        row.causal = all_causals[n % 3];
        const bool smoke = n % 5 == 0 && in == INGOT_F32;
        table.add(smoke ? Tier::smoke : in == all_dtypes[n % 3] ? Tier::quick : Tier::full, row);
        row.heads_kv = 1, row.q = 129, row.k = 150, row.d = 64, row.batch = 1, row.softcap = 8;
        table.add(Tier::full, row);
      }
    }
  }
}

inline void add_all_parts(Table& table) {
  for (const ingot_dtype in : all_dtypes) {
    for (const std::int64_t d : {1, 16, 64, 80, 128, 192, 256, 512}) {
      Row row{.batch = 2, .heads = 2, .heads_kv = 1, .q = 19, .k = 70, .d = d, .in = in};
      row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.parts = all_parts(in, INGOT_F32);
      table.add(d == 16 ? Tier::smoke : Tier::quick, row);
      row.causal = INGOT_CAUSAL_TOP_LEFT, row.softcap = 12, row.parts.bias_dims = "11qk";
      row.q = 70, row.k = 66, row.parts.mask = Mask::holes, row.parts.dbias = INGOT_F32;
      table.add(d == 64 || d == 80 ? Tier::quick : Tier::full, row);
      row.parts = all_parts(INGOT_F32, in), row.q = 150, row.k = 300, row.softcap = 0;
      row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.parts.mask = Mask::blocks;
      table.add(Tier::full, row);
    }
    for (const ingot_dtype other : all_dtypes) {
      Row row{.heads = 3, .q = 45, .k = 52, .d = 40, .in = in};
      row.parts = all_parts(other, INGOT_F32);
      row.parts.dbias = in, row.parts.dsinks = other;
      table.add(Tier::quick, row);
    }
  }
  for (int i = static_cast<int>(Layout::bhsd); i <= static_cast<int>(Layout::reversed); ++i) {
    Row row{.batch = 2, .heads = 4, .heads_kv = 2, .q = 38, .k = 38, .d = 24};
    row.in = all_dtypes[i % 3], row.layout = static_cast<Layout>(i);
    row.parts = all_parts(row.in, row.in);
    table.add(Tier::quick, row);
    row.parts = {.bias = INGOT_F32, .bias_dims = "b1qk", .mask = Mask::of_heads};
    table.add(row.layout == Layout::transposed ? Tier::smoke : Tier::quick, row);
    row.q = row.k = 130, row.d = 64, row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.left = 60;
    table.add(row.layout == Layout::packed_qkv ? Tier::quick : Tier::full, row);
  }
}

/// Few rows and many keys, and GQA whose heads share rows of a tile.
inline void add_decoding_with_parts(Table& table) {
  for (std::int64_t q = 1; q <= 8; ++q) {
    const ingot_dtype in = all_dtypes[q % 3];
    Row row{.heads = 4, .heads_kv = 2, .q = q, .k = 1030, .d = 64, .in = in};
    row.causal = INGOT_CAUSAL_BOTTOM_RIGHT, row.parts = all_parts(in, INGOT_F32);
    table.add(q == 3 ? Tier::smoke : Tier::quick, row);
    row.heads = 8, row.batch = 2, row.k = 300, row.d = 128;
    table.add(Tier::full, row);
  }
  for (const PartChoice& parts :
       std::initializer_list<PartChoice>{{.alibi = Slopes::of_heads},
                                         {.bias = INGOT_F16},
                                         {.bias = INGOT_F32, .bias_dims = "1h1k"},
                                         {.mask = Mask::blocks},
                                         {.mask = Mask::padding},
                                         {.sinks = INGOT_F32},
                                         {.dropout = 0.1F},
                                         {.prefix = true},
                                         all_parts(INGOT_BF16, INGOT_F32)}) {
    Row row{.heads = 2, .heads_kv = 1, .q = 3, .k = 5000, .d = 64, .parts = parts};
    if (parts.prefix) row.causal = INGOT_CAUSAL_TOP_LEFT;
    table.add(Tier::quick, row);
    row.in = INGOT_BF16, row.d = 128, row.parts.sinks = parts.sinks;
    table.add(Tier::full, row);
  }
  // More rows than a decoding kernel takes, whose keys are split all the same.
  for (const PartChoice& parts :
       {PartChoice{.sinks = INGOT_F32}, all_parts(INGOT_F32, INGOT_F32)}) {
    table.add(Tier::quick,
              {.heads = 2, .heads_kv = 1, .q = 40, .k = 2500, .d = 64, .parts = parts});
  }
}

/// NaN and infinities behind the mask and in front of it, scores of any size, and no pair at all.
inline void add_data_with_parts(Table& table) {
  const PartChoice holes{.mask = Mask::holes};
  for (const Data data : {Data::inf_k, Data::inf_v, Data::nan_k, Data::nan_v, Data::nan_q,
                          Data::nan_dout, Data::equal_rows, Data::negative_logits, Data::tiny}) {
    Row row{.heads = 2, .q = 40, .k = 70, .d = 24, .data = data, .parts = holes};
    table.add(data == Data::nan_v ? Tier::smoke : Tier::quick, row);
    row.in = INGOT_BF16, row.d = 64, row.heads_kv = 1;
    table.add(Tier::quick, row);
  }
  PartChoice finite = all_parts(INGOT_F32, INGOT_F32);
  for (const Data data : {Data::nan_q, Data::nan_dout, Data::equal_rows, Data::negative_logits}) {
    Row row{.heads = 2, .q = 40, .k = 70, .d = 24, .data = data, .parts = finite};
    table.add(Tier::quick, row);
  }
  for (const Data data : {Data::large_scores_1e6, Data::large_scores_mixed}) {
    Row row{.heads = 2, .q = 70, .k = 150, .d = 64, .out = INGOT_F32, .data = data};
    row.parts = {.mask = Mask::blocks, .sinks = INGOT_F32, .dropout = 0.5F};
    table.add(Tier::quick, row);
  }
  PartChoice absent = all_parts(INGOT_F32, INGOT_F32);
  absent.sink_values = Sinks::some_absent, absent.bias_holes = true, absent.mask = Mask::holes;
  table.add(Tier::quick, {.heads = 4, .q = 60, .k = 70, .d = 24, .parts = absent});
  for (const auto& [q, k] : {std::pair{5, 0}, std::pair{0, 5}, std::pair{0, 0}}) {
    for (const char* dims : {"bhqk", "1h1k", "1111"}) {
      Row row{.batch = 2, .heads = 2, .q = q, .k = k, .parts = all_parts(INGOT_F32, INGOT_F32)};
      row.parts.bias_dims = dims;
      table.add(q == 0 && k == 5 ? Tier::smoke : Tier::quick, row);
    }
  }
}

inline void add_parts(Table& table) {
  add_single_parts(table);
  add_pairs_of_parts(table);
  add_all_parts(table);
  add_decoding_with_parts(table);
  add_data_with_parts(table);
}

}  // namespace ingot::conformance
