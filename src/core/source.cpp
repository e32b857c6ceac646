#include "core/source.hpp"

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "core/kernel_files.hpp"

namespace ingot {
namespace {

std::string type_of(const Literal& literal) {
  return std::holds_alternative<bool>(literal.value) ? "bool" : "int";
}

std::string text_of(const Literal& literal) {
  if (const bool* flag = std::get_if<bool>(&literal.value)) return *flag ? "true" : "false";
  return std::to_string(std::get<std::int64_t>(literal.value));
}

/// The file named by a line `#include "..."`, empty for any other line.
std::string_view included_file(std::string_view line) {
  const std::size_t start = line.find_first_not_of(" \t");
  constexpr std::string_view directive = "#include \"";
  if (start == std::string_view::npos || line.substr(start, directive.size()) != directive) {
    return {};
  }
  line.remove_prefix(start + directive.size());
  return line.substr(0, line.find('"'));
}

void append_line_directive(std::string& out, std::size_t line, std::string_view file) {
  out += "#line " + std::to_string(line) + " \"" + std::string(file) + "\"\n";
}

void append_file(std::string& out, std::string_view file,
                 std::set<std::string, std::less<>>& seen) {
  if (!seen.emplace(file).second) return;
  std::string_view text = kernel_file(file);
  append_line_directive(out, 1, file);
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    if (const std::string_view included = included_file(line); !included.empty()) {
      append_file(out, included, seen);
      append_line_directive(out, number + 1, file);
    } else if (line != "#pragma once") {
      out.append(line).push_back('\n');
    }
  }
}

}  // namespace

std::string_view kernel_file(std::string_view path) {
  for (const EmbeddedFile& file : embedded_kernel_files()) {
    if (file.path == path) return file.text;
  }
  throw Error(Code::internal,
              "kernel file: must be built into the library, got " + std::string(path));
}

std::string emit_config(std::span<const Literal> config, std::string_view qualifiers) {
  std::string out = "struct Config {\n";
  for (const Literal& literal : config) {
    if (const auto* text = std::get_if<std::string>(&literal.value)) {
      out += "  // " + literal.name + ": " + *text + "\n";
    } else if (const auto* type = std::get_if<TypeName>(&literal.value)) {
      out += "  using " + literal.name + " = " + std::string(type->name) + ";\n";
    } else {
      out += "  " + std::string(qualifiers) + " " + type_of(literal) + " " + literal.name + " = " +
             text_of(literal) + ";\n";
    }
  }
  return out + "};\n";
}

std::string assemble_source(std::string_view file, std::span<const Literal> config,
                            std::string_view qualifiers, std::string_view prologue) {
  std::string out(prologue);
  out += emit_config(config, qualifiers);
  std::set<std::string, std::less<>> seen;
  append_file(out, file, seen);
  return out;
}

}  // namespace ingot
