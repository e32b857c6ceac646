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

/// The last two are those of masks and lengths; a caller cannot say them.
enum class Dtype : std::int32_t { f32 = 1, f16 = 2, bf16 = 3, f64 = 4, u8 = 256, i32 = 257 };
enum class Causal : std::int32_t { none = 0, top_left = 1, bottom_right = 2 };
enum class Precision : std::int32_t { highest = 0, high = 1 };
enum class Pass : std::int32_t { forward = 0, backward = 1 };

std::string_view name(Dtype dtype);
std::string_view name(Causal causal);
std::string_view name(Precision precision);
std::int64_t size_bytes(Dtype dtype);

/// Sizes of a tensor, [batch, head, row, col].
using Shape = std::array<std::int64_t, 4>;

/// The parts of attention that a problem turns on and that have tensors of their own
/// (PartInputs). Their order and meaning: ingot_problem in ingot.h.
struct Parts {
  bool alibi = false, mask = false, prefix = false, bias = false, sinks = false;
  Dtype bias_dtype = Dtype::f32, dbias_dtype = Dtype::f32;
  Dtype sinks_dtype = Dtype::f32, dsinks_dtype = Dtype::f32;
  Shape bias_shape{};  ///< every extent 1 or the problem's; looked at if bias is on
  float dropout = 0.0F;

  bool any() const { return alibi || mask || prefix || bias || sinks || dropout > 0.0F; }
  bool operator==(const Parts&) const = default;
};

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
  Parts parts{};

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

/// Inputs of Parts; data of a part that is off is null. See ingot_part_tensors.
struct PartInputs {
  ConstTensor alibi_slopes, bias, mask, sinks, prefix_len;
  std::uint64_t dropout_seed = 0, dropout_offset = 0;
  const std::uint64_t* dropout_state = nullptr;
};

struct ForwardArgs {
  ConstTensor q, k, v;
  Tensor o, lse;                   ///< lse: f32, data null where not wanted
  std::span<std::byte> workspace;  ///< empty: the back end's own
  Submission submission;
  PartInputs parts{};
};

struct BackwardArgs {
  ConstTensor q, k, v, o, lse, dout;
  Tensor dq, dk, dv;  ///< data null where not wanted
  std::span<std::byte> workspace;
  Submission submission;
  PartInputs parts{};
  Tensor dbias{}, dsinks{};  ///< data null where not wanted
};

/// Of the forward pass without a mask: a measure of how long a call takes.
double multiply_adds(const Problem& problem);

[[noreturn]] void throw_cancelled();

/// Throws Error(cancelled) if the caller has asked for it. A load and a branch: every back end that
/// looks at it does so once a tile, so that no length of a sequence delays the answer.
inline void throw_if_cancelled(const Submission& submission) {
  if (submission.cancel != nullptr && __atomic_load_n(submission.cancel, __ATOMIC_RELAXED) != 0) {
    throw_cancelled();
  }
}

/// The parts that are on, for sentences: "alibi, bias".
std::string names_of(const Parts& parts);

/// Throws Error(invalid_argument) with the argument, the rule and the value.
void validate(const Problem& problem);
void validate(const Problem& problem, const ForwardArgs& args, std::size_t workspace_needed);
void validate(const Problem& problem, const BackwardArgs& args, std::size_t workspace_needed);

/// What a back end gets of arguments that are valid: strides of dimensions of extent 1, and of
/// tensors without elements, are 0 (of head_dim: 1), so that no arithmetic meets what the caller
/// left there.
ForwardArgs settled(const Problem& problem, ForwardArgs args);
BackwardArgs settled(const Problem& problem, BackwardArgs args);

}  // namespace ingot
