#include "work.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>

namespace softmetal::msl {
namespace {

using softmetal_abi::u32;

constexpr std::string_view kFloat[] = {"fadd",    "fsub",   "fmul",   "fcmp",   "fpext",
                                       "fptrunc", "fptosi", "fptoui", "sitofp", "uitofp"};
constexpr std::string_view kInteger[] = {"add", "sub",  "mul",  "sdiv", "udiv", "srem", "urem",
                                         "shl", "lshr", "ashr", "and",  "or",   "xor",  "icmp"};
constexpr std::string_view kSpecial[] = {"fdiv", "frem"};

// Functions, by their name without "llvm." and type.
constexpr std::string_view kFusedCalls[] = {"fma", "fmuladd"};
constexpr std::string_view kFloatCalls[] = {
    "minnum", "maxnum", "minimum", "maximum", "minimumnum", "maximumnum", "floor",
    "ceil",   "trunc",  "rint",    "round",   "roundeven",  "nearbyint",  "fmin",
    "fmax",   "fdim",   "ldexp",   "fptosi",  "fptoui"};
constexpr std::string_view kIntegerCalls[] = {"smin", "smax", "umin", "umax", "abs",        "ctpop",
                                              "ctlz", "cttz", "fshl", "fshr", "bitreverse", "bswap",
                                              "sadd", "uadd", "ssub", "usub", "umul",       "smul"};
constexpr std::string_view kSpecialCalls[] = {
    "sqrt", "exp",  "exp2",  "exp10", "expm1",  "log",  "log2",      "log10", "log1p", "pow",
    "powi", "sin",  "cos",   "tan",   "sincos", "asin", "acos",      "atan",  "atan2", "sinh",
    "cosh", "tanh", "asinh", "acosh", "atanh",  "fmod", "remainder", "cbrt",  "erf",   "erfc"};

template <std::size_t n>
bool is_one_of(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string_view word(std::string_view text) { return text.substr(0, text.find_first_of(" ,(")); }

/// Elements of the first type in `text`: 4 of "<4 x float>", 1 of "float".
u32 width_of(std::string_view text) {
  const std::size_t at = text.find('<');
  const std::size_t value = text.find_first_of("%@");
  if (at == std::string_view::npos || at > value) return 1;
  u32 n = 1;
  std::from_chars(text.data() + at + 1, text.data() + text.size(), n);
  return n;
}

/// "exp2" of "llvm.exp2.v4f32" and of "exp2f".
std::string_view function_name(std::string_view name) {
  if (name.starts_with("llvm.")) {
    name.remove_prefix(5);
    return name.substr(0, name.find('.'));
  }
  return name.ends_with("f") && name.size() > 3 ? name.substr(0, name.size() - 1) : name;
}

Work work_of_call(std::string_view text) {
  const std::size_t at = text.find('@');
  if (at == std::string_view::npos) return {};
  const u32 width = width_of(text);
  const std::string_view full = word(text.substr(at + 1));
  const std::string_view name = function_name(full);
  const bool builtin = full.starts_with("llvm.");
  if (is_one_of(kSpecialCalls, name) || is_one_of(kSpecialCalls, full)) return {0, 0, width};
  if (is_one_of(kFusedCalls, name)) return {2 * width, 0, 0};
  if (is_one_of(kFloatCalls, name) || is_one_of(kFloatCalls, full)) return {width, 0, 0};
  if (builtin && is_one_of(kIntegerCalls, name)) return {0, width, 0};
  return {};
}

}  // namespace

Work work_of(std::string_view line) {
  const std::size_t equals = line.find(" = ");
  if (equals == std::string_view::npos || line.substr(0, 3) != "  %") return {};
  std::string_view text = line.substr(equals + 3);
  for (const std::string_view prefix : {"tail ", "notail ", "musttail "}) {
    if (text.starts_with(prefix)) text.remove_prefix(prefix.size());
  }
  const std::string_view operation = word(text);
  if (operation == "call") return work_of_call(text);
  const u32 width = width_of(text);
  if (is_one_of(kFloat, operation)) return {width, 0, 0};
  if (is_one_of(kInteger, operation)) return {0, width, 0};
  if (is_one_of(kSpecial, operation)) return {0, 0, width};
  return {};
}

}  // namespace softmetal::msl
