// Libraries, functions, constants, reflection, archives, kernel findings and counters.
#include "host_support.hpp"

#include <unistd.h>
#include <cstdlib>

namespace {

const char* const scale_source = R"(
#include <metal_stdlib>
using namespace metal;
constant float factor [[function_constant(0)]];
constant bool negate [[function_constant(1)]];
constant bool negates = is_function_constant_defined(negate) ? negate : false;
kernel void scale(device float* data [[buffer(0)]], constant uint& count [[buffer(1)]],
                  uint i [[thread_position_in_grid]]) {
  if (i < count) {
    data[i] = data[i] * (negates ? -factor : factor);
  }
}
kernel void overrun(device float* data [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  data[i + 1] = 1;
}
)";

NS::SharedPtr<MTL::Library> compile(Metal& metal, const char* source, NS::Error** error) {
  return NS::TransferPtr(metal.device->newLibrary(string(source), nullptr, error));
}

NS::SharedPtr<MTL::FunctionConstantValues> constants(float factor, const bool* negate) {
  auto values = NS::TransferPtr(MTL::FunctionConstantValues::alloc()->init());
  values->setConstantValue(&factor, MTL::DataTypeFloat, NS::UInteger(0));
  if (negate != nullptr) {
    values->setConstantValue(negate, MTL::DataTypeBool, MTLSTR("negate"));
  }
  return values;
}

float run_scale(Metal& metal, MTL::Function* function) {
  NS::Error* error = nullptr;
  auto pipeline = NS::TransferPtr(metal.device->newComputePipelineState(function, &error));
  auto data = metal.buffer(16);
  *static_cast<float*>(data->contents()) = 3;
  const unsigned count = 4;
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline.get());
  encoder->setBuffer(data.get(), 0, 0);
  encoder->setBytes(&count, sizeof(count), 1);
  encoder->dispatchThreads(MTL::Size(4, 1, 1), MTL::Size(4, 1, 1));
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  return *static_cast<float*>(data->contents());
}

}  // namespace

TEST(a_library_lists_its_functions) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = compile(metal, scale_source, &error);
  REQUIRE(error == nullptr);
  REQUIRE(library->functionNames()->count() == 2);
  REQUIRE(library->newFunction(MTLSTR("absent")) == nullptr);
  REQUIRE(metal.findings.none());
}

TEST(rejected_text_gives_an_error_with_its_line) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library =
      compile(metal, "#include <metal_stdlib>\nkernel void f() {\n  nonsense;\n}\n", &error);
  REQUIRE(!library && error != nullptr);
  REQUIRE(error->code() == MTL::LibraryErrorCompileFailure);
  const std::string log = error->localizedDescription()->utf8String();
  REQUIRE(log.find("program_source:3:") != std::string::npos);
  REQUIRE(metal.findings.none());
}

TEST(libraries_come_from_files_of_text_and_not_from_metallibs) {
  Metal metal;
  NS::Error* error = nullptr;
  char path[] = "/tmp/softmetal_source_XXXXXX";
  const int file = mkstemp(path);
  REQUIRE(write(file, add_source, std::strlen(add_source)) > 0);
  close(file);
  auto by_url =
      NS::TransferPtr(metal.device->newLibrary(NS::URL::fileURLWithPath(string(path)), &error));
  REQUIRE(by_url && by_url->functionNames()->count() == 1);
  {
    const Setting setting("SOFTMETAL_DEFAULT_LIBRARY", path);
    auto by_default = NS::TransferPtr(metal.device->newDefaultLibrary());
    REQUIRE(by_default && by_default->functionNames()->count() == 1);
  }
  unlink(path);
  REQUIRE(metal.device->newDefaultLibrary() == nullptr);
  REQUIRE(metal.device->newLibrary(NS::URL::fileURLWithPath(string(path)), &error) == nullptr);
  REQUIRE(error->code() == MTL::LibraryErrorFileNotFound);
  dispatch_data_t data = dispatch_data_create("MTLB....", 8, nullptr, nullptr);
  REQUIRE(metal.device->newLibrary(data, &error) == nullptr);
  REQUIRE(error->code() == MTL::LibraryErrorUnsupported);
  dispatch_release(data);
  REQUIRE(metal.findings.none());
  const Setting setting("SOFTMETAL_DEFAULT_LIBRARY", "/nowhere.metal");
  REQUIRE(metal.device->newDefaultLibrary() == nullptr);
  REQUIRE(metal.findings.only("default-library", {"/nowhere.metal"}));
}

