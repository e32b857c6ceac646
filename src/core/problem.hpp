// What the caller asks for: Problem (sizes, dtypes, variant) and the tensors of one call.
// Aggregates without behaviour.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace ingot {

enum class Dtype : std::int32_t { f32 = 1, f16 = 2, bf16 = 3, f64 = 4 };
enum class Causal : std::int32_t { none = 0, top_left = 1, bottom_right = 2 };
enum class Precision : std::int32_t { highest = 0, high = 1 };
enum class Pass : std::int32_t { forward = 0, backward = 1 };

std::string_view name(Dtype dtype);
std::string_view name(Causal causal);
std::string_view name(Precision precision);
std::int64_t size_bytes(Dtype dtype);

/// Sizes in elements; see ingot_problem in ingot.h for the meaning of every field. Defaults are
/// resolved here: no dtype is "default", scale is the number used, softcap 0 means none, windows
/// are -1 or a bound.
struct Problem {
  std::int64_t batch = 1, num_heads = 1, num_heads_kv = 1;
  std::int64_t seqlen_q = 0, seqlen_k = 0, head_dim = 0, head_dim_v = 0;
  Dtype q = Dtype::f32, k = Dtype::f32, v = Dtype::f32, o = Dtype::f32;
  Dtype dout = Dtype::f32, dq = Dtype::f32, dk = Dtype::f32, dv = Dtype::f32;
  Causal causal = Causal::none;
  std::int64_t window_left = -1, window_right = -1;
  float scale = 1.0F;
  float softcap = 0.0F;
  Precision precision = Precision::highest;
  std::int64_t workspace_limit = std::int64_t{5} << 28;

  bool operator==(const Problem&) const = default;
};

/// Strides in elements of [batch, head, seqlen, head_dim].
using Strides = std::array<std::int64_t, 4>;

struct ConstTensor {
  const void* data = nullptr;
  Strides stride{};
};

struct Tensor {
  void* data = nullptr;
  Strides stride{};

  operator ConstTensor() const { return {data, stride}; }  // NOLINT(google-explicit-constructor)
};

/// The end of one asynchronous call.
class Event {
 public:
  virtual ~Event() = default;
  virtual bool done() = 0;       ///< looks, without waiting
  virtual void wait() = 0;       ///< returns when the results are there; throws what went wrong
  virtual double seconds() = 0;  ///< on the device, after wait(); 0 where it has no clock
};

/// What `data` of every tensor is; values equal ingot_memory of ingot.h.
enum class Memory : std::int32_t { address = 0, metal_slice = 1 };

/// Where a call runs. All null: on the back end's own queue, and the results are there on return
/// (but CUDA with tensors in device memory: queued on the default stream).
struct Submission {
  void* stream = nullptr;                   ///< CUstream, or MTLCommandBuffer (not committed here)
  void* encoder = nullptr;                  ///< MTLComputeCommandEncoder (not ended here)
  std::unique_ptr<Event>* event = nullptr;  ///< wanted: do not wait, make this
  const std::int32_t* cancel = nullptr;     ///< nonzero: end early with Error(cancelled)
  Memory memory = Memory::address;
};

struct ForwardArgs {
  ConstTensor q, k, v;
  Tensor o, lse;                   ///< lse: f32, data null where not wanted
  std::span<std::byte> workspace;  ///< empty: the back end's own
  Submission submission;
};

struct BackwardArgs {
  ConstTensor q, k, v, o, lse, dout;
  Tensor dq, dk, dv;  ///< data null where not wanted
  std::span<std::byte> workspace;
  Submission submission;
};

/// Of the forward pass without a mask: a measure of how long a call takes.
double multiply_adds(const Problem& problem);

/// Throws Error(cancelled) where the caller has asked for it. Cheap: once a unit of work.
void throw_if_cancelled(const Submission& submission);

/// Throws Error(invalid_argument) with the argument, the rule and the value.
void validate(const Problem& problem);
void validate(const Problem& problem, const ForwardArgs& args, std::size_t workspace_needed);
void validate(const Problem& problem, const BackwardArgs& args, std::size_t workspace_needed);

}  // namespace ingot
