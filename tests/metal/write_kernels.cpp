// write_kernels FOLDER: the texts of the kernels that the tuning tables lead to, one file each, for
// tools that read MSL (softmetal-lint).
#include <filesystem>
#include <fstream>
#include <iostream>
#include <set>
#include <string>

#include "core/source.hpp"
#include "metal/metal_plan.hpp"
#include "metal/metal_program.hpp"

namespace ingot::metal {
namespace {

Problem problem_of(std::int64_t head_dim, Dtype dtype, bool few_rows, bool variants) {
  Problem p;
  p.batch = 1;
  p.num_heads = 4;
  p.num_heads_kv = 2;
  p.seqlen_q = few_rows ? 1 : 300;
  p.seqlen_k = few_rows ? 8192 : 300;
  p.head_dim = head_dim;
  p.head_dim_v = variants ? head_dim + 4 : head_dim;
  p.q = p.k = p.v = p.o = p.dout = p.dq = p.dk = p.dv = dtype;
  p.causal = variants ? Causal::bottom_right : Causal::none;
  p.softcap = variants ? 20.0F : 0.0F;
  return p;
}

/// With all parts on, or with those alone that leave scores as they are.
Problem with_parts(Problem p, bool all) {
  p.parts.mask = true;
  p.parts.dropout = 0.25F;
  if (!all) return p;
  p.parts.alibi = p.parts.bias = p.parts.sinks = p.parts.prefix = true;
  p.parts.bias_shape = {1, p.num_heads, p.seqlen_q, p.seqlen_k};
  p.parts.bias_dtype = p.parts.dbias_dtype = p.q;
  p.parts.sinks_dtype = p.parts.dsinks_dtype = p.q;
  return p;
}

/// The Config of a kernel and the same for the most awkward layout.
std::vector<Config> layouts_of(const Launch& launch) {
  Config awkward = launch.config;
  awkward.q_strided = awkward.k_strided = awkward.v_strided = awkward.o_strided = true;
  awkward.dout_strided = awkward.dq_strided = awkward.dk_strided = awkward.dv_strided = true;
  awkward.has_lse = false;
  awkward.unit_bytes = 2;
  return {launch.config, awkward};
}

class Writer {
 public:
  explicit Writer(std::filesystem::path folder) : folder_(std::move(folder)) {}

  void add(const Launch& launch) {
    for (const Config& config : layouts_of(launch)) {
      if (!seen_.insert(kernel_key(config)).second) continue;
      const std::string name = std::string(config.kernel) + "-" + std::string(config.family) +
                               "-d" + std::to_string(config.head_dim) + "-" +
                               std::to_string(seen_.size()) + ".metal";
      std::ofstream(folder_ / name) << kernel_source(config);
    }
  }
  std::size_t count() const { return seen_.size(); }

 private:
  std::filesystem::path folder_;
  std::set<std::string> seen_;
};

void add_all(Writer& writer, const DeviceCaps& caps, const Problem& problem) {
  const Plan plan = plan_metal(problem, caps, "metal:0");
  const auto& forward = dynamic_cast<const ForwardDetail&>(*plan.forward.detail);
  const auto& backward = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
  writer.add(forward.main);
  if (forward.combine) writer.add(*forward.combine);
  for (const Launch* launch : {&backward.delta, &backward.dq, &backward.dkv}) writer.add(*launch);
  for (const std::optional<Launch>* launch : {&backward.dbias, &backward.dsinks}) {
    if (launch->has_value()) writer.add(**launch);
  }
}

int write_kernels(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  Writer writer(folder);
  std::set<int> families;
  for (const DeviceCaps& caps : known_devices()) {
    if (!families.insert(caps.family).second) continue;
    for (const std::int64_t head_dim : {20, 64, 96, 128, 256, 512}) {
      for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
        const bool variants = head_dim % 64 == 0 && dtype != Dtype::f16;
        const Problem problem = problem_of(head_dim, dtype, dtype == Dtype::bf16, variants);
        add_all(writer, caps, problem);
        if (head_dim % 64 == 0) add_all(writer, caps, with_parts(problem, head_dim != 128));
      }
    }
  }
  std::cout << writer.count() << " kernels\n";
  return 0;
}

}  // namespace
}  // namespace ingot::metal

int main(int count, char** arguments) {
  if (count == 2) return ingot::metal::write_kernels(arguments[1]);
  std::cerr << "usage: write_kernels FOLDER\n";
  return 2;
}