TEST(injected_compile_and_pipeline_failures) {
  Metal metal;
  NS::Error* error = nullptr;
  softmetal_inject("compile-failure", 0, 1);
  REQUIRE(!compile(metal, scale_source, &error));
  REQUIRE(error->code() == MTL::LibraryErrorCompileFailure);
  auto library = compile(metal, add_source, &error);
  auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
  softmetal_inject("pipeline-failure", 0, 1);
  REQUIRE(metal.device->newComputePipelineState(function.get(), &error) == nullptr);
  REQUIRE(NS::TransferPtr(metal.device->newComputePipelineState(function.get(), &error)));
  REQUIRE(metal.findings.none());
}

TEST(language_versions_follow_the_system) {
  const Setting system("SOFTMETAL_OS", "14.0");
  Metal metal;
  NS::Error* error = nullptr;
  auto options = NS::TransferPtr(MTL::CompileOptions::alloc()->init());
  REQUIRE(options->languageVersion() == MTL::LanguageVersion3_1);
  options->setLanguageVersion(MTL::LanguageVersion3_2);
  REQUIRE(metal.device->newLibrary(string(add_source), options.get(), &error) == nullptr);
  REQUIRE(error->code() == MTL::LibraryErrorUnsupported);
}

TEST(function_constants_by_index_and_name) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = compile(metal, scale_source, &error);
  auto plain =
      NS::TransferPtr(library->newFunction(MTLSTR("scale"), constants(2, nullptr).get(), &error));
  const bool yes = true;
  auto negated =
      NS::TransferPtr(library->newFunction(MTLSTR("scale"), constants(2, &yes).get(), &error));
  REQUIRE(run_scale(metal, plain.get()) == 6);
  REQUIRE(run_scale(metal, negated.get()) == -6);
  auto* dictionary = plain->functionConstantsDictionary();
  auto* factor = dictionary->object<MTL::FunctionConstant>(MTLSTR("factor"));
  REQUIRE(factor->type() == MTL::DataTypeFloat && factor->index() == 0);
  REQUIRE(metal.findings.none());
}

TEST(seeded_missing_or_mistyped_constant) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = compile(metal, scale_source, &error);
  auto values = NS::TransferPtr(MTL::FunctionConstantValues::alloc()->init());
  REQUIRE(library->newFunction(MTLSTR("scale"), values.get(), &error) == nullptr);
  std::string log = error->localizedDescription()->utf8String();
  REQUIRE(log.find("'factor' (index 0) has no value") != std::string::npos);
  const int wrong = 2;
  values->setConstantValue(&wrong, MTL::DataTypeInt, NS::UInteger(0));
  REQUIRE(library->newFunction(MTLSTR("scale"), values.get(), &error) == nullptr);
  log = error->localizedDescription()->utf8String();
  REQUIRE(log.find("is float, but was given a int") != std::string::npos);
}

TEST(seeded_data_type_that_is_no_scalar) {
  Metal metal;
  const float value = 1;
  auto values = NS::TransferPtr(MTL::FunctionConstantValues::alloc()->init());
  values->setConstantValue(&value, MTL::DataTypeStruct, NS::UInteger(0));
  REQUIRE(metal.findings.only("data-type", {"type 1"}));
}

TEST(reflection_shows_the_bindings) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = compile(metal, add_source, &error);
  auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
  MTL::ComputePipelineReflection* reflection = nullptr;
  auto pipeline = NS::TransferPtr(metal.device->newComputePipelineState(
      function.get(), MTL::PipelineOptionBindingInfo, &reflection, &error));
  auto* bindings = reflection->bindings();
  REQUIRE(bindings->count() == 3);
  auto* sum = bindings->object<MTL::BufferBinding>(2);
  REQUIRE(sum->index() == 2 && sum->isUsed());
  REQUIRE(sum->name()->isEqualToString(MTLSTR("sum")));
  REQUIRE(sum->access() == MTL::BindingAccessReadWrite);
  REQUIRE(sum->bufferDataType() == MTL::DataTypeFloat && sum->bufferDataSize() == 4);
  REQUIRE(bindings->object<MTL::Binding>(0)->access() == MTL::BindingAccessReadOnly);
  REQUIRE(pipeline->threadExecutionWidth() == 32);
  REQUIRE(metal.findings.none());
}

TEST(pipelines_and_libraries_can_be_built_in_the_background) {
  Metal metal;
  dispatch_semaphore_t done = dispatch_semaphore_create(0);
  __block NS::SharedPtr<MTL::ComputePipelineState> pipeline;
  auto device = metal.device;
  device->newLibrary(string(add_source), nullptr, ^(MTL::Library* library, NS::Error*) {
    auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
    device->newComputePipelineState(function.get(),
                                    ^(MTL::ComputePipelineState* built, NS::Error*) {
                                      pipeline = NS::RetainPtr(built);
                                      dispatch_semaphore_signal(done);
                                    });
  });
  dispatch_semaphore_wait(done, DISPATCH_TIME_FOREVER);
  REQUIRE(pipeline && pipeline->maxTotalThreadsPerThreadgroup() == 1024);
  pipeline.reset();
  dispatch_release(done);
  REQUIRE(metal.findings.none());
}

