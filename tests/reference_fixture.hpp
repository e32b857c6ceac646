// Problems in F64 on device "reference", whose elements tests read, set and move.
#pragma once

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {

/// A problem in F64 with its tensors, on device "reference".
struct Fixture {
  ingot_problem p;
  Operands t;
  PlanHandle plan;

  explicit Fixture(const Case& c) : p(in_f64(c.problem)), t(p, c.layout, c.parts) {
    Outcome outcome;
    plan = make_plan(shared_context(), "reference", p, outcome);
    if (plan == nullptr) throw std::runtime_error(outcome.message);
    fill(t, p, c);
  }

  void run() const {
    const std::string message = conformance::run(plan.get(), t, false);
    if (!message.empty()) throw std::runtime_error(message);
  }

  static ingot_problem in_f64(ingot_problem p) {
    p.q_dtype = p.k_dtype = p.v_dtype = p.o_dtype = INGOT_F64;
    return resolved(p);
  }
};

inline double get(const Operand& t, Index b, Index h, Index s, Index d) {
  return read_element(t.buffer->at(t.view.element(b, h, s, d)), t.buffer->dtype());
}
inline void set(const Operand& t, Index b, Index h, Index s, Index d, double x) {
  write_element(t.buffer->at(t.view.element(b, h, s, d)), t.buffer->dtype(), x);
}

inline Case make_case(const Row& row) {
  Table table(true);
  table.add(Tier::quick, row);
  return table.take().front();
}

inline double loss(const Fixture& s) {
  s.run();
  double sum = 0;
  s.t.o.view.for_each([&](Index b, Index h, Index row, Index d) {
    sum += get(s.t.o, b, h, row, d) * get(s.t.dout, b, h, row, d);
  });
  return sum;
}

/// Moves every element of `input` both ways by `step` and compares with `gradient`.
inline void check_gradient(const Fixture& s, const Operand& input, const Operand& gradient,
                           const std::string& name, double step = 1e-5, double error = 2e-9) {
  const Dense want = [&] {
    s.run();
    return gradient.dense();
  }();
  std::size_t i = 0;
  input.view.for_each([&](Index b, Index h, Index row, Index d) {
    const double x = get(input, b, h, row, d);
    set(input, b, h, row, d, x + step);
    const double above = loss(s);
    set(input, b, h, row, d, x - step);
    const double below = loss(s);
    set(input, b, h, row, d, x);
    EXPECT_NEAR(want.data[i++], (above - below) / (2 * step), error)
        << name << " " << gradient.name << position(b, h, row, d);
  });
}

}  // namespace ingot::conformance
