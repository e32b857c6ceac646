#include "metal/metal_backend.hpp"

#include <utility>

#include "core/error.hpp"
#include "core/operands.hpp"
#include "metal/device/call.hpp"
#include "metal/metal_arguments.hpp"
#include "metal/metal_plan.hpp"
#include "metal/metal_program.hpp"

namespace ingot {
namespace metal {
namespace {

/// Buffer indices of every kernel; kernels/params.h.
enum Index : int {
  q = 1,
  k = 2,
  v = 3,
  o = 4,
  lse = 5,
  dout = 6,
  delta = 7,
  dq = 8,
  dk = 9,
  dv = 10,
  partial_o = 11,
  partial_sums = 12,
  first_part = 13,  // as in for_each_part_input
  dbias = 18,
  dsinks = 19,
};

View view_of(const Operand& x) { return {x.extent, x.stride, x.element_bytes}; }

View lse_view(const Problem& p, const Strides& stride) {
  return {{p.batch, p.num_heads, p.seqlen_q, 1}, stride, 4};
}

bool is_empty(const std::array<std::int64_t, 3>& grid) {
  return grid[0] == 0 || grid[1] == 0 || grid[2] == 0;
}

class MetalBackend final : public Backend {
 public:
  MetalBackend(NS::SharedPtr<MTL::Device> device, std::string name)
      : name_(std::move(name)), device_(std::move(device)) {}

  std::string name() const override { return name_; }

  std::string description() const override {
    const DeviceCaps& caps = device_.caps();
    std::string text = caps.chip + ", GPU family Apple " + std::to_string(caps.family);
    if (caps.cores > 0) text += ", up to " + std::to_string(caps.cores) + " cores";
    text += ", macOS " + std::to_string(caps.os_major) + "." + std::to_string(caps.os_minor);
#if defined(INGOT_METAL_IN_SOFTWARE)
    text += ", played in software by softmetal";
#endif
    const std::string not_kept = device_.why_not_kept();
    return text + (not_kept.empty() ? "" : ", " + not_kept);
  }

  Plan plan(const Problem& problem) const override {
    return plan_metal(problem, device_.caps(), name_);
  }

  std::string source(const Plan& plan, Pass pass) const override { return source_of(plan, pass); }

  void forward(const Plan& plan, const ForwardArgs& args) override {
    const AutoreleaseScope scope;
    Call call(device_, name_, args.submission);
    const auto& detail = dynamic_cast<const ForwardDetail&>(*plan.forward.detail);
    ForwardOperands x = operands_of(plan.problem, args);
    bind_in(call, q, "q", args.q, x.q);
    bind_in(call, k, "k", args.k, x.k);
    bind_in(call, v, "v", args.v, x.v);
    bind_out(call, o, "o", args.o, x.o);
    if (x.has_lse) {
      call.bind_output(lse, "lse", args.lse, lse_view(plan.problem, args.lse.stride));
    } else {
      call.bind_nothing(lse);
    }
    bind_parts(call, plan.problem, args.parts);
    bind_partials(call, plan.forward, args.workspace, detail);
    add(call, detail.main, specialise(detail.main.config, x),
        forward_params(plan.problem, args, detail), false);
    if (detail.combine) {
      add(call, *detail.combine, specialise(detail.combine->config, x),
          combine_params(plan.problem, args, detail), true);
    }
    call.submit();
  }

  void backward(const Plan& plan, const BackwardArgs& args) override {
    const AutoreleaseScope scope;
    Call call(device_, name_, args.submission);
    const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
    BackwardOperands x = operands_of(plan.problem, args);
    bind_inputs(call, args, plan.problem, x);
    bind_parts(call, plan.problem, args.parts);
    call.take_workspace(args.workspace, plan.backward.workspace_bytes);
    call.bind_workspace(delta, 0);
    bind_gradient(call, dq, "dq", args.dq, x.dq);
    bind_gradient(call, dk, "dk", args.dk, x.dk);
    bind_gradient(call, dv, "dv", args.dv, x.dv);
    const BackwardParams params = backward_params(plan.problem, args);
    add(call, detail.delta, specialise(detail.delta.config, x), params, false);
    const bool rows = args.dq.data != nullptr && !is_empty(detail.dq.grid);
    const bool keys = args.dk.data != nullptr || args.dv.data != nullptr;
    if (rows) add(call, detail.dq, specialise(detail.dq.config, x), params, true);
    // Where dq runs, it has waited for delta; these two can run at the same time.
    if (keys) add(call, detail.dkv, specialise(detail.dkv.config, x), params, !rows);
    bool waits = !rows && !keys;
    if (args.dbias.data != nullptr) {
      bind_part(call, dbias, "dbias", args.dbias, plan.problem.parts.bias_shape,
                plan.problem.parts.dbias_dtype);
      add(call, *detail.dbias, specialise(detail.dbias->config, x), params, waits);
      waits = false;
    }
    if (args.dsinks.data != nullptr) {
      bind_part(call, dsinks, "dsinks", args.dsinks, sinks_shape(plan.problem),
                plan.problem.parts.dsinks_dtype);
      add(call, *detail.dsinks, detail.dsinks->config, params, waits);
    }
    call.submit();
  }

