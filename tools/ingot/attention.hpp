// One forward pass, and one backward pass where dout is given, on host arrays.
#pragma once

#include <ingot/ingot.hpp>
#include <optional>

#include "array.hpp"
#include "parts.hpp"
#include "views.hpp"

namespace ingot::cli {

struct AttentionInput {
  Array q, k, v;
  std::optional<Array> dout;
  Layout layout = Layout::bhsd;
  PartArrays parts{};
  bool wants_dbias = false, wants_dsinks = false;
};

struct AttentionResult {
  Array o, lse;
  std::optional<Array> dq, dk, dv, dbias, dsinks;
  double forward_ms = 0, backward_ms = 0;

  bool has_gradients() const { return dq.has_value(); }
};

/// Throws Failure where dout does not have the shape of o, or a part none that broadcasts.
void check(const AttentionInput& input, const Problem& problem);

/// `problem` is what the plan was made of, with problem_of(q, k, v)'s sizes. Outputs have the
/// layout and rank of q.
AttentionResult attention(const Plan& plan, const Problem& problem, const AttentionInput& input);

}  // namespace ingot::cli
