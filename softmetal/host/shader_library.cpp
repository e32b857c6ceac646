#include "shader_library.hpp"

#include "block.hpp"
#include "inject.hpp"
#include "lifetime.hpp"
#include "runtime.hpp"
#include "serial_thread.hpp"

namespace softmetal {
namespace {

constexpr std::int64_t error_unsupported = 1;
constexpr std::int64_t error_internal = 2;
constexpr std::int64_t error_compile_failure = 3;
constexpr std::int64_t error_compile_warning = 4;
constexpr std::int64_t error_function_not_found = 5;

// What compiling gives: a library, an error, or (with warnings) both.
struct Compiled {
  Ref<ShaderLibrary> library;
  Ref<Error> error;
};

Compiled failed(std::int64_t code, const std::string& what) {
  return {nullptr, make_error(library_error_domain, code, what)};
}

// The system that first had a version of the language.
OsVersion system_of_language(std::uint64_t version) {
  switch (version) {
    case 0x40000:
      return {26, 0};
    case 0x30002:
      return {15, 0};
    case 0x30001:
      return {14, 0};
    case 0x30000:
      return {13, 0};
    default:
      return {};
  }
}

std::uint64_t newest_language() {
  for (const std::uint64_t version : {0x40000u, 0x30002u, 0x30001u}) {
    if (system_of_language(version) <= os_version()) {
      return version;
    }
  }
  return 0x30000;
}

std::string version_text(std::uint64_t version) {
  return text(version >> 16, ".", version & 0xFFFF);
}

std::string identity_of(const std::string& source, const msl::CompileOptions& options) {
  std::string all = text(options.language_version, '\n', options.fast_math, '\n');
  for (const auto& [name, value] : options.macros) {
    all += text(name, '=', value, '\n');
  }
  return text(std::hash<std::string>()(all + source));
}

Compiled warnings_of(Ref<ShaderLibrary> library) {
  std::string log;
  for (const msl::Diagnostic& warning : library->code().warnings()) {
    log += text(warning.file, ":", warning.line, ":", warning.column, ": warning: ", warning.text,
                "\n");
  }
  Ref<Error> error;
  if (!log.empty()) {
    error = make_error(library_error_domain, error_compile_warning, log);
  }
  return {std::move(library), std::move(error)};
}

Compiled compile(Device& device, const std::string& source, const CompileOptions& options) {
  if (fails_now(Failure::compile_failure)) {
    return failed(error_compile_failure, "program_source:1:1: error: injected compile failure");
  }
  const OsVersion needed = system_of_language(options.language_version);
  if (os_version() < needed) {
    return failed(error_unsupported,
                  text("language version ", version_text(options.language_version), " needs macOS ",
                       needed.major, ".", needed.minor));
  }
  try {
    const msl::CompileOptions for_compiler = options.for_compiler();
    auto code = msl::Library::compile(source, for_compiler);
    return warnings_of(
        make<ShaderLibrary>(&device, std::move(code), identity_of(source, for_compiler)));
  } catch (const msl::CompileError& failure) {
    return failed(error_compile_failure, failure.what());
  } catch (const std::exception& failure) {
    return failed(error_internal, failure.what());
  }
}

Ref<ShaderLibrary> new_library(Device& self, String* source, CompileOptions* options,
                               ErrorSlot error) {
  return compile_text(self, value_of(source), options, error);
}

void new_library_later(Device& self, String* source, CompileOptions* options,
                       Block<void*, void*> handler) {
  run_in_background(
      [device = Ref<Device>(&self), text = value_of(source),
       used = options != nullptr ? Ref<CompileOptions>(options) : make<CompileOptions>(),
       handler = std::move(handler)] {
        const PoolScope pool;
        Compiled compiled = compile(*device, text, *used);
        handler(autoreleased(std::move(compiled.library)), autoreleased(std::move(compiled.error)));
      });
}

Ref<Array> function_names(const ShaderLibrary& self) {
  Array::Items names;
  for (const std::string& name : self.code().function_names()) {
    names.emplace_back(make_string(name));
  }
  return make<Array>(std::move(names));
}

const msl::FunctionInfo* find_info(const ShaderLibrary& library, const std::string& name) {
  try {
    return &library.code().info(name);
  } catch (const std::out_of_range&) {
    return nullptr;
  }
}

Ref<Function> new_function(ShaderLibrary& self, String* name) {
  if (find_info(self, value_of(name)) == nullptr) {
    return nullptr;
  }
  return make<Function>(&self, value_of(name), msl::ConstantValues());
}

// What is wrong with the values given for a function's constants; "" when nothing is.
std::string constant_mistake(const msl::FunctionInfo& info, const msl::ConstantValues& values) {
  for (const msl::FunctionConstant& constant : info.constants) {
    const auto by_name = values.by_name.find(constant.name);
    const auto by_index = values.by_index.find(constant.index);
    const msl::ConstantValue* given = by_name != values.by_name.end()     ? &by_name->second
                                      : by_index != values.by_index.end() ? &by_index->second
                                                                          : nullptr;
    const std::string what =
        text("function constant '", constant.name, "' (index ", constant.index, ")");
    if (given == nullptr && constant.required) {
      return what + " has no value";
    }
    if (given != nullptr && given->type != constant.type) {
      return text(what, " is ", msl::scalar_type_name(constant.type, constant.width),
                  ", but was given a ", msl::scalar_type_name(given->type, 1));
    }
  }
  return {};
}

Ref<Function> specialised(ShaderLibrary& library, const std::string& name,
                          FunctionConstantValues* values, ErrorSlot error) {
  const msl::FunctionInfo* info = find_info(library, name);
  if (info == nullptr) {
    error.set(make_error(library_error_domain, error_function_not_found,
                         text("there is no function '", name, "' in the library")));
    return nullptr;
  }
  const msl::ConstantValues given = values != nullptr ? values->values() : msl::ConstantValues();
  if (const std::string mistake = constant_mistake(*info, given); !mistake.empty()) {
    error.set(make_error(library_error_domain, error_compile_failure,
                         text("function '", name, "': ", mistake)));
    return nullptr;
  }
  return make<Function>(&library, name, given);
}

Ref<Function> new_function_with_constants(ShaderLibrary& self, String* name,
                                          FunctionConstantValues* values, ErrorSlot error) {
  return specialised(self, value_of(name), values, error);
}

void new_function_later(ShaderLibrary& self, String* name, FunctionConstantValues* values,
                        Block<void*, void*> handler) {
  Error* error = nullptr;
  Ref<Function> function = specialised(self, value_of(name), values, ErrorSlot(&error));
  handler(autoreleased(std::move(function)), error);
}

class FunctionDescriptor : public Object {
 public:
  Ref<String> name;
  Ref<String> specialised_name;
  Ref<FunctionConstantValues> constants;
  Ref<Array> archives;
  std::uint64_t options = 0;
};

Ref<FunctionDescriptor> function_descriptor() { return make<FunctionDescriptor>(); }

Ref<Function> new_function_with_descriptor(ShaderLibrary& self, FunctionDescriptor* descriptor,
                                           ErrorSlot error) {
  return specialised(self, value_of(descriptor->name.get()), descriptor->constants.get(), error);
}

class FunctionConstant : public Object {
 public:
  explicit FunctionConstant(msl::FunctionConstant about = {}) : about_(std::move(about)) {}
  Ref<String> name() const { return make_string(about_.name); }
  std::uint64_t type() const { return data_type(about_.type, about_.width); }
  std::uint64_t index() const { return about_.index; }
  bool required() const { return about_.required; }

