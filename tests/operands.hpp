// The tensors of one row of cases.hpp: where they lie and what they hold. Public API only.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "part_operands.hpp"

namespace ingot::conformance {

/// Three tensors as slices of [batch, seqlen, heads + 2 heads_kv, dim].
inline void pack(Operand& a, Operand& b, Operand& c) {
  Operand* const slices[] = {&a, &b, &c};
  Index row = 0;
  for (const Operand* slice : slices) row += slice->view.shape[1] * slice->view.shape[3];
  Index origin = 0;
  for (Operand* slice : slices) {
    View& v = slice->view;
    v.stride = {v.shape[2] * row, v.shape[3], row, 1};
    v.origin = origin;
    origin += v.shape[1] * v.shape[3];
  }
  a.buffer = std::make_shared<Buffer>(a.buffer->dtype(), a.view.shape[0] * a.view.shape[2] * row);
  b.buffer = c.buffer = a.buffer;
}

/// Everything one forward and backward call reads and writes.
struct Operands {
  Operand q, k, v, dout, o, lse, dq, dk, dv;
  PartOperands parts;

  Operands(const ingot_problem& p, Layout layout, const PartChoice& choice = {})
      : q(make_operand("q", p.q_dtype, shape_q(p), layout, false)),
        k(make_operand("k", p.k_dtype, shape_k(p), layout, false)),
        v(make_operand("v", p.v_dtype, shape_v(p), layout, false)),
        dout(make_operand("dout", p.dout_dtype, shape_o(p), layout, true)),
        o(make_operand("o", p.o_dtype, shape_o(p), layout, true)),
        lse(make_operand("lse", INGOT_F32, shape_lse(p), layout, true)),
        dq(make_operand("dq", p.dq_dtype, shape_q(p), layout, true)),
        dk(make_operand("dk", p.dk_dtype, shape_k(p), layout, true)),
        dv(make_operand("dv", p.dv_dtype, shape_v(p), layout, true)),
        parts(p, layout, choice) {
    if (layout != Layout::packed_qkv) return;
    pack(q, k, v);
    pack(dq, dk, dv);
  }
};

/// The power of two that row `s` of q or k is multiplied by, for scores of some 10 to 40 times
/// scale * 2^(twice as much).
inline int exponent_of(Data data, char role, Index s, ingot_dtype dtype) {
  if (data == Data::large_scores_1e6 || data == Data::tied_scores_1e6) return 9;
  const int largest = dtype == INGOT_F16 ? 14 : 60;
  if (data == Data::large_scores_1e9 || data == Data::tied_scores_1e9) return 14;
  if (data == Data::tied_scores_1e30) return 49;
  if (data == Data::large_scores_1e37 || role == 'k') return largest;
  const int of_rows[] = {largest, -largest, -largest / 2};
  return of_rows[s % 3];
}

/// One element of row `s` of an input before rounding to its dtype. `role` is 'q', 'k', 'v' or 'd'
/// (dout).
inline double draw(Random& random, Data data, char role, Index s, Index d, const ingot_problem& p,
                   ingot_dtype dtype) {
  const double x = random.normal();
  const double root_dim = std::sqrt(static_cast<double>(p.head_dim));
  const bool in_score = role == 'q' || role == 'k';
  switch (data) {
    case Data::negative_logits:
      return in_score ? (role == 'q' ? 1 : -1) * std::sqrt(1000 / root_dim) + 0.1 * x : x;
    case Data::huge_logits:
      return in_score ? x * std::sqrt(2e5 / root_dim) : x;
    case Data::equal_rows:
      return role == 'k' || role == 'v' ? std::sin(static_cast<double>(3 * d + 1)) : x;
    case Data::tiny:
      return x * (dtype == INGOT_F16 ? 1e-5 : 1e-30);
    case Data::large_scores_1e6:
    case Data::large_scores_1e9:
    case Data::large_scores_1e37:
    case Data::large_scores_mixed:
      if (!in_score) return x;
      return std::ldexp(std::clamp(std::round(x), -2.0, 2.0), exponent_of(data, role, s, dtype));
    case Data::tied_scores_1e6:
    case Data::tied_scores_1e9:
    case Data::tied_scores_1e30:
      if (!in_score) return x;
      return std::ldexp(std::round(2 * std::sin(static_cast<double>((s % 7 + 3) * (d + 2)))),
                        exponent_of(data, role, s, dtype));
    default:
      return x;
  }
}

/// Puts infinities or a NaN into the first head of one tensor; every other head must stay finite.
inline void spoil(const Operand& operand, Data data, char role) {
  const char* const name = name_of(data);  // "inf_q", "nan_dout"
  const Shape& n = operand.view.shape;
  if (operand.view.count() == 0 || name[3] != '_' || name[4] != role) return;
  const bool nan = name[0] == 'n';
  const auto put = [&](Index s, Index d, double value) {
    write_element(operand.buffer->at(operand.view.element(0, 0, s, d)), operand.buffer->dtype(),
                  value);
  };
  if (nan) put(n[2] / 2, n[3] / 2, std::numeric_limits<double>::quiet_NaN());
  if (!nan) put(n[2] / 3, 0, std::numeric_limits<double>::infinity());
  if (!nan) put(n[2] / 2, n[3] - 1, -std::numeric_limits<double>::infinity());
}

inline void fill(const Operands& t, const ingot_problem& p, const Case& c) {
  Random random(c.name);
  const std::pair<const Operand*, char> inputs[] = {
      {&t.q, 'q'}, {&t.k, 'k'}, {&t.v, 'v'}, {&t.dout, 'd'}};
  for (const auto& [operand, role] : inputs) {
    const ingot_dtype dtype = operand->buffer->dtype();
    operand->view.for_each([&, x = operand, r = role](Index b, Index h, Index s, Index d) {
      write_element(x->buffer->at(x->view.element(b, h, s, d)), dtype,
                    draw(random, c.data, r, s, d, p, dtype));
    });
    spoil(*operand, c.data, role);
  }
  fill_parts(t.parts, p, c.parts, random);
}

}  // namespace ingot::conformance
