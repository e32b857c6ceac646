// For tests of errors: a correct problem and a correct call, what breaks them, and what is to be
// said then.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "conformance.hpp"
#include "devices.hpp"

namespace ingot::conformance {

inline ingot_problem small_problem() {
  ingot_problem p;
  ingot_problem_init(&p);
  p.batch = 2, p.num_heads = 4, p.num_heads_kv = 2, p.seqlen_q = 3, p.seqlen_k = 5, p.head_dim = 8,
  p.head_dim_v = 6;
  return p;
}

struct Rule {
  std::function<void(ingot_problem&)> break_it;
  std::string message;
};

/// An enumerator that a C caller can write and this header does not have.
template <class Enum>
Enum beyond(int value) {
  Enum e;
  static_assert(sizeof e == sizeof value);
  std::memcpy(&e, &value, sizeof e);
  return e;
}

inline void expect_rules(const std::vector<Rule>& rules) {
  for (const Rule& rule : rules) {
    ingot_problem p = small_problem();
    rule.break_it(p);
    ingot_plan* plan = nullptr;
    EXPECT_EQ(ingot_plan_create(shared_context(), "reference", &p, &plan), INGOT_INVALID_ARGUMENT)
        << rule.message;
    EXPECT_EQ(plan, nullptr);
    EXPECT_EQ(ingot_last_error(), rule.message);
    ingot_plan_destroy(plan);
  }
}

/// A correct call whose arguments a test then breaks.
struct Call {
  ingot_problem p;
  Operands t;
  PlanHandle plan;
  ingot_forward_args f;
  ingot_backward_args g;

  explicit Call(const PartChoice& parts = {}) : p(problem_with(parts)), t(p, Layout::bhsd, parts) {
    Outcome outcome;
    plan = make_plan(shared_context(), "reference", p, outcome);
    ingot_forward_args_init(&f);
    f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor(),
    f.lse = t.lse.tensor(), f.parts = t.parts.tensors();
    ingot_backward_args_init(&g);
    g.q = f.q, g.k = f.k, g.v = f.v, g.o = f.o, g.lse = f.lse, g.dout = t.dout.tensor();
    g.dq = t.dq.tensor(), g.dk = t.dk.tensor(), g.dv = t.dv.tensor(), g.parts = f.parts;
    g.dbias = t.parts.dbias.tensor(), g.dsinks = t.parts.dsinks.tensor();
  }
  void expect_forward(const std::string& message) const {
    EXPECT_EQ(ingot_forward(plan.get(), &f), INGOT_INVALID_ARGUMENT) << message;
    EXPECT_EQ(ingot_last_error(), message);
  }
  void expect_backward(const std::string& message) const {
    EXPECT_EQ(ingot_backward(plan.get(), &g), INGOT_INVALID_ARGUMENT) << message;
    EXPECT_EQ(ingot_last_error(), message);
  }

 private:
  static ingot_problem problem_with(const PartChoice& parts) {
    ingot_problem problem = small_problem();
    turn_on(parts, problem);
    return resolved(problem);
  }
};

inline ingot_tensor shifted(ingot_tensor t, std::ptrdiff_t bytes) {
  t.data = static_cast<std::byte*>(t.data) + bytes;
  return t;
}

}  // namespace ingot::conformance
