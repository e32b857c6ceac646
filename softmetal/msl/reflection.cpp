#include "reflection.hpp"

#include <cstring>
#include <sstream>

#include "../stdlib/softmetal_abi.h"

namespace softmetal::msl {
namespace {

constexpr int kWords = 9;  // of one parameter, as softmetal_entry.h writes them
enum Word {
  word_space,
  word_size,
  word_align,
  word_read_only,
  word_reference,
  word_width,
  word_element,
  word_index,
  word_active
};
enum Element { element_bool = 1, element_ushort, element_uint, element_other };

const std::pair<std::string_view, ScalarType> kScalars[] = {
    {"bool", ScalarType::bool_},   {"char", ScalarType::char_},    {"uchar", ScalarType::uchar},
    {"short", ScalarType::short_}, {"ushort", ScalarType::ushort}, {"int", ScalarType::int_},
    {"uint", ScalarType::uint},    {"long", ScalarType::long_},    {"ulong", ScalarType::ulong},
    {"half", ScalarType::half},    {"float", ScalarType::float_},  {"bfloat", ScalarType::bfloat}};

[[noreturn]] void fail(int line, const std::string& text) {
  Diagnostic d{Diagnostic::Severity::error, "program_source", line, 1, text};
  throw CompileError("program_source:" + std::to_string(line) + ":1: error: " + text + "\n", {d});
}

FunctionConstant constant_of(const ParsedConstant& c) {
  FunctionConstant out;
  out.index = c.index;
  out.name = c.name;
  out.required = !c.guarded;
  std::string base = c.type;
  if (base.starts_with("metal::")) base.erase(0, 7);
  if (base == "unsigned int" || base == "unsigned" || base == "uint32_t") base = "uint";
  if (base == "int32_t") base = "int";
  if (base == "uint16_t") base = "ushort";
  if (base == "uint64_t" || base == "size_t") base = "ulong";
  if (!base.empty() && base.back() >= '2' && base.back() <= '4') {
    out.width = base.back() - '0';
    base.pop_back();
  }
  for (const auto& [name, type] : kScalars) {
    if (base == name) {
      out.type = type;
      return out;
    }
  }
  fail(c.line, "function constant '" + c.name + "' has the type '" + c.type +
                   "', which is not a scalar or vector");
}

/// Position arguments: 1 to 3 elements of uint or ushort; indices are scalars.
void check_position(const ParsedParameter& p, const int* w, int kind) {
  using namespace softmetal_abi;
  const bool integers = w[word_element] == element_uint || w[word_element] == element_ushort;
  const bool triple =
      kind == arg_thread_position_in_grid || kind == arg_thread_position_in_threadgroup ||
      kind == arg_threadgroup_position_in_grid || kind == arg_threads_per_threadgroup ||
      kind == arg_dispatch_threads_per_threadgroup || kind == arg_threads_per_grid ||
      kind == arg_threadgroups_per_grid || kind == arg_grid_origin;
  const int widest = triple ? 3 : 1;
  if (integers && w[word_width] <= widest) return;
  fail(p.line, "argument '" + p.name + "' [[" + p.kind + "]] must be " +
                   (triple ? "uint, uint2, uint3 or the same of ushort" : "uint or ushort"));
}

Binding binding_of(const ParsedParameter& p, const int* w) {
  const bool buffer = p.kind == "buffer";
  const int space = w[word_space];
  const bool fits = buffer ? space == 1 || space == 5 : space == 3;
  if (!fits) {
    fail(p.line, "argument '" + p.name + "' [[" + p.kind + "]] must point to " +
                     (buffer ? "device or constant" : "threadgroup") + " memory");
  }
  Binding b;
  b.kind = buffer ? BindingKind::buffer : BindingKind::threadgroup;
  if (w[word_index] < 0 || w[word_index] > 30) {
    fail(p.line, p.kind + " index must be at most 30, got " + std::to_string(w[word_index]));
  }
  b.index = static_cast<std::uint32_t>(w[word_index]);
  b.name = p.name;
  b.type = p.type;
  b.size = static_cast<std::uint32_t>(w[word_size]);
  b.alignment = static_cast<std::uint32_t>(w[word_align]);
  b.access = w[word_read_only] != 0 ? Access::read : Access::read_write;
  b.address_space = space == 1   ? AddressSpace::device
                    : space == 3 ? AddressSpace::threadgroup
                                 : AddressSpace::constant;
  b.by_reference = w[word_reference] != 0;
  b.active = p.active.empty() || w[word_active] != 0;
  return b;
}

void check_twice(const FunctionInfo& info, const Binding& b, const ParsedParameter& p) {
  if (!p.active.empty()) return;  // arguments that exclude each other may share an index
  for (const Binding& other : info.bindings) {
    if (other.kind == b.kind && other.index == b.index && other.active) {
      fail(p.line, "'" + other.name + "' and '" + b.name + "' have the same " + p.kind + " index " +
                       std::to_string(b.index));
    }
  }
}

/// The literal of one element from its bytes.
std::string literal(ScalarType type, const std::byte* bytes) {
  auto as = [&](auto v) {
    std::memcpy(&v, bytes, sizeof v);
    return v;
  };
  switch (type) {
    case ScalarType::bool_:
      return as(std::uint8_t{}) != 0 ? "true" : "false";
    case ScalarType::char_:
      return std::to_string(as(std::int8_t{}));
    case ScalarType::uchar:
      return std::to_string(as(std::uint8_t{}));
    case ScalarType::short_:
      return std::to_string(as(std::int16_t{}));
    case ScalarType::ushort:
      return std::to_string(as(std::uint16_t{}));
    case ScalarType::int_:
      return "int(" + std::to_string(as(std::int32_t{})) + "l)";
    case ScalarType::uint:
      return std::to_string(as(std::uint32_t{})) + "u";
    case ScalarType::long_:
      return "long(" + std::to_string(as(std::uint64_t{})) + "ul)";
    case ScalarType::ulong:
      return std::to_string(as(std::uint64_t{})) + "ul";
    case ScalarType::half:
      return "__builtin_bit_cast(half, ushort(" + std::to_string(as(std::uint16_t{})) + "))";
    case ScalarType::bfloat:
      return "__builtin_bit_cast(bfloat, ushort(" + std::to_string(as(std::uint16_t{})) + "))";
    case ScalarType::float_:
      return "__builtin_bit_cast(float, " + std::to_string(as(std::uint32_t{})) + "u)";
  }
  return "0";
}

const ConstantValue* value_of(const ConstantValues& values, const ParsedConstant& c) {
  if (const auto n = values.by_name.find(c.name); n != values.by_name.end()) return &n->second;
  if (const auto i = values.by_index.find(c.index); i != values.by_index.end()) return &i->second;
  return nullptr;
}

}  // namespace

std::string scalar_type_name(ScalarType type, int width) {
  for (const auto& [name, t] : kScalars) {
    if (t == type) return std::string(name) + (width > 1 ? std::to_string(width) : "");
  }
  return "unknown";
}

std::size_t scalar_type_size(ScalarType type) {
  switch (type) {
    case ScalarType::bool_:
    case ScalarType::char_:
    case ScalarType::uchar:
      return 1;
    case ScalarType::short_:
    case ScalarType::ushort:
    case ScalarType::half:
    case ScalarType::bfloat:
      return 2;
    case ScalarType::int_:
    case ScalarType::uint:
    case ScalarType::float_:
      return 4;
    case ScalarType::long_:
    case ScalarType::ulong:
      return 8;
  }
  return 0;
}

std::string reflection_defines(const LoweredSource& source) {
  std::string text = "#define SOFTMETAL_ACTIVE(x) true\n";
  for (const ParsedConstant& c : source.constants) {
    const std::string n = std::to_string(c.index);
    text += "#define SOFTMETAL_CONSTANT_" + n +
            "(T, name) extern constant T name __asm__(\"softmetal_constant_" + n + "\")\n";
    text +=
        "extern const bool softmetal_defined_" + n + " __asm__(\"softmetal_defined_" + n + "\");\n";
  }
  return text;
}

std::string constant_defines(const LoweredSource& source, const FunctionInfo& info,
                             const ConstantValues& values) {
  std::string text = "#define SOFTMETAL_ACTIVE(x) bool(x)\n";
  for (const ParsedConstant& c : source.constants) {
    const FunctionConstant known = constant_of(c);
    const ConstantValue* value = value_of(values, c);
    bool needed = false;
    for (const FunctionConstant& f : info.constants) needed |= f.index == c.index && f.required;
    if (value == nullptr && needed) {
      fail(c.line, "kernel '" + info.name + "' needs function constant '" + c.name + "' (" +
                       std::to_string(c.index) + "), and it has no value");
    }
    std::string written = "{}";
    if (value != nullptr) {
      const std::size_t size = scalar_type_size(known.type);
      const auto width = static_cast<std::size_t>(known.width);
      if (value->type != known.type || value->bytes.size() < size * width) {
        fail(c.line,
             "function constant '" + c.name + "' has the type " +
                 scalar_type_name(known.type, known.width) + ", the value given is a " +
                 scalar_type_name(value->type, static_cast<int>(value->bytes.size() /
                                                                scalar_type_size(value->type))));
      }
      written = "{";
      for (std::size_t i = 0; i < width; ++i) {
        written += (i == 0 ? "" : ", ") + literal(known.type, value->bytes.data() + i * size);
      }
      written += "}";
    }
    const std::string n = std::to_string(c.index);
    text +=
        "#define SOFTMETAL_CONSTANT_" + n + "(T, name) static constant T name = " + written + "\n";
    text += std::string("static const bool softmetal_defined_") + n + " = " +
            (value != nullptr ? "true" : "false") + ";\n";
  }
  return text;
}

std::vector<FunctionInfo> reflect(const LoweredSource& source, const IrModule& module) {
  std::vector<FunctionInfo> infos;
  for (std::size_t i = 0; i < source.kernels.size(); ++i) {
    const ParsedKernel& k = source.kernels[i];
    FunctionInfo info;
    info.name = k.name;
    info.line = k.line;
    if (k.max_total_threads != 0) info.max_total_threads = k.max_total_threads;
    const auto words = module.words("@softmetal_info_" + std::to_string(i));
    for (std::size_t p = 0; p < k.parameters.size(); ++p) {
      if (words.size() < 1 + (p + 1) * kWords)
        fail(k.line, "kernel '" + k.name + "' could not be reflected");
      int w[kWords];
      for (std::size_t n = 0; n < kWords; ++n) w[n] = words[1 + p * kWords + n] - 1;
      const ParsedParameter& parameter = k.parameters[p];
      const int kind = argument_kind(parameter.kind);
      if (kind == int{softmetal_abi::arg_unsupported}) {
        fail(parameter.line, "[[" + parameter.kind + "]] arguments are not supported");
      }
      if (kind > int{softmetal_abi::arg_unsupported}) {
        check_position(parameter, w, kind);
        continue;
      }
      Binding b = binding_of(parameter, w);
      check_twice(info, b, parameter);
      info.bindings.push_back(std::move(b));
    }
    const auto used = module.reachable("@softmetal_root_" + std::to_string(i));
    for (const auto& symbol : used) {
      info.uses_simdgroup_matrix |= symbol.find("_ZN9softmetal8multiply") != std::string::npos;
    }
    for (const ParsedConstant& c : source.constants) {
      const std::string n = std::to_string(c.index);
      bool named =
          used.count("@softmetal_constant_" + n) != 0 || used.count("@softmetal_defined_" + n) != 0;
      for (const auto& p : k.parameters) named |= p.active == c.name;
      if (named) info.constants.push_back(constant_of(c));
    }
    infos.push_back(std::move(info));
  }
  return infos;
}

void mark_active(FunctionInfo& info, const ParsedKernel& kernel, const std::vector<int>& words) {
  std::size_t binding = 0;
  for (std::size_t p = 0; p < kernel.parameters.size(); ++p) {
    if (argument_kind(kernel.parameters[p].kind) > int{softmetal_abi::arg_threadgroup}) continue;
    const std::size_t at = 1 + p * kWords + word_active;
    if (at < words.size()) info.bindings[binding].active = words[at] - 1 != 0;
    ++binding;
  }
}

std::string join_words(const std::vector<int>& words) {
  std::string text;
  for (int w : words) text += std::to_string(w) + " ";
  return text;
}

std::vector<int> read_words(const std::string& text) {
  std::istringstream in(text);
  std::vector<int> words;
  for (int w = 0; in >> w;) words.push_back(w);
  return words;
}

// One line a field group; names and types come last because they hold spaces.
std::string serialise(const std::vector<FunctionInfo>& infos) {
  std::ostringstream out;
  out << infos.size() << "\n";
  for (const auto& i : infos) {
    out << i.bindings.size() << " " << i.constants.size() << " " << i.max_total_threads << " "
        << i.uses_simdgroup_matrix << " " << i.line << " " << i.name << "\n";
    for (const auto& b : i.bindings) {
      out << static_cast<int>(b.kind) << " " << b.index << " " << b.size << " " << b.alignment
          << " " << static_cast<int>(b.access) << " " << static_cast<int>(b.address_space) << " "
          << b.by_reference << " " << b.active << " " << b.name << " " << b.type << "\n";
    }
    for (const auto& c : i.constants) {
      out << c.index << " " << static_cast<int>(c.type) << " " << c.width << " " << c.required
          << " " << c.name << "\n";
    }
  }
  return out.str();
}

std::vector<FunctionInfo> deserialise(const std::string& text) {
  std::istringstream in(text);
  auto integer = [&] {
    std::uint32_t v = 0;
    in >> v;
    return v;
  };
  auto rest = [&] {
    std::string s;
    std::getline(in >> std::ws, s);
    return s;
  };
  std::vector<FunctionInfo> infos(integer());
  for (auto& i : infos) {
    i.bindings.resize(integer());
    i.constants.resize(integer());
    i.max_total_threads = integer();
    i.uses_simdgroup_matrix = integer() != 0;
    i.line = static_cast<int>(integer());
    i.name = rest();
    for (auto& b : i.bindings) {
      b.kind = static_cast<BindingKind>(integer());
      b.index = integer();
      b.size = integer();
      b.alignment = integer();
      b.access = static_cast<Access>(integer());
      b.address_space = static_cast<AddressSpace>(integer());
      b.by_reference = integer() != 0;
      b.active = integer() != 0;
      in >> b.name;
      b.type = rest();
    }
    for (auto& c : i.constants) {
      c.index = integer();
      c.type = static_cast<ScalarType>(integer());
      c.width = static_cast<int>(integer());
      c.required = integer() != 0;
      c.name = rest();
    }
  }
  return infos;
}

}  // namespace softmetal::msl
