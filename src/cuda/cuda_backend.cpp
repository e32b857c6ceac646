#include "cuda/cuda_backend.hpp"

#include <functional>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "core/kernel_cache.hpp"
#include "cuda/cuda_device.hpp"
#include "cuda/cuda_event.hpp"
#include "cuda/cuda_plan.hpp"
#include "cuda/cuda_program.hpp"
#include "cuda/launch.hpp"
#include "cuda/operands.hpp"

namespace ingot {
namespace cuda {
namespace {

[[noreturn]] void refuse(const std::string& text) { throw Error(Code::invalid_argument, text); }

/// The caller's workspace, or memory for the work that is enqueued now.
class Workspace {
 public:
  Workspace(const Device& device, std::span<std::byte> given, std::size_t bytes,
            StreamHandle stream)
      : data_(given.data()) {
    if (data_ != nullptr || bytes == 0) return;
    own_.emplace(device, bytes, stream);
    data_ = own_->data();
  }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_;
  std::optional<Device::StreamMemory> own_;
};

class CudaBackend final : public Backend {
 public:
  CudaBackend(std::shared_ptr<const Driver> driver, std::shared_ptr<Compiler> compiler, int ordinal)
      : compiler_(std::move(compiler)), device_(std::move(driver), ordinal) {}

  std::string name() const override { return "cuda:" + std::to_string(device_.ordinal()); }

  std::string description() const override {
    const DeviceCaps& caps = device_.caps();
    const int version = device_.driver().version;
    const std::string not_kept = compiler_->why_not_kept();
    return caps.name + ", compute capability " + std::to_string(caps.sm / 10) + "." +
           std::to_string(caps.sm % 10) + ", " + std::to_string(caps.sm_count) +
           " multiprocessors, " + std::to_string(caps.memory_bytes >> 30) +
           " GiB, driver of CUDA " + std::to_string(version / 1000) + "." +
           std::to_string(version % 1000 / 10) + (not_kept.empty() ? "" : ", " + not_kept);
  }

  Plan plan(const Problem& problem) const override {
    return plan_cuda(problem, device_.caps(), name(), tuned_);
  }

  std::string source(const Plan& plan, Pass pass) const override {
    const PassPlan& chosen = pass == Pass::forward ? plan.forward : plan.backward;
    std::string text;
    for (const KernelPlan& kernel : chosen.kernels) text += kernel_source(kernel);
    return text;
  }

  void forward(const Plan& plan, const ForwardArgs& args) override { run(plan, args); }
  void backward(const Plan& plan, const BackwardArgs& args) override { run(plan, args); }

 private:
  void check_submission(const Submission& submission) const {
    if (submission.encoder != nullptr) {
      refuse("submission.encoder: must be NULL, device " + name() + " has streams");
    }
    if (submission.memory != Memory::address) {
      refuse("submission.memory: must be INGOT_MEMORY_ADDRESS for device " + name());
    }
  }

  void check_dropout_state(const std::uint64_t* state) const {
    if (state != nullptr && device_.place_of(state, "dropout_state") != Place::device) {
      refuse("dropout_state: must lie in memory of device " + name() +
             ", lies in host memory: those are dropout_seed and dropout_offset");
    }
  }

  template <class Args>
  void run(const Plan& plan, const Args& args) {
    check_submission(args.submission);
    device_.faults().report();
    Args on_device = args;
    const OperandList operands = operands_of(plan.problem, on_device);
    check_dropout_state(args.parts.dropout_state);
    if (common_place(device_, operands) == Place::device) {
      run_on_device(plan, on_device);
    } else {
      run_from_host(plan, operands, on_device);
    }
  }

  template <class Args>
  void run_on_device(const Plan& plan, const Args& args) {
    const Device::Current current(device_);
    auto* const stream = static_cast<StreamHandle>(args.submission.stream);
    if (args.submission.event == nullptr) return enqueue(plan, args, stream);
    if (device_.is_capturing(stream)) {
      refuse("submission.event: must be NULL while the stream is captured");
    }
    auto event = std::make_unique<DeviceEvent>(device_, stream);
    event->marks().begin();
    enqueue(plan, args, stream);
    event->marks().end();
    *args.submission.event = std::move(event);
  }

