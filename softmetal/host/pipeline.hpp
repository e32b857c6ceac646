// MTLComputePipelineState, its descriptor and reflection, and binary archives.
#pragma once

#include <memory>
#include <set>

#include "shader_library.hpp"

namespace softmetal {

class BinaryArchive : public Object {
 public:
  explicit BinaryArchive(Ref<Device> device) : device_(std::move(device)) {}
  Device* device() const { return device_.get(); }
  bool contains(const Function& function) const { return entries_.contains(function.identity()); }
  void add(std::string identity) { entries_.insert(std::move(identity)); }
  const std::set<std::string>& entries() const { return entries_; }
  Ref<String> label;

 private:
  Ref<Device> device_;
  std::set<std::string> entries_;
};

class PipelineDescriptor : public Object {
 public:
  Ref<Object> copy() override;
  void reset();
  Ref<Function> function;
  Ref<String> label;
  Ref<Array> archives;
  Ref<Object> linked_functions;
  Ref<Array> preloaded_libraries;
  bool whole_simdgroups = false;  // threadGroupSizeIsMultipleOfThreadExecutionWidth
  bool indirect_command_buffers = false;
  bool adding_binary_functions = false;
  std::uint64_t max_total_threads = 0;
  std::uint64_t max_call_stack_depth = 1;
  std::int64_t shader_validation = 0;
  Extent required_threads;
};

class Reflection;

class ComputePipeline : public Object {
 public:
  ComputePipeline(Ref<Function> function, std::shared_ptr<const msl::Pipeline> code,
                  const PipelineDescriptor& descriptor);
  std::string label_text() const override;
  Device* device() const { return function_->device(); }
  String* label() const { return label_.get(); }
  const std::string& kernel() const { return function_->name(); }
  const msl::Pipeline& code() const { return *code_; }
  std::shared_ptr<const msl::Pipeline> shared_code() const { return code_; }
  std::uint64_t max_threads() const { return max_threads_; }
  std::uint64_t execution_width() const { return code_->thread_execution_width(); }
  std::uint64_t static_threadgroup_bytes() const { return code_->static_threadgroup_bytes(); }
  bool whole_simdgroups() const { return whole_simdgroups_; }
  bool indirect_command_buffers() const { return indirect_command_buffers_; }
  Extent required_threads() const { return required_threads_; }
  Ref<Reflection> reflection() const;

 private:
  Ref<Function> function_;
  std::shared_ptr<const msl::Pipeline> code_;
  Ref<String> label_;
  std::uint64_t max_threads_;
  bool whole_simdgroups_;
  bool indirect_command_buffers_;
  Extent required_threads_;
};

// One argument of a kernel, as MTLBinding (and, before macOS 13, MTLArgument) shows it.
class Binding : public Object {
 public:
  explicit Binding(msl::Binding about = {}) : about_(std::move(about)) {}
  std::string label_text() const override { return about_.name; }
  Ref<String> name() const { return make_string(about_.name); }
  std::int64_t type() const { return static_cast<std::int64_t>(about_.kind); }
  std::uint64_t access() const { return about_.access == msl::Access::read ? 0 : 1; }
  std::uint64_t index() const { return about_.index; }
  bool used() const { return about_.active; }
  bool yes() const { return true; }
  std::uint64_t alignment() const { return about_.alignment; }
  std::uint64_t size() const { return about_.size; }
  std::uint64_t data_type() const;

 private:
  msl::Binding about_;
};

class Reflection : public Object {
 public:
  explicit Reflection(Ref<Array> bindings = {}) : bindings_(std::move(bindings)) {}
  Array* bindings() const { return bindings_.get(); }

 private:
  Ref<Array> bindings_;
};

// Bits of MTLPipelineOption.
inline constexpr std::uint64_t fail_on_archive_miss = 4;

void define_archive();

}  // namespace softmetal
