#include "pipeline.hpp"

#include <algorithm>
#include <sstream>

#include "block.hpp"
#include "inject.hpp"
#include "lifetime.hpp"
#include "runtime.hpp"
#include "serial_thread.hpp"

namespace softmetal {
namespace {

constexpr std::int64_t error_internal = 2;
constexpr std::int64_t error_compile_failure = 3;

struct Built {
  Ref<ComputePipeline> pipeline;
  Ref<Error> error;
};

Built failed(std::int64_t code, const std::string& what) {
  return {nullptr, make_error(library_error_domain, code, what)};
}

bool checks_wanted() { return environment_choice("SOFTMETAL_CHECKS", {"on", "off"}) == "on"; }

bool in_archives(const PipelineDescriptor& descriptor) {
  if (descriptor.archives) {
    for (const Ref<Object>& item : descriptor.archives->items()) {
      const auto* archive = dynamic_cast<const BinaryArchive*>(item.get());
      if (archive != nullptr && archive->contains(*descriptor.function)) {
        return true;
      }
    }
  }
  return false;
}

// A real compiler allows fewer threads to kernels that use many registers.
// SOFTMETAL_PIPELINE_THREADS is a limit, or "vary": one that differs from kernel to kernel but not
// from run to run.
std::uint64_t thread_limit(const Function& function, std::uint64_t declared) {
  const std::string wanted = environment("SOFTMETAL_PIPELINE_THREADS", "");
  if (wanted.empty() || declared < max_threads_per_threadgroup) {
    return declared;
  }
  if (wanted == "vary") {
    return 32 * (8 + std::hash<std::string>()(function.identity()) % 24);
  }
  return std::clamp<std::uint64_t>(environment_number("SOFTMETAL_PIPELINE_THREADS", declared), 32,
                                   declared);
}

Built build(const PipelineDescriptor& descriptor, std::uint64_t options) {
  if (!descriptor.function) {
    error("null-argument", text(current_message(), ": there is no compute function"));
    return failed(error_internal, "there is no compute function");
  }
  const Function& function = *descriptor.function;
  if (fails_now(Failure::pipeline_failure)) {
    return failed(error_internal, "injected pipeline failure");
  }
  if ((options & fail_on_archive_miss) != 0 && !in_archives(descriptor)) {
    return failed(error_internal, text("no archive holds function '", function.name(), "'"));
  }
  try {
    auto code = function.library().code().specialise(function.name(), function.constants(),
                                                     checks_wanted());
    const std::uint64_t limit = code->max_total_threads_per_threadgroup();
    if (descriptor.max_total_threads > limit) {
      return failed(error_internal,
                    text("function '", function.name(), "': maxTotalThreadsPerThreadgroup ",
                         descriptor.max_total_threads, " is over the limit ", limit));
    }
    return {make<ComputePipeline>(descriptor.function, std::move(code), descriptor), nullptr};
  } catch (const msl::CompileError& failure) {
    return failed(error_compile_failure, failure.what());
  } catch (const std::exception& failure) {
    return failed(error_internal, failure.what());
  }
}

Ref<PipelineDescriptor> descriptor_of(Function* function) {
  Ref<PipelineDescriptor> descriptor = make<PipelineDescriptor>();
  descriptor->function = function;
  return descriptor;
}

Ref<ComputePipeline> finish(Built built, void* reflection, ErrorSlot error) {
  if (reflection != nullptr && built.pipeline) {
    *static_cast<Reflection**>(reflection) = autoreleased(built.pipeline->reflection());
  }
  error.set(std::move(built.error));
  return std::move(built.pipeline);
}

Ref<ComputePipeline> from_function(Device&, Function* function, ErrorSlot error) {
  return finish(build(*descriptor_of(function), 0), nullptr, error);
}

Ref<ComputePipeline> from_function_reflected(Device&, Function* function, std::uint64_t options,
                                             void* reflection, ErrorSlot error) {
  return finish(build(*descriptor_of(function), options), reflection, error);
}

Ref<ComputePipeline> from_descriptor(Device&, PipelineDescriptor* descriptor, std::uint64_t options,
                                     void* reflection, ErrorSlot error) {
  if (descriptor == nullptr) {
    softmetal::error("null-argument", text(current_message(), ": the descriptor must not be nil"));
    return nullptr;
  }
  return finish(build(*descriptor, options), reflection, error);
}

// Both kinds of handler: (pipeline, error) and (pipeline, reflection, error).
void build_later(Ref<PipelineDescriptor> descriptor, std::uint64_t options,
                 std::function<void(Built)> handler) {
  run_in_background([descriptor = std::move(descriptor), options, handler = std::move(handler)] {
    const PoolScope pool;
    handler(build(*descriptor, options));
  });
}

void from_function_later(Device&, Function* function, Block<void*, void*> handler) {
  build_later(descriptor_of(function), 0, [handler = std::move(handler)](Built built) {
    handler(autoreleased(std::move(built.pipeline)), autoreleased(std::move(built.error)));
  });
}

std::function<void(Built)> reflecting(Block<void*, void*, void*> handler) {
  return [handler = std::move(handler)](Built built) {
    Ref<Reflection> reflection = built.pipeline ? built.pipeline->reflection() : nullptr;
    handler(autoreleased(std::move(built.pipeline)), autoreleased(std::move(reflection)),
            autoreleased(std::move(built.error)));
  };
}

void from_function_reflected_later(Device&, Function* function, std::uint64_t options,
                                   Block<void*, void*, void*> handler) {
  build_later(descriptor_of(function), options, reflecting(std::move(handler)));
}

void from_descriptor_later(Device&, PipelineDescriptor* descriptor, std::uint64_t options,
                           Block<void*, void*, void*> handler) {
  build_later(descriptor, options, reflecting(std::move(handler)));
}

// "float" of "device const float*".
std::string pointee_name(std::string type) {
  std::replace_if(type.begin(), type.end(), [](char c) { return c == '*' || c == '&'; }, ' ');
  std::istringstream words(type);
  std::string name;
  for (std::string word; words >> word;) {
    if (word != "device" && word != "constant" && word != "threadgroup" && word != "const" &&
        word != "volatile" && word != "restrict") {
      name = word.starts_with("metal::") ? word.substr(7) : word;
    }
  }
  return name;
}

void define_reflection() {
  Definition<Binding>("MTLBinding", class_of<Object>)
      .method<&Binding::name>("name")
      .method<&Binding::type>("type")
      .method<&Binding::access>("access")
      .method<&Binding::index>("index")
      .method<&Binding::used>("isUsed", {13, 0})
      .method<&Binding::yes>("isArgument", {13, 0})
      .method<&Binding::used>("isActive")
      .method<&Binding::alignment>("bufferAlignment")
      .method<&Binding::size>("bufferDataSize")
      .method<&Binding::data_type>("bufferDataType")
      .method<&Binding::alignment>("threadgroupMemoryAlignment")
      .method<&Binding::size>("threadgroupMemoryDataSize");
  Definition<Reflection>("MTLComputePipelineReflection", class_of<Object>)
      .method<&Reflection::bindings>("bindings", {13, 0})
      .method<&Reflection::bindings>("arguments");
}

void define_descriptor() {
  using D = PipelineDescriptor;
  Definition<D>("MTLComputePipelineDescriptor", class_of<Object>)
      .allocatable()
      .method<&D::reset>("reset")
      .property<&D::function>("computeFunction")
      .property<&D::label>("label")
      .property<&D::archives>("binaryArchives", {11, 0})
      .property<&D::linked_functions>("linkedFunctions", {11, 0})
      .property<&D::preloaded_libraries>("preloadedLibraries", {12, 0})
      .property<&D::whole_simdgroups>("threadGroupSizeIsMultipleOfThreadExecutionWidth")
      .property<&D::indirect_command_buffers>("supportIndirectCommandBuffers", {11, 0})
      .property<&D::adding_binary_functions>("supportAddingBinaryFunctions", {11, 0})
      .property<&D::max_total_threads>("maxTotalThreadsPerThreadgroup", {10, 14})
      .property<&D::max_call_stack_depth>("maxCallStackDepth", {11, 0})
      .property<&D::shader_validation>("shaderValidation", {15, 0})
      .property<&D::required_threads>("requiredThreadsPerThreadgroup", {26, 0});
}

}  // namespace

Ref<Object> PipelineDescriptor::copy() {
  Ref<PipelineDescriptor> twin = make<PipelineDescriptor>();
  twin->function = function;
  twin->label = label;
  twin->archives = archives;
  twin->whole_simdgroups = whole_simdgroups;
  twin->indirect_command_buffers = indirect_command_buffers;
  twin->max_total_threads = max_total_threads;
  twin->required_threads = required_threads;
  return twin;
}

void PipelineDescriptor::reset() {
  function = nullptr;
  label = nullptr;
  archives = nullptr;
  whole_simdgroups = false;
  indirect_command_buffers = false;
  max_total_threads = 0;
  required_threads = {};
}

ComputePipeline::ComputePipeline(Ref<Function> function, std::shared_ptr<const msl::Pipeline> code,
                                 const PipelineDescriptor& descriptor)
    : function_(std::move(function)),
      code_(std::move(code)),
      label_(descriptor.label),
      max_threads_(thread_limit(*function_, code_->max_total_threads_per_threadgroup())),
      whole_simdgroups_(descriptor.whole_simdgroups),
      indirect_command_buffers_(descriptor.indirect_command_buffers),
      required_threads_(descriptor.required_threads) {
  if (descriptor.max_total_threads != 0) {
    max_threads_ = descriptor.max_total_threads;  // the compiler spills to keep this promise
  }
}

std::string ComputePipeline::label_text() const {
  return label_ ? label_->value() : function_->name();
}

Ref<Reflection> ComputePipeline::reflection() const {
  Array::Items bindings;
  for (const msl::Binding& binding : code_->info().bindings) {
    bindings.emplace_back(make<Binding>(binding));
  }
  return make<Reflection>(make<Array>(std::move(bindings)));
}

std::uint64_t Binding::data_type() const {
  constexpr std::uint64_t structure = 1;
  const std::string pointee = pointee_name(about_.type);
  using Type = msl::ScalarType;
  for (const Type type :
       {Type::bool_, Type::char_, Type::uchar, Type::short_, Type::ushort, Type::int_, Type::uint,
        Type::long_, Type::ulong, Type::half, Type::float_, Type::bfloat}) {
    for (int width = 1; width <= 4; ++width) {
      if (msl::scalar_type_name(type, width) == pointee) {
        return softmetal::data_type(type, width);
      }
    }
  }
  return structure;
}

void define_pipeline() {
  using P = ComputePipeline;
  define_reflection();
  define_descriptor();
  define_archive();
  Definition<P>("MTLComputePipelineState", class_of<Object>)
      .method<&P::device>("device")
      .method<&P::label>("label", {10, 13})
      .method<&P::max_threads>("maxTotalThreadsPerThreadgroup")
      .method<&P::execution_width>("threadExecutionWidth")
      .method<&P::static_threadgroup_bytes>("staticThreadgroupMemoryLength", {10, 13})
      .method<&P::indirect_command_buffers>("supportIndirectCommandBuffers", {11, 0})
      .method<&P::required_threads>("requiredThreadsPerThreadgroup", {26, 0})
      .method<&P::reflection>("reflection", {26, 0});
  Definition<Device>()
      .method<&from_function>("newComputePipelineStateWithFunction:error:")
      .method<&from_function_reflected>(
          "newComputePipelineStateWithFunction:options:reflection:error:")
      .method<&from_descriptor>("newComputePipelineStateWithDescriptor:options:reflection:error:")
      .method<&from_function_later>("newComputePipelineStateWithFunction:completionHandler:")
      .method<&from_function_reflected_later>(
          "newComputePipelineStateWithFunction:options:completionHandler:")
      .method<&from_descriptor_later>(
          "newComputePipelineStateWithDescriptor:options:completionHandler:");
}

}  // namespace softmetal
