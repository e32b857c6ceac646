// What the host tests share: metal-cpp, findings as values, and a device ready for work.
#pragma once

#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include <softmetal/softmetal.h>

#include "check.hpp"

// While it lives, findings are collected and not printed.
class Findings {
 public:
  struct Finding {
    int severity;
    std::string rule;
    std::string text;
    std::string kernel;
    unsigned line;
    int buffer;
    unsigned long offset;
  };
  Findings() { softmetal_set_finding_handler(&Findings::add, this); }
  ~Findings() { softmetal_set_finding_handler(nullptr, nullptr); }
  Findings(const Findings&) = delete;
  Findings& operator=(const Findings&) = delete;

  std::vector<Finding> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }
  // Exactly one finding, of this rule, whose text contains every part.
  bool only(const char* rule, std::initializer_list<const char*> parts = {}) const {
    const std::vector<Finding> found = all();
    bool fits = found.size() == 1 && found[0].rule == rule;
    for (const char* part : parts) {
      fits = fits && found[0].text.find(part) != std::string::npos;
    }
    if (!fits) {
      std::printf("wanted one [%s], got:\n", rule);
      print();
    }
    return fits;
  }
  bool none() const {
    print();
    return all().empty();
  }
  void forget() {
    const std::lock_guard lock(mutex_);
    all_.clear();
  }

 private:
  static void add(const softmetal_finding* finding, void* self) {
    auto& findings = *static_cast<Findings*>(self);
    const std::lock_guard lock(findings.mutex_);
    findings.all_.push_back({finding->severity, finding->rule, finding->text, finding->kernel,
                             finding->line, finding->buffer, finding->offset});
  }
  void print() const {
    for (const Finding& finding : all()) {
      std::printf("  [%s] %s\n", finding.rule.c_str(), finding.text.c_str());
    }
  }
  mutable std::mutex mutex_;
  std::vector<Finding> all_;
};

class Pool {
 public:
  Pool() : pool_(NS::AutoreleasePool::alloc()->init()) {}
  ~Pool() { pool_->release(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

 private:
  NS::AutoreleasePool* pool_;
};

// An environment variable, for the life of the object.
class Setting {
 public:
  Setting(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Setting() { unsetenv(name_); }
  Setting(const Setting&) = delete;
  Setting& operator=(const Setting&) = delete;

 private:
  const char* name_;
};

inline NS::String* string(const char* text) {
  return NS::String::string(text, NS::UTF8StringEncoding);
}

// A pool, findings, a device, a queue, and short ways to the usual objects.
struct Metal {
  Pool pool;
  Findings findings;
  NS::SharedPtr<MTL::Device> device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  NS::SharedPtr<MTL::CommandQueue> queue = NS::TransferPtr(device->newCommandQueue());

  NS::SharedPtr<MTL::Buffer> buffer(NS::UInteger bytes,
                                    MTL::ResourceOptions options = MTL::ResourceStorageModeShared,
                                    const char* label = nullptr) {
    auto made = NS::TransferPtr(device->newBuffer(bytes, options));
    if (made && label != nullptr) {
      made->setLabel(string(label));
    }
    return made;
  }
  NS::SharedPtr<MTL::ComputePipelineState> pipeline(const char* source, const char* name) {
    NS::Error* error = nullptr;
    auto library = NS::TransferPtr(device->newLibrary(string(source), nullptr, &error));
    if (!library) {
      std::printf("%s\n", error->localizedDescription()->utf8String());
      std::exit(1);
    }
    auto function = NS::TransferPtr(library->newFunction(string(name)));
    auto made = NS::TransferPtr(device->newComputePipelineState(function.get(), &error));
    if (!made) {
      std::printf("%s\n", error->localizedDescription()->utf8String());
      std::exit(1);
    }
    return made;
  }
};

// sum[i] = a[i] + b[i], buffers 0, 1 and 2.
inline const char* const add_source = R"(
#include <metal_stdlib>
using namespace metal;
kernel void add(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
                device float* sum [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  sum[i] = a[i] + b[i];
}
)";

// One encoder that adds `count` floats.
struct AddJob {
  explicit AddJob(Metal& metal, NS::UInteger count = 256)
      : a(metal.buffer(count * 4, MTL::ResourceStorageModeShared, "a")),
        b(metal.buffer(count * 4, MTL::ResourceStorageModeShared, "b")),
        sum(metal.buffer(count * 4, MTL::ResourceStorageModeShared, "sum")),
        pipeline(metal.pipeline(add_source, "add")),
        count(count) {}
  void bind(MTL::ComputeCommandEncoder* encoder) const {
    encoder->setComputePipelineState(pipeline.get());
    encoder->setBuffer(a.get(), 0, 0);
    encoder->setBuffer(b.get(), 0, 1);
    encoder->setBuffer(sum.get(), 0, 2);
  }
  void encode(MTL::ComputeCommandEncoder* encoder) const {
    bind(encoder);
    encoder->dispatchThreads(MTL::Size(count, 1, 1), MTL::Size(32, 1, 1));
  }
  void encode(MTL::CommandBuffer* commands) const {
    auto* encoder = commands->computeCommandEncoder();
    encode(encoder);
    encoder->endEncoding();
  }
  NS::SharedPtr<MTL::Buffer> a, b, sum;
  NS::SharedPtr<MTL::ComputePipelineState> pipeline;
  NS::UInteger count;
};