 private:
  msl::FunctionConstant about_;
};

Ref<Dictionary> constants_dictionary(const Function& self) {
  Dictionary::Items items;
  for (const msl::FunctionConstant& constant : self.info().constants) {
    items.emplace_back(make_string(constant.name), make<FunctionConstant>(constant));
  }
  return make<Dictionary>(std::move(items));
}

Ref<String> function_name(const Function& self) { return make_string(self.name()); }
std::uint64_t kernel_type(const Function&) { return 3; }
std::uint64_t no_options(const Function&) { return 0; }
std::int64_t executable_type(const ShaderLibrary&) { return 0; }

void define_functions() {
  using D = FunctionDescriptor;
  Definition<D>("MTLFunctionDescriptor", class_of<Object>)
      .allocatable()
      .class_method<&function_descriptor>("functionDescriptor", {11, 0})
      .property<&D::name>("name", {11, 0})
      .property<&D::specialised_name>("specializedName", {11, 0})
      .property<&D::constants>("constantValues", {11, 0})
      .property<&D::archives>("binaryArchives", {12, 0})
      .property<&D::options>("options", {11, 0});
  Definition<FunctionConstant>("MTLFunctionConstant", class_of<Object>)
      .method<&FunctionConstant::name>("name", {10, 12})
      .method<&FunctionConstant::type>("type", {10, 12})
      .method<&FunctionConstant::index>("index", {10, 12})
      .method<&FunctionConstant::required>("required", {10, 12});
  Definition<Function>("MTLFunction", class_of<Object>)
      .property<&Function::label>("label", {10, 12})
      .method<&Function::device>("device")
      .method<&function_name>("name")
      .method<&kernel_type>("functionType")
      .method<&no_options>("options", {11, 0})
      .method<&constants_dictionary>("functionConstantsDictionary", {10, 12});
}

}  // namespace

Ref<ShaderLibrary> compile_text(Device& device, const std::string& source, CompileOptions* options,
                                ErrorSlot error) {
  const Ref<CompileOptions> used = options != nullptr ? options : make<CompileOptions>();
  Compiled compiled = compile(device, source, *used);
  error.set(std::move(compiled.error));
  return std::move(compiled.library);
}

CompileOptions::CompileOptions() : language_version(newest_language()) {}

Ref<Object> CompileOptions::copy() {
  Ref<CompileOptions> twin = make<CompileOptions>();
  twin->macros = macros;
  twin->language_version = language_version;
  twin->math_mode = math_mode;
  twin->math_functions = math_functions;
  twin->preserve_invariance = preserve_invariance;
  twin->max_total_threads = max_total_threads;
  return twin;
}

void CompileOptions::set_fast_math(bool fast) {
  math_mode = fast ? 2 : 0;
  math_functions = fast ? 0 : 1;
}

msl::CompileOptions CompileOptions::for_compiler() const {
  msl::CompileOptions result;
  result.language_version = version_text(language_version);
  result.fast_math = math_functions == 0;
  if (macros) {
    for (const auto& [name, value] : macros->items()) {
      result.macros.emplace_back(name->description(), value->description());
    }
  }
  return result;
}

std::string Function::identity() const {
  std::string all = text(library_->identity(), ':', name_);
  const auto append = [&](const auto& key, const msl::ConstantValue& value) {
    all += text(':', key, '=');
    for (const std::byte byte : value.bytes) {
      all += text(static_cast<int>(byte), '.');
    }
  };
  for (const auto& [index, value] : constants_.by_index) {
    append(index, value);
  }
  for (const auto& [name, value] : constants_.by_name) {
    append(name, value);
  }
  return all;
}

void define_library() {
  using C = CompileOptions;
  Definition<C>("MTLCompileOptions", class_of<Object>)
      .allocatable()
      .property<&C::macros>("preprocessorMacros")
      .property<&C::language_version>("languageVersion", {10, 11})
      .property<&C::math_mode>("mathMode", {15, 0})
      .property<&C::math_functions>("mathFloatingPointFunctions", {15, 0})
      .property<&C::preserve_invariance>("preserveInvariance", {11, 0})
      .property<&C::enable_logging>("enableLogging", {15, 0})
      .property<&C::undefined_symbols>("allowReferencingUndefinedSymbols", {13, 3})
      .property<&C::library_type>("libraryType", {11, 0})
      .property<&C::optimization_level>("optimizationLevel", {13, 0})
      .property<&C::symbol_visibility>("compileSymbolVisibility", {13, 3})
      .property<&C::max_total_threads>("maxTotalThreadsPerThreadgroup", {13, 3})
      .property<&C::libraries>("libraries", {11, 0})
      .property<&C::install_name>("installName", {11, 0})
      .method<&C::fast_math>("fastMathEnabled")
      .method<&C::set_fast_math>("setFastMathEnabled:");
  using V = FunctionConstantValues;
  Definition<V>("MTLFunctionConstantValues", class_of<Object>)
      .allocatable()
      .method<&V::set_at_index>("setConstantValue:type:atIndex:", {10, 12})
      .method<&V::set_with_name>("setConstantValue:type:withName:", {10, 12})
      .method<&V::set_range>("setConstantValues:type:withRange:", {10, 12})
      .method<&V::reset>("reset", {10, 12});
  Definition<ShaderLibrary>("MTLLibrary", class_of<Object>)
      .property<&ShaderLibrary::label>("label")
      .method<&ShaderLibrary::device>("device")
      .method<&function_names>("functionNames")
      .method<&executable_type>("type", {11, 0})
      .method<&new_function>("newFunctionWithName:")
      .method<&new_function_with_constants>("newFunctionWithName:constantValues:error:", {10, 12})
      .method<&new_function_later>("newFunctionWithName:constantValues:completionHandler:",
                                   {10, 12})
      .method<&new_function_with_descriptor>("newFunctionWithDescriptor:error:", {11, 0});
  define_functions();
  Definition<Device>()
      .method<&new_library>("newLibraryWithSource:options:error:")
      .method<&new_library_later>("newLibraryWithSource:options:completionHandler:");
  define_library_files();
}

}  // namespace softmetal