TEST(binary_archives_remember_functions) {
  Metal metal;
  NS::Error* error = nullptr;
  auto library = compile(metal, add_source, &error);
  auto function = NS::TransferPtr(library->newFunction(MTLSTR("add")));
  auto descriptor = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
  descriptor->setComputeFunction(function.get());
  char path[] = "/tmp/softmetal_archive_XXXXXX";
  close(mkstemp(path));
  auto* url = NS::URL::fileURLWithPath(string(path));
  auto about = NS::TransferPtr(MTL::BinaryArchiveDescriptor::alloc()->init());
  auto written = NS::TransferPtr(metal.device->newBinaryArchive(about.get(), &error));
  REQUIRE(written->addComputePipelineFunctions(descriptor.get(), &error));
  REQUIRE(written->serializeToURL(url, &error));
  about->setUrl(url);
  auto read = NS::TransferPtr(metal.device->newBinaryArchive(about.get(), &error));
  const auto build = [&] {
    return NS::TransferPtr(metal.device->newComputePipelineState(
        descriptor.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
  };
  REQUIRE(!build());
  descriptor->setBinaryArchives(NS::Array::array(read.get()));
  REQUIRE(build());
  unlink(path);
  about->setUrl(NS::URL::fileURLWithPath(MTLSTR("/nowhere/archive")));
  REQUIRE(metal.device->newBinaryArchive(about.get(), &error) == nullptr);
  REQUIRE(metal.findings.none());
}

TEST(seeded_access_out_of_bounds_names_its_place) {
  Metal metal;
  auto pipeline = metal.pipeline(scale_source, "overrun");
  auto data = metal.buffer(32, MTL::ResourceStorageModeShared, "data");
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline.get());
  encoder->setBuffer(data.get(), 0, 0);
  encoder->dispatchThreads(MTL::Size(8, 1, 1), MTL::Size(8, 1, 1));
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(metal.findings.only("out-of-bounds", {"overrun", "data"}));
  const auto finding = metal.findings.all().at(0);
  REQUIRE(finding.kernel == "overrun" && finding.line == 14);
  REQUIRE(finding.buffer == 0 && finding.offset == 32);
}

TEST(seeded_endless_kernel_ends_in_a_timeout) {
  Metal metal;
  const Setting budget("SOFTMETAL_STEP_BUDGET", "20000");
  auto pipeline = metal.pipeline(R"(
#include <metal_stdlib>
using namespace metal;
kernel void spin(device atomic_uint* flag [[buffer(0)]]) {
  while (atomic_load_explicit(flag, memory_order_relaxed) == 0u) {}
}
)",
                                 "spin");
  auto flag = metal.buffer(4);
  auto* commands = metal.queue->commandBuffer();
  auto* encoder = commands->computeCommandEncoder();
  encoder->setComputePipelineState(pipeline.get());
  encoder->setBuffer(flag.get(), 0, 0);
  encoder->dispatchThreads(MTL::Size(4, 1, 1), MTL::Size(4, 1, 1));
  encoder->endEncoding();
  commands->commit();
  commands->waitUntilCompleted();
  REQUIRE(commands->status() == MTL::CommandBufferStatusError);
  REQUIRE(commands->error()->code() == MTL::CommandBufferErrorTimeout);
  REQUIRE(metal.findings.only("timeout", {"kernel spin", "20000 memory accesses"}));
}

TEST(counters_add_up_by_kernel) {
  Metal metal;
  softmetal_reset_counters();
  softmetal_counters counters{};
  counters.struct_size = sizeof(counters);
  REQUIRE(softmetal_get_counters("add", &counters) == -1);
  const auto run = [&metal](const AddJob& job, int times) {
    auto* commands = metal.queue->commandBuffer();
    for (int i = 0; i < times; ++i) {
      job.encode(commands);
    }
    commands->commit();
    commands->waitUntilCompleted();
  };
  run(AddJob(metal, 256), 2);
  REQUIRE(softmetal_get_counters("add", &counters) == 0);
  REQUIRE(counters.dispatches == 2 && counters.checked_dispatches == 2 && counters.threads == 512);
  REQUIRE(counters.device_bytes_read == 4096 && counters.device_bytes_written == 2048);
  REQUIRE(counters.float_operations == 512);
  const Setting unchecked("SOFTMETAL_CHECKS", "off");
  run(AddJob(metal, 256), 1);
  REQUIRE(softmetal_get_counters(nullptr, &counters) == 0 && counters.dispatches == 3);
  REQUIRE(counters.checked_dispatches == 2 && counters.threads == 768);
  REQUIRE(counters.device_bytes_read == 4096);
  counters.struct_size = 8;
  REQUIRE(softmetal_get_counters(nullptr, &counters) == -1);
  REQUIRE(metal.findings.none());
}
