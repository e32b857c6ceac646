#include "front_end.hpp"

#include "cache.hpp"
#include "comparisons.hpp"
#include "compiler.hpp"
#include "components.hpp"
#include "reflection.hpp"

namespace softmetal::msl {
namespace {

/// Switches on what the log asks for; false when there is nothing new to try.
bool learn(LowerOptions& options, const std::string& log) {
  const LowerOptions before = options;
  auto says = [&](const char* text) { return log.find(text) != std::string::npos; };
  options.conditionals |=
      says("conditional expression is ambiguous") || says("incompatible operand types");
  options.braced_lists |= says("cannot convert initializer list argument");
  return options != before;
}

std::string compile(const std::string& dir, const FrontEnd& front, const std::string& version,
                    std::vector<Diagnostic>* warnings) {
  write_file(dir + "/lowered.cpp", front.source.text);
  write_file(dir + "/defines.h", reflection_defines(front.source));
  return compile_to_ir(dir, {-1, false, true, version}, warnings);
}

}  // namespace

FrontEnd run_front_end(const std::string& dir, const std::string& preprocessed,
                       const std::string& language_version) {
  FrontEnd front;
  for (;;) {
    front.source = lower_source(preprocessed, front.options);
    try {
      front.ir = compile(dir, front, language_version, &front.warnings);
      break;
    } catch (const CompileError& e) {
      if (!learn(front.options, e.what())) throw;
    }
  }
  const auto places = vector_comparisons(IrModule(front.ir));
  if (!places.empty()) {
    front.source.text = with_bool_comparisons(front.source.text, places);
    front.ir = compile(dir, front, language_version, &front.warnings);
  }
  front.component_writes = writes_components(IrModule(front.ir));
  return front;
}

std::string serialise(const LowerOptions& options) {
  return std::string(options.conditionals ? "1" : "0") + (options.braced_lists ? "1" : "0");
}

LowerOptions lower_options(const std::string& text) {
  return {text.size() > 0 && text[0] == '1', text.size() > 1 && text[1] == '1'};
}

}  // namespace softmetal::msl
