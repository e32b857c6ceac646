// Runs rows of cases.hpp on a device and holds the results against device "reference", by the
// contract of docs/numerics.md. Public API only; the tests and `ingot check` share it.
#pragma once

#include <cstdio>
#include <memory>

#include "plain.hpp"

namespace ingot::conformance {

enum class Status { passed, failed, skipped };

struct Outcome {
  Status status = Status::passed;
  std::string message;  // one line; empty where passed
  double worst = 0;     // largest error as a part of what is allowed
};

/// A tensor of one case: its memory (slices of one buffer where packed) and where its elements lie.
struct Operand {
  const char* name = "";
  std::shared_ptr<Buffer> buffer;
  View view;

  ingot_tensor tensor() const { return tensor_of(*buffer, view); }
  Dense dense() const { return read_dense(*buffer, view); }
};

/// Caller-supplied workspace of the exact size, 64-byte aligned, with guards, filled with NaN.
class Workspace {
 public:
  explicit Workspace(std::size_t bytes) : size_(bytes), memory_(new std::byte[bytes + 3 * guard]) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get() + guard);
    start_ = guard + (64 - address % 64) % 64;
    for (std::size_t i = 0; i < size_ + 3 * guard; ++i)
      memory_[i] = inside(i) ? std::byte{0xFF} : guard_byte;
  }
  void* data() { return size_ == 0 ? nullptr : memory_.get() + start_; }
  bool intact() const {
    for (std::size_t i = 0; i < size_ + 3 * guard; ++i) {
      if (!inside(i) && memory_[i] != guard_byte) return false;
    }
    return true;
  }

 private:
  static constexpr std::size_t guard = 256;
  static constexpr std::byte guard_byte{0xA5};
  bool inside(std::size_t i) const { return i >= start_ && i < start_ + size_; }

  std::size_t size_, start_ = 0;
  std::unique_ptr<std::byte[]> memory_;
};

struct PlanDeleter {
  void operator()(ingot_plan* plan) const { ingot_plan_destroy(plan); }
};
using PlanHandle = std::unique_ptr<ingot_plan, PlanDeleter>;

/// `problem` with every default dtype replaced by what it stands for.
inline ingot_problem resolved(ingot_problem p) {
  const auto settle = [](ingot_dtype& dtype, ingot_dtype fallback) {
    if (dtype == INGOT_DTYPE_DEFAULT) dtype = fallback;
  };
  settle(p.q_dtype, INGOT_F32), settle(p.k_dtype, p.q_dtype), settle(p.v_dtype, p.k_dtype);
  settle(p.o_dtype, p.q_dtype), settle(p.dout_dtype, p.o_dtype);
  settle(p.dq_dtype, p.q_dtype), settle(p.dk_dtype, p.k_dtype), settle(p.dv_dtype, p.v_dtype);
  return p;
}

inline Shape shape_q(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim};
}
inline Shape shape_k(const ingot_problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim};
}
inline Shape shape_v(const ingot_problem& p) {
  return {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v};
}
inline Shape shape_o(const ingot_problem& p) {
  return {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v};
}
inline Shape shape_lse(const ingot_problem& p) { return {p.batch, p.num_heads, p.seqlen_q, 1}; }

inline Operand make_operand(const char* name, ingot_dtype dtype, const Shape& shape, Layout layout,
                            bool output) {
  const View view = make_view(shape, layout, output);
  return {name, std::make_shared<Buffer>(dtype, span_of(view)), view};
}

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

  Operands(const ingot_problem& p, Layout layout)
      : q(make_operand("q", p.q_dtype, shape_q(p), layout, false)),
        k(make_operand("k", p.k_dtype, shape_k(p), layout, false)),
        v(make_operand("v", p.v_dtype, shape_v(p), layout, false)),
        dout(make_operand("dout", p.dout_dtype, shape_o(p), layout, true)),
        o(make_operand("o", p.o_dtype, shape_o(p), layout, true)),
        lse(make_operand("lse", INGOT_F32, shape_lse(p), layout, true)),
        dq(make_operand("dq", p.dq_dtype, shape_q(p), layout, true)),
        dk(make_operand("dk", p.dk_dtype, shape_k(p), layout, true)),
        dv(make_operand("dv", p.dv_dtype, shape_v(p), layout, true)) {
    if (layout != Layout::packed_qkv) return;
    pack(q, k, v);
    pack(dq, dk, dv);
  }
};

/// One element of an input before rounding to its dtype. `role` is 'q', 'k', 'v' or 'd' (dout).
inline double draw(Random& random, Data data, char role, Index d, const ingot_problem& p,
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
                    draw(random, c.data, r, d, p, dtype));
    });
    spoil(*operand, c.data, role);
  }
}

inline PlanHandle make_plan(ingot_context* context, const char* device, const ingot_problem& p,
                            Outcome& outcome) {
  ingot_plan* plan = nullptr;
  const ingot_status status = ingot_plan_create(context, device, &p, &plan);
  if (status != INGOT_OK) {
    outcome.status = status == INGOT_UNSUPPORTED ? Status::skipped : Status::failed;
    outcome.message = std::string("plan: ") + ingot_last_error();
  }
  return PlanHandle(plan);
}

