// What one row of the table of tests is: a problem, where its tensors lie and what they hold. The
// table itself is cases.hpp. Needs ingot.h and the standard library alone.
#pragma once

#include <ingot/ingot.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "part_choice.hpp"

namespace ingot::conformance {

/// Where the elements of a tensor lie. Outputs follow it, too, but never share elements.
enum class Layout {
  bhsd,             // [batch, head, seqlen, dim], packed
  bshd,             // [batch, seqlen, head, dim], packed
  packed_qkv,       // q, k, v, and dq, dk, dv: slices of a [batch, seqlen, heads + 2 heads_kv, dim]
  transposed,       // [batch, head, dim, seqlen]
  padded_rows,      // rows 5 elements apart, heads 3 more: aligned to an element and no more
  page_rows,        // rows a multiple of 4 KiB apart
  every_other,      // stride 2 in head_dim
  broadcast_heads,  // all key/value heads of k and v are one (stride 0)
  reversed,         // negative strides in seqlen and head
};

/// What the inputs hold.
enum class Data {
  normal,           // standard normal numbers
  negative_logits,  // every score about -1000
  huge_logits,      // |<q, k>| > 65504, the largest f16
  equal_rows,       // all keys and all values are equal
  tiny,             // products underflow
  inf_q,
  inf_k,
  inf_v,
  nan_q,
  nan_k,
  nan_v,
  nan_dout,  // one element, or a few, of one tensor
  // Small whole numbers times a power of two: <q, k> is exact in f32, and the keys of a row with
  // the largest score, often more than one, have all of its weight.
  large_scores_1e6,
  large_scores_1e9,    // as far as f16 goes
  large_scores_1e37,   // as far as f32 goes
  large_scores_mixed,  // one query row like that, one with ordinary scores, one between, and so on
  // The same, and every seventh key is equal: they share the weight of a row.
  tied_scores_1e6,
  tied_scores_1e9,
  tied_scores_1e30,
};

/// smoke: minutes under a sanitizer. quick: half a minute. full: all there is.
enum class Tier { smoke, quick, full };

struct Case {
  std::string name;  // letters, digits and _; unique
  ingot_problem problem{};
  Layout layout = Layout::bhsd;
  Data data = Data::normal;
  Tier tier = Tier::quick;
  PartChoice parts{};
};

/// One line of the table, with the usual values of what is not said.
struct Row {
  std::int64_t batch = 1, heads = 1, heads_kv = 1;
  std::int64_t q = 40, k = 40, d = 32, dv = 0;  // dv 0: d
  ingot_dtype in = INGOT_F32, in_k = INGOT_DTYPE_DEFAULT, in_v = INGOT_DTYPE_DEFAULT;
  ingot_dtype out = INGOT_DTYPE_DEFAULT,
              grad = INGOT_DTYPE_DEFAULT;  // of o and dout; of dq, dk, dv
  ingot_causal causal = INGOT_CAUSAL_NONE;
  std::int64_t left = -1, right = -1;
  float scale = 0, softcap = 0;
  ingot_precision precision = INGOT_PRECISION_HIGHEST;
  std::int64_t workspace_limit = 0;  // the library's own
  Layout layout = Layout::bhsd;
  Data data = Data::normal;
  PartChoice parts{};
};

inline const char* name_of(Layout layout) {
  static const char* const names[] = {"bhsd",        "bshd",      "packed_qkv",  "transposed",
                                      "padded_rows", "page_rows", "every_other", "broadcast_heads",
                                      "reversed"};
  return names[static_cast<int>(layout)];
}
inline const char* name_of(Data data) {
  static const char* const names[] = {"normal",
                                      "negative_logits",
                                      "huge_logits",
                                      "equal_rows",
                                      "tiny",
                                      "inf_q",
                                      "inf_k",
                                      "inf_v",
                                      "nan_q",
                                      "nan_k",
                                      "nan_v",
                                      "nan_dout",
                                      "large_scores_1e6",
                                      "large_scores_1e9",
                                      "large_scores_1e37",
                                      "large_scores_mixed",
                                      "tied_scores_1e6",
                                      "tied_scores_1e9",
                                      "tied_scores_1e30"};
  return names[static_cast<int>(data)];
}

inline std::string name_of(const Row& r) {
  static const char* const causal[] = {"", "_topleft", "_bottomright"};
  const auto number = [](std::int64_t x) { return x < 0 ? std::string("inf") : std::to_string(x); };
  std::string s = name_of(r.in);
  for (const ingot_dtype dtype : {r.in_k, r.in_v, r.out, r.grad}) {
    if (r.in_k != 0 || r.in_v != 0 || r.out != 0 || r.grad != 0)
      s += std::string("_") + name_of(dtype);
  }
  s += "_b" + number(r.batch) + "_h" + number(r.heads) + "x" + number(r.heads_kv) + "_q" +
       number(r.q) + "_k" + number(r.k) + "_d" + number(r.d);
  if (r.dv != 0 && r.dv != r.d) s += "x" + number(r.dv);
  s += causal[r.causal];
  if (r.left >= 0 || r.right >= 0) s += "_window_" + number(r.left) + "_" + number(r.right);
  if (r.scale != 0) s += r.scale < 0 ? "_negativescale" : "_scale";
  const std::string softcap = std::to_string(r.softcap);  // beyond any integer, too
  if (r.softcap != 0) s += "_softcap" + softcap.substr(0, softcap.find('.'));
  if (r.precision == INGOT_PRECISION_HIGH) s += "_high";
  if (r.workspace_limit != 0) s += "_limit" + number(r.workspace_limit);
  if (r.layout != Layout::bhsd) s += std::string("_") + name_of(r.layout);
  if (r.data != Data::normal) s += std::string("_") + name_of(r.data);
  return s + name_of(r.parts);
}

class Table {
 public:
  explicit Table(bool full) : full_(full) {}

  /// A row said twice is kept once.
  void add(Tier tier, const Row& r) {
    if (tier == Tier::full && !full_) return;
    Case c{name_of(r), {}, r.layout, r.data, tier, r.parts};
    if (!names_.insert(c.name).second) return;
    ingot_problem& p = c.problem;
    ingot_problem_init(&p);
    p.batch = r.batch, p.num_heads = r.heads, p.num_heads_kv = r.heads_kv;
    p.seqlen_q = r.q, p.seqlen_k = r.k, p.head_dim = r.d, p.head_dim_v = r.dv != 0 ? r.dv : r.d;
    p.q_dtype = r.in, p.k_dtype = r.in_k, p.v_dtype = r.in_v, p.o_dtype = r.out;
    p.dq_dtype = p.dk_dtype = p.dv_dtype = r.grad;
    p.causal = r.causal, p.window_left = r.left, p.window_right = r.right;
    p.scale = r.scale, p.softcap = r.softcap;
    p.precision = r.precision;
    p.workspace_limit = r.workspace_limit;
    turn_on(r.parts, p);
    cases_.push_back(std::move(c));
  }
  std::vector<Case> take() { return std::move(cases_); }

 private:
  bool full_;
  std::vector<Case> cases_;
  std::unordered_set<std::string> names_;
};

inline constexpr ingot_dtype all_dtypes[] = {INGOT_F32, INGOT_F16, INGOT_BF16};
inline constexpr ingot_causal all_causals[] = {INGOT_CAUSAL_NONE, INGOT_CAUSAL_TOP_LEFT,
                                               INGOT_CAUSAL_BOTTOM_RIGHT};

}  // namespace ingot::conformance
