// Problems that are timed: names, random operands, work and traffic, and the measurement itself.
#pragma once

#include <functional>
#include <ingot/ingot.hpp>
#include <string>
#include <vector>

#include "array.hpp"

namespace ingot::cli {

struct Workload {
  std::string label;  ///< "llama3-8b 1x32/8x1024x128 causal bf16 forward"
  std::string shape;  ///< the label without dtype and pass
  Problem problem;
  ingot_pass pass = INGOT_FORWARD;
};

/// 1x8x2048x{64,80,128,256}, an encoder, decoding, and a tiny one, in f32, f16 and bf16, both
/// passes.
std::vector<Workload> standard_workloads();
/// Shapes of well-known models, forward. `scale_down` divides sequence lengths.
std::vector<Workload> model_workloads(Dtype dtype, std::int64_t scale_down = 1);

/// Floating-point operations of the products, 2 (D + Dv) or 2 (3 D + 2 Dv) a pair; a causal mask
/// counts half.
double flops(const Workload& workload);
/// Instructions a pair by the formulas of metal-flash-attention, 2D+5 forward and 7D+10 backward;
/// causal counts half.
double instructions(const Workload& workload);
/// Bytes of all inputs and outputs, each once; of the parts, those of bias, dbias and mask.
double traffic_bytes(const Workload& workload);

/// A packed array [batch, heads, seqlen, dim] of the workload's dtype, of random normal numbers.
Array normal_array(const Workload& workload, std::int64_t heads, std::int64_t seqlen,
                   std::int64_t dim, unsigned seed);

/// Random normal inputs, and outputs, of one workload: on the host, or in the memory of the device
/// where that has its own.
class Operands {
 public:
  explicit Operands(const Workload& workload, const std::string& device = "cpu");
  /// One call of the pass. Backward needs a forward call before its first.
  void run(const Plan& plan, ingot_pass pass);
  /// The same without waiting. The event is the caller's, to wait for and to destroy.
  ingot_event* submit(const Plan& plan, ingot_pass pass);

 private:
  Tensor place(Array array, const std::string& device);
  PartTensors make_parts(const Workload& workload, const std::string& device);

  ForwardArgs forward_;
  BackwardArgs backward_;
  std::vector<Array> arrays_;
};

/// Milliseconds of one run each.
struct Spread {
  double median = 0, p10 = 0, p90 = 0;
  std::size_t runs = 0;
};

/// Runs f once to warm up, then for about `seconds` and at least three times.
Spread measure(double seconds, const std::function<void()>& f);

/// Measures the workload on a plan made for it and for `device`: by the processor's clock, or by
/// the device's own where it has its own memory.
Spread measure(const Plan& plan, const Workload& workload, double seconds,
               const std::string& device = "cpu");

}  // namespace ingot::cli