/// Runs both passes; a message where one fails. A workspace of the caller's own, or of ingot's.
inline std::string run(const ingot_plan* plan, const Operands& t, bool own_workspace) {
  std::size_t bytes[2] = {0, 0};
  for (const ingot_pass pass : {INGOT_FORWARD, INGOT_BACKWARD}) {
    if (ingot_plan_workspace_bytes(plan, pass, &bytes[pass]) != INGOT_OK) return ingot_last_error();
  }
  Workspace for_forward(own_workspace ? bytes[0] : 0), for_backward(own_workspace ? bytes[1] : 0);

  ingot_forward_args f;
  ingot_forward_args_init(&f);
  f.q = t.q.tensor(), f.k = t.k.tensor(), f.v = t.v.tensor(), f.o = t.o.tensor(),
  f.lse = t.lse.tensor();
  f.workspace = for_forward.data(), f.workspace_bytes = f.workspace != nullptr ? bytes[0] : 0;
  if (ingot_forward(plan, &f) != INGOT_OK) return std::string("forward: ") + ingot_last_error();
  if (!for_forward.intact())
    return "forward: wrote outside its workspace of " + std::to_string(bytes[0]) + " bytes";

  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = f.o, g.lse = f.lse, g.dout = t.dout.tensor();
  g.dq = t.dq.tensor(), g.dk = t.dk.tensor(), g.dv = t.dv.tensor();
  g.workspace = for_backward.data(), g.workspace_bytes = g.workspace != nullptr ? bytes[1] : 0;
  if (ingot_backward(plan, &g) != INGOT_OK) return std::string("backward: ") + ingot_last_error();
  if (!for_backward.intact())
    return "backward: wrote outside its workspace of " + std::to_string(bytes[1]) + " bytes";
  return "";
}

/// Every element of `outputs` (views of one buffer) was written and nothing beside them.
inline std::string check_written(const std::vector<const Operand*>& outputs) {
  const Buffer& buffer = *outputs.front()->buffer;
  std::vector<bool> belongs(static_cast<std::size_t>(buffer.elements()));
  std::string message;
  for (const Operand* t : outputs) {
    t->view.for_each([&](Index b, Index h, Index s, Index d) {
      const Index element = t->view.element(b, h, s, d);
      belongs[static_cast<std::size_t>(element)] = true;
      if (message.empty() && buffer.poisoned(element))
        message = std::string(t->name) + position(b, h, s, d) + " was not written";
    });
  }
  for (Index i = -guard_elements; i < buffer.elements() + guard_elements && message.empty(); ++i) {
    const bool inside = i >= 0 && i < buffer.elements() && belongs[static_cast<std::size_t>(i)];
    if (inside || buffer.poisoned(i)) continue;
    message = std::string(outputs.front()->name) +
              ": memory that does not belong to it was written, element " + std::to_string(i) +
              " of a buffer of " + std::to_string(buffer.elements());
  }
  return message;
}

/// Largest and root-mean-square of a set of numbers.
struct Norm {
  double largest = 0, sum_squares = 0;
  Index count = 0;

  void add(double x) { largest = std::max(largest, std::fabs(x)), sum_squares += x * x, ++count; }
  double rms() const {
    return count == 0 ? 0 : std::sqrt(sum_squares / static_cast<double>(count));
  }
};

/// Compares one tensor with the reference: infinities and NaNs in the same places, and errors,
/// largest and root mean square, of at most twice those of plain attention plus the floor.
class Comparison {
 public:
  Comparison(const Operand& got, const Dense& want, const Measure& plain)
      : t_(got), want_(want), plain_(plain) {}

  void run(Outcome& outcome) {
    std::size_t i = 0;
    Norm plain, floor;
    t_.view.for_each([&](Index b, Index h, Index s, Index d) {
      check_element(b, h, s, d, i);
      const double bound = plain_.floor.data[i];
      const double reference = plain_.value.data[i] - want_.data[i];
      if (std::isfinite(reference) && std::isfinite(bound)) plain.add(reference), floor.add(bound);
      ++i;
    });
    const double allowed = 2 * plain.largest + floor.largest;
    const double allowed_rms = 2 * plain.rms() + floor.rms();
    if (error_.largest > 0) outcome.worst = std::max(outcome.worst, error_.largest / allowed);
    if (error_.largest > allowed && message_.empty())
      message_ = worst_ + limits(error_.largest, allowed, plain.largest);
    if (error_.rms() > allowed_rms && message_.empty()) {
      message_ = std::string(t_.name) + ": root mean square" +
                 limits(error_.rms(), allowed_rms, plain.rms());
    }
    if (message_.empty() || outcome.status == Status::failed) return;
    outcome = {Status::failed, message_, outcome.worst};
  }

 private:
  static std::string number(double x) {
    char text[40];
    std::snprintf(text, sizeof text, "%.9g", x);
    return text;
  }
  static std::string limits(double error, double allowed, double plain) {
    return " (error " + number(error) + ", allowed " + number(allowed) + ", plain attention " +
           number(plain) + ")";
  }

