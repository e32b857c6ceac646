#include "metal/metal_program.hpp"

#include "core/source.hpp"

namespace ingot::metal {
namespace {

constexpr std::string_view qualifiers = "static constexpr constant";

constexpr std::string_view prologue =
    "#include <metal_stdlib>\n"
    "#include <metal_simdgroup_matrix>\n"
    "using namespace metal;\n";

}  // namespace

std::string kernel_path(const Config& config) {
  return "metal/kernels/" + std::string(config.kernel) + ".metal";
}

std::string kernel_key(const Config& config) {
  std::string key;  // made in every call: without Literals
  config.visit([&key](std::string_view, const auto& value) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, TypeName>)
      key += value.name;
    else if constexpr (std::is_arithmetic_v<Value>)
      key += std::to_string(value);
    else
      key += value;
    key += ',';
  });
  return key;
}

std::string kernel_source(const Config& config) {
  return assemble_source(kernel_path(config), literals_of(config), qualifiers, prologue);
}

std::string source_of(const Plan& plan, Pass pass) {
  std::string text;
  for (const KernelPlan& kernel : (pass == Pass::forward ? plan.forward : plan.backward).kernels) {
    text += "// ---- " + kernel.file + " ----\n";
    text += assemble_source(kernel.file, kernel.config, qualifiers, prologue);
  }
  return text;
}

}  // namespace ingot::metal