 private:
  static void bind_in(Call& call, int index, const char* argument, const ConstTensor& tensor,
                      Operand& x) {
    call.bind_input(index, argument, tensor, view_of(x));
    x.address = call.address(index);
  }

  static void bind_out(Call& call, int index, const char* argument, const Tensor& tensor,
                       Operand& x) {
    call.bind_output(index, argument, tensor, view_of(x));
    x.address = call.address(index);
  }

  void bind_parts(Call& call, const Problem& problem, const PartInputs& inputs) const {
    if (inputs.dropout_state != nullptr) {
      throw Error(Code::invalid_argument, "dropout_state: must be NULL, device " + name_ +
                                              " takes dropout_seed and dropout_offset");
    }
    int index = first_part;
    for_each_part_input(problem, inputs, [&](const OperandInfo& info, const ConstTensor& tensor) {
      if (info.is_on) {
        call.bind_input(index, info.name, tensor,
                        {info.shape, tensor.stride, size_bytes(info.dtype)});
      } else {
        call.bind_unread(index);
      }
      ++index;
    });
  }

  static void bind_part(Call& call, int index, const char* argument, const Tensor& tensor,
                        const Shape& shape, Dtype dtype) {
    call.bind_output(index, argument, tensor, {shape, tensor.stride, size_bytes(dtype)});
  }

  static void bind_inputs(Call& call, const BackwardArgs& args, const Problem& problem,
                          BackwardOperands& x) {
    bind_in(call, q, "q", args.q, x.q);
    bind_in(call, k, "k", args.k, x.k);
    bind_in(call, v, "v", args.v, x.v);
    bind_in(call, o, "o", args.o, x.o);
    bind_in(call, dout, "dout", args.dout, x.dout);
    call.bind_input(lse, "lse", args.lse, lse_view(problem, args.lse.stride));
  }

  static void bind_gradient(Call& call, int index, const char* argument, const Tensor& tensor,
                            Operand& x) {
    if (tensor.data != nullptr) return bind_out(call, index, argument, tensor, x);
    x = {};  // its layout has no say in what is compiled
    call.bind_nothing(index);
  }

  static void bind_partials(Call& call, const PassPlan& pass, std::span<std::byte> workspace,
                            const ForwardDetail& detail) {
    if (!detail.combine) return;
    call.take_workspace(workspace, pass.workspace_bytes);
    call.bind_workspace(partial_o, 0);
    call.bind_workspace(partial_sums, detail.partial_sums_at);
  }

  template <class Params>
  void add(Call& call, const Launch& launch, const Config& config, const Params& params,
           bool waits) {
    if (is_empty(launch.grid)) return;
    Dispatch dispatch;
    dispatch.pipeline = device_.pipeline(kernel_key(config), [&] {
      return KernelText{kernel_path(config), std::string(config.kernel), kernel_source(config),
                        launch.threads, 0};
    });
    const auto bytes = std::as_bytes(std::span(&params, 1));
    dispatch.params.assign(bytes.begin(), bytes.end());
    dispatch.grid = launch.grid;
    dispatch.threads = launch.threads;
    dispatch.waits = waits;
    call.add(std::move(dispatch));
  }

  const std::string name_;
  Device device_;
};

}  // namespace
}  // namespace metal

std::vector<std::unique_ptr<Backend>> make_metal_backends() {
  const metal::AutoreleaseScope scope;
  std::vector<std::unique_ptr<Backend>> backends;
  if (auto device = metal::usable_device()) {
    backends.push_back(std::make_unique<metal::MetalBackend>(std::move(device), "metal:0"));
  }
  return backends;
}

}  // namespace ingot
