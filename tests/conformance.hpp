// Runs rows of cases.hpp on a device and holds the results against device "reference", by the
// contract of docs/numerics.md. Public API only; the tests and `ingot check` share it.
#pragma once

#include <cstdio>
#include <memory>

#include "operands.hpp"
#include "plain.hpp"

namespace ingot::conformance {

enum class Status { passed, failed, skipped };

struct Outcome {
  Status status = Status::passed;
  std::string message;  // one line; empty where passed
  double worst = 0;     // largest error as a part of what is allowed
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
  f.parts = t.parts.tensors();
  f.workspace = for_forward.data(), f.workspace_bytes = f.workspace != nullptr ? bytes[0] : 0;
  if (ingot_forward(plan, &f) != INGOT_OK) return std::string("forward: ") + ingot_last_error();
  if (!for_forward.intact())
    return "forward: wrote outside its workspace of " + std::to_string(bytes[0]) + " bytes";

  ingot_backward_args g;
  ingot_backward_args_init(&g);
  g.q = f.q, g.k = f.k, g.v = f.v, g.o = f.o, g.lse = f.lse, g.dout = t.dout.tensor();
  g.dq = t.dq.tensor(), g.dk = t.dk.tensor(), g.dv = t.dv.tensor();
  g.parts = f.parts, g.dbias = t.parts.dbias.tensor(), g.dsinks = t.parts.dsinks.tensor();
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

/// What the inputs of a call held.
class Inputs {
 public:
  explicit Inputs(const Operands& t) {
    const PartOperands& parts = t.parts;
    for (const Operand* x : {&t.q, &t.k, &t.v, &t.dout, &parts.slopes, &parts.bias, &parts.sinks}) {
      if (x->buffer != nullptr) before_.emplace_back(x, x->buffer->bytes());
    }
    if (parts.mask.bytes != nullptr) mask_ = {parts.mask.bytes, *parts.mask.bytes};
    if (parts.prefix_len != nullptr) prefix_len_ = {parts.prefix_len, *parts.prefix_len};
  }

  std::string check_unchanged() const {
    for (const auto& [input, bytes] : before_) {
      if (input->buffer->bytes() != bytes) return complaint(input->name);
    }
    if (mask_.now != nullptr && *mask_.now != mask_.before) return complaint("mask");
    if (prefix_len_.now != nullptr && *prefix_len_.now != prefix_len_.before)
      return complaint("prefix_len");
    return "";
  }

 private:
  template <class T>
  struct Kept {
    std::shared_ptr<std::vector<T>> now;
    std::vector<T> before;
  };
  static std::string complaint(const char* name) {
    return std::string(name) + ": an input was written to";
  }

  std::vector<std::pair<const Operand*, std::vector<std::byte>>> before_;
  Kept<std::uint8_t> mask_;
  Kept<std::int32_t> prefix_len_;
};

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
  Dense o, lse, dq, dk, dv, dbias, dsinks;
};

/// The answer, from device "reference" on the same input memory with outputs in F64; dbias, which
/// has no such dtype, in F32.
inline Reference reference(ingot_context* context, const ingot_problem& problem, const Operands& t,
                           Outcome& outcome) {
  ingot_problem p = problem;
  p.o_dtype = p.dq_dtype = p.dk_dtype = p.dv_dtype = INGOT_F64;
  if (p.bias_dtype != INGOT_DTYPE_DEFAULT) p.dbias_dtype = INGOT_F32;
  if (p.sinks_dtype != INGOT_DTYPE_DEFAULT) p.dsinks_dtype = INGOT_F64;
  Operands r(p, Layout::bhsd);
  r.q = t.q, r.k = t.k, r.v = t.v, r.dout = t.dout;
  const Operand dbias = r.parts.dbias, dsinks = r.parts.dsinks;
  r.parts = t.parts, r.parts.dbias = dbias, r.parts.dsinks = dsinks;
  const PlanHandle plan = make_plan(context, "reference", p, outcome);
  if (plan == nullptr) return {};
  outcome.message = run(plan.get(), r, false);
  if (!outcome.message.empty()) outcome.status = Status::failed;
  return {r.o.dense(),  r.lse.dense(), r.dq.dense(),  r.dk.dense(),
          r.dv.dense(), dbias.dense(), dsinks.dense()};
}

inline PlainResult plain(const ingot_problem& p, const Operands& t) {
  const bool alike = p.q_dtype == p.k_dtype && p.k_dtype == p.v_dtype;
  PlainDtypes dtypes{alike ? p.q_dtype : INGOT_F32,
                     p.o_dtype,
                     p.dq_dtype,
                     p.dk_dtype,
                     p.dv_dtype,
                     p.dbias_dtype,
                     p.dsinks_dtype};
  const bool two_terms = p.precision == INGOT_PRECISION_HIGH && alike && p.q_dtype == INGOT_F32;
  if (two_terms) dtypes.roundoff = 0x1p-16;
  const Dense q = t.q.dense(), k = t.k.dense(), v = t.v.dense(), dout = t.dout.dense();
  const PlainParts parts(p, t.parts);
  return Plain(p, dtypes, q, k, v, dout, parts).run();
}

inline Outcome compare(ingot_context* context, const ingot_problem& p, const Operands& t) {
  Outcome outcome;
  const Reference want = reference(context, p, t, outcome);
  if (outcome.status != Status::passed) return outcome;
  const PlainResult measure = plain(p, t);
  Comparison(t.o, want.o, measure.o).run(outcome);
  Comparison(t.lse, want.lse, measure.lse).run(outcome);
  const PartOperands& parts = t.parts;
  Comparison(t.dq, want.dq, measure.dq).run(outcome);
  Comparison(t.dk, want.dk, measure.dk).run(outcome);
  Comparison(t.dv, want.dv, measure.dv).run(outcome);
  if (p.bias_dtype != 0) Comparison(parts.dbias, want.dbias, measure.dbias).run(outcome);
  if (p.sinks_dtype != 0) Comparison(parts.dsinks, want.dsinks, measure.dsinks).run(outcome);
  return outcome;
}

/// Forward and backward of one case on one device. skipped: the device says it cannot run the
/// problem, and why.
inline Outcome run_case(ingot_context* context, const char* device, const Case& c) {
  const ingot_problem p = resolved(c.problem);
  Outcome outcome;
  const PlanHandle plan = make_plan(context, device, c.problem, outcome);
  if (plan == nullptr) return outcome;

  const Operands t(p, c.layout, c.parts);
  fill(t, p, c);
  const Inputs before(t);
  outcome.message = run(plan.get(), t, c.name.size() % 2 == 0);
  std::vector<std::vector<const Operand*>> outputs = {{&t.o}, {&t.lse}, {&t.dq}, {&t.dk}, {&t.dv}};
  if (c.layout == Layout::packed_qkv) outputs = {{&t.o}, {&t.lse}, {&t.dq, &t.dk, &t.dv}};
  for (const Operand* x : {&t.parts.dbias, &t.parts.dsinks}) {
    if (x->buffer != nullptr) outputs.push_back({x});
  }
  for (const auto& group : outputs) {
    if (outcome.message.empty()) outcome.message = check_written(group);
  }
  if (outcome.message.empty()) outcome.message = before.check_unchanged();
  if (!outcome.message.empty()) outcome.status = Status::failed;
  if (outcome.status != Status::passed) return outcome;
  return compare(context, p, t);
}

}  // namespace ingot::conformance