  void check_element(Index b, Index h, Index s, Index d, std::size_t i) {
    const ingot_dtype dtype = t_.buffer->dtype();
    const double got = read_element(t_.buffer->at(t_.view.element(b, h, s, d)), dtype);
    const double want = want_.data[i];
    const double rounded = round_to(want, dtype);
    const auto say = [&] {
      return std::string(t_.name) + position(b, h, s, d) + ": got " + number(got) + ", want " +
             number(want);
    };
    if (std::isfinite(rounded) && std::isfinite(got)) {
      if (std::fabs(got - want) > error_.largest) worst_ = say();
      error_.add(got - want);
      return;
    }
    const bool same = std::isnan(rounded) ? std::isnan(got) : got == rounded;
    // Where a masked pair holds an Inf or NaN, a product of whole tiles makes 0 * NaN of it; so
    // does plain attention.
    const bool excused = std::isnan(got) && std::isnan(plain_.spill.data[i]);
    if (!same && !excused && message_.empty()) message_ = say();
  }

  const Operand& t_;
  const Dense& want_;
  const Measure& plain_;
  Norm error_;
  std::string worst_, message_;
};

struct Reference {
  Dense o, lse, dq, dk, dv;
};

/// The answer, from device "reference" on the same input memory with outputs in F64.
inline Reference reference(ingot_context* context, const ingot_problem& problem, const Operands& t,
                           Outcome& outcome) {
  ingot_problem p = problem;
  p.o_dtype = p.dq_dtype = p.dk_dtype = p.dv_dtype = INGOT_F64;
  Operands r(p, Layout::bhsd);
  r.q = t.q, r.k = t.k, r.v = t.v, r.dout = t.dout;
  const PlanHandle plan = make_plan(context, "reference", p, outcome);
  if (plan == nullptr) return {};
  outcome.message = run(plan.get(), r, false);
  if (!outcome.message.empty()) outcome.status = Status::failed;
  return {r.o.dense(), r.lse.dense(), r.dq.dense(), r.dk.dense(), r.dv.dense()};
}

inline PlainResult plain(const ingot_problem& p, const Operands& t) {
  const bool alike = p.q_dtype == p.k_dtype && p.k_dtype == p.v_dtype;
  PlainDtypes dtypes{alike ? p.q_dtype : INGOT_F32, p.o_dtype, p.dq_dtype, p.dk_dtype, p.dv_dtype};
  const bool two_terms = p.precision == INGOT_PRECISION_HIGH && alike && p.q_dtype == INGOT_F32;
  if (two_terms) dtypes.roundoff = 0x1p-16;
  const Dense q = t.q.dense(), k = t.k.dense(), v = t.v.dense(), dout = t.dout.dense();
  return Plain(p, dtypes, q, k, v, dout).run();
}

inline Outcome compare(ingot_context* context, const ingot_problem& p, const Operands& t) {
  Outcome outcome;
  const Reference want = reference(context, p, t, outcome);
  if (outcome.status != Status::passed) return outcome;
  const PlainResult measure = plain(p, t);
  Comparison(t.o, want.o, measure.o).run(outcome);
  Comparison(t.lse, want.lse, measure.lse).run(outcome);
  Comparison(t.dq, want.dq, measure.dq).run(outcome);
  Comparison(t.dk, want.dk, measure.dk).run(outcome);
  Comparison(t.dv, want.dv, measure.dv).run(outcome);
  return outcome;
}

/// Forward and backward of one case on one device. skipped: the device says it cannot run the
/// problem, and why.
inline Outcome run_case(ingot_context* context, const char* device, const Case& c) {
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(context, device, c.problem, outcome);
  if (plan == nullptr) return outcome;

  const Operands t(p, c.layout);
  fill(t, p, c);
  const Operand* const inputs[] = {&t.q, &t.k, &t.v, &t.dout};
  std::vector<std::vector<std::byte>> before;
  for (const Operand* input : inputs) before.push_back(input->buffer->bytes());

  outcome.message = run(plan.get(), t, c.name.size() % 2 == 0);
  std::vector<std::vector<const Operand*>> outputs = {{&t.o}, {&t.lse}, {&t.dq}, {&t.dk}, {&t.dv}};
  if (c.layout == Layout::packed_qkv) outputs = {{&t.o}, {&t.lse}, {&t.dq, &t.dk, &t.dv}};
  for (const auto& group : outputs) {
    if (outcome.message.empty()) outcome.message = check_written(group);
  }
  for (std::size_t i = 0; i < std::size(inputs); ++i) {
    if (outcome.message.empty() && inputs[i]->buffer->bytes() != before[i]) {
      outcome.message = std::string(inputs[i]->name) + ": an input was written to";
    }
  }
  if (!outcome.message.empty()) outcome.status = Status::failed;
  return outcome.status == Status::passed ? compare(context, p, t) : outcome;
}

}  // namespace ingot::conformance