  template <class Args>
  void run_from_host(const Plan& plan, std::span<const Operand> operands, Args& args) {
    if (args.submission.stream != nullptr) {
      refuse("submission.stream: must be NULL with tensors in host memory");
    }
    args.workspace = {};  // in host memory too, and of no use to kernels
    auto event = std::make_unique<HostEvent>(device_);
    {
      const Device::Current current(device_, true);
      copy_in(operands, event->tensors());
      event->marks().begin();  // the time of a call is that of its kernels
      enqueue(plan, args, event->stream());
      event->marks().end();
    }
    if (args.submission.event == nullptr) return event->wait();
    *args.submission.event = std::move(event);
  }

  void enqueue(const Plan& plan, const ForwardArgs& args, StreamHandle stream) {
    const auto& detail = dynamic_cast<const ForwardDetail&>(*plan.forward.detail);
    if (!detail.any) return;  // o has no element
    const ForwardCall call{plan.problem, detail, args, stream, tickets_};
    const bool needs_memory = !detail.fast || detail.fast->split;
    const Workspace workspace(device_, args.workspace,
                              needs_memory ? plan.forward.workspace_bytes : 0, stream);
    if (detail.fast && launch_sm90(device_, call, workspace.data(), loader_)) return;
    if (needs_memory) return launch_mma(device_, call, workspace.data(), loader_);
    const Workspace late(device_, args.workspace, plan.forward.workspace_bytes, stream);
    launch_mma(device_, call, late.data(), loader_);
  }

  void enqueue(const Plan& plan, const BackwardArgs& args, StreamHandle stream) {
    const auto& detail = dynamic_cast<const BackwardDetail&>(*plan.backward.detail);
    const Workspace workspace(device_, args.workspace, plan.backward.workspace_bytes, stream);
    const BackwardCall call{plan.problem, detail, args, stream};
    if (launch_hopper_backward(device_, call, workspace.data(), loader_)) return;
    launch_mma_backward(device_, call, workspace.data(), loader_);
  }

  const LoadedKernel& loaded(const Step& step) {
    if (const LoadedKernel* ready = step.loaded->load(std::memory_order_acquire)) return *ready;
    const std::string source = kernel_source(step.kernel);
    const auto kernel = kernels_.get(source, [&] {
      const std::vector<std::byte> cubin = compiler_->compile(source, step.config.arch);
      return device_.load(cubin, step.kernel.file, step.launch.shared_bytes);
    });
    step.loaded->store(kernel.get(), std::memory_order_release);
    return *kernel;
  }

  std::shared_ptr<Compiler> compiler_;
  Device device_;
  Tickets tickets_{device_};
  const TunedTable tuned_ = TunedTable::load(device_.caps().name);
  KernelCache<LoadedKernel> kernels_;  ///< keeps what plans point at
  const Loader loader_ = [this](const Step& step) -> const LoadedKernel& { return loaded(step); };
};

}  // namespace
}  // namespace cuda

std::vector<std::unique_ptr<Backend>> make_cuda_backends() {
  std::vector<std::unique_ptr<Backend>> backends;
  const cuda::DriverResult opened = cuda::open_driver();
  if (opened.driver == nullptr) return backends;
  int count = 0;
  opened.driver->check(opened.driver->cuDeviceGetCount(&count), "cuDeviceGetCount");
  const auto compiler = std::make_shared<cuda::Compiler>(opened.driver->version);
  for (int i = 0; i < count; ++i) {
    backends.push_back(std::make_unique<cuda::CudaBackend>(opened.driver, compiler, i));
  }
  return backends;
}

std::string cuda_absence() { return cuda::open_driver().reason; }

}  // namespace ingot
