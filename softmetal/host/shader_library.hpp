// MTLLibrary, MTLFunction and what they are made from.
#pragma once

#include <map>
#include <memory>

#include "device.hpp"
#include "method.hpp"
#include "msl/library.hpp"

namespace softmetal {

class CompileOptions : public Object {
 public:
  CompileOptions();
  Ref<Object> copy() override;

  Ref<Dictionary> macros;
  std::uint64_t language_version;   // MTLLanguageVersion: major << 16 | minor
  std::int64_t math_mode = 2;       // MTLMathModeFast
  std::int64_t math_functions = 0;  // MTLMathFloatingPointFunctionsFast
  bool preserve_invariance = false;
  bool enable_logging = false;
  bool undefined_symbols = false;
  std::int64_t library_type = 0;
  std::int64_t optimization_level = 0;
  std::int64_t symbol_visibility = 0;
  std::uint64_t max_total_threads = 0;
  Ref<Array> libraries;
  Ref<String> install_name;

  bool fast_math() const { return math_mode == 2 && math_functions == 0; }
  void set_fast_math(bool fast);
  msl::CompileOptions for_compiler() const;
};

class FunctionConstantValues : public Object {
 public:
  Ref<Object> copy() override;
  void set_at_index(const void* value, std::uint64_t type, std::uint64_t index);
  void set_with_name(const void* value, std::uint64_t type, String* name);
  void set_range(const void* values, std::uint64_t type, Range range);
  void reset() { values_ = {}; }
  const msl::ConstantValues& values() const { return values_; }

 private:
  msl::ConstantValues values_;
};

class ShaderLibrary : public Object {
 public:
  ShaderLibrary(Ref<Device> device, std::shared_ptr<msl::Library> code, std::string identity)
      : device_(std::move(device)), code_(std::move(code)), identity_(std::move(identity)) {}
  std::string label_text() const override { return value_of(label.get()); }
  Device* device() const { return device_.get(); }
  const msl::Library& code() const { return *code_; }
  std::shared_ptr<msl::Library> shared_code() const { return code_; }
  const std::string& identity() const { return identity_; }  // of text and options
  Ref<String> label;

 private:
  Ref<Device> device_;
  std::shared_ptr<msl::Library> code_;
  std::string identity_;
};

class Function : public Object {
 public:
  Function(Ref<ShaderLibrary> library, std::string name, msl::ConstantValues constants)
      : library_(std::move(library)), name_(std::move(name)), constants_(std::move(constants)) {}
  std::string label_text() const override { return name_; }
  Device* device() const { return library_->device(); }
  const std::string& name() const { return name_; }
  const msl::FunctionInfo& info() const { return library_->code().info(name_); }
  const msl::ConstantValues& constants() const { return constants_; }
  const ShaderLibrary& library() const { return *library_; }
  // Names the code that a pipeline of this function runs; equal for equal code.
  std::string identity() const;
  Ref<String> label;

 private:
  Ref<ShaderLibrary> library_;
  std::string name_;
  msl::ConstantValues constants_;
};

// MTLDataType of a scalar or vector, and back; `width` is 1 to 4.
std::uint64_t data_type(msl::ScalarType type, int width);
struct ScalarOrVector {
  msl::ScalarType type;
  int width;
  std::size_t bytes() const;
};
// Reports an unknown type and returns nothing.
std::optional<ScalarOrVector> from_data_type(std::uint64_t type);

// Null options mean the default ones. `error` is also set to the log when there are warnings.
Ref<ShaderLibrary> compile_text(Device& device, const std::string& source, CompileOptions* options,
                                ErrorSlot error);
void define_library_files();

inline constexpr const char* library_error_domain = "MTLLibraryErrorDomain";

}  // namespace softmetal
