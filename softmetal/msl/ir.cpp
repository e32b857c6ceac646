#include "ir.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <stdexcept>

namespace softmetal::msl {
namespace {

bool name_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '$' ||
         c == '-';
}

std::string field(std::string_view line, std::string_view name) {
  const std::size_t at = line.find(name);
  if (at == std::string_view::npos) return {};
  std::size_t begin = at + name.size();
  std::size_t end = begin;
  while (end < line.size() && line[end] != ',' && line[end] != ')') ++end;
  return std::string(line.substr(begin, end - begin));
}

std::string quoted(std::string_view line, std::string_view name) {
  const std::size_t at = line.find(name);
  if (at == std::string_view::npos) return {};
  const std::size_t open = line.find('"', at) + 1;
  return std::string(line.substr(open, line.find('"', open) - open));
}

int to_int(std::string_view s) {
  int value = 0;
  std::from_chars(s.data(), s.data() + s.size(), value);
  return value;
}

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

}  // namespace

std::vector<std::string> symbols_in(std::string_view line) {
  std::vector<std::string> found;
  for (std::size_t at = line.find('@'); at != std::string_view::npos; at = line.find('@', at + 1)) {
    std::size_t end = at + 1;
    if (end < line.size() && line[end] == '"') {
      end = line.find('"', end + 1) + 1;
    } else {
      while (end < line.size() && name_char(line[end])) ++end;
    }
    found.emplace_back(line.substr(at, end - at));
    at = end - 1;
  }
  return found;
}

IrModule::IrModule(std::string text) {
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    lines_.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  for (const std::string& line : lines_) {
    if (line.starts_with("!")) read_metadata(line);
    const std::size_t equals = line.find(" = ");
    if (line.starts_with("%") && line.find(" = type ") == equals) {
      types_[line.substr(0, equals)] = line.substr(equals + 8);
    }
    if (line.starts_with("@") && equals != std::string::npos)
      globals_[line.substr(0, equals)] = line;
  }
  read_references();
}

void IrModule::read_metadata(const std::string& line) {
  const std::size_t equals = line.find(" = ");
  if (equals == std::string::npos) return;
  const std::string id = line.substr(0, equals);
  if (line.find("!DILocation(") != std::string::npos) {
    locations_[id] = {to_int(field(line, "line: ")), to_int(field(line, "column: ")),
                      field(line, "scope: "), field(line, "inlinedAt: ")};
  } else if (line.find("!DIFile(") != std::string::npos) {
    files_[id] = quoted(line, "filename: ");
  } else if (line.find("!DISubprogram(") != std::string::npos ||
             line.find("!DILexicalBlock") != std::string::npos) {
    scopes_[id] = line;
  }
}

void IrModule::read_references() {
  for (const auto& [symbol, line] : globals_) {
    for (auto& s : symbols_in(std::string_view(line).substr(symbol.size()))) {
      references_[symbol].insert(s);
    }
  }
  std::string function;
  std::set<std::string> stored, used;
  for (const std::string& line : lines_) {
    if (line.starts_with("define ")) {
      function = symbols_in(line).front();
      stored.clear();
      used.clear();
    } else if (line.starts_with("}")) {
      references_[function].insert(used.begin(), used.end());
      // What a dynamic initialiser reads, the variable that it writes depends on.
      if (function.starts_with("@__cxx_global_var_init")) {
        for (const auto& s : stored) references_[s].insert(used.begin(), used.end());
      }
      function.clear();
    } else if (!function.empty()) {
      const auto symbols = symbols_in(line);
      used.insert(symbols.begin(), symbols.end());
      if (line.find(" store ") != std::string::npos) stored.insert(symbols.begin(), symbols.end());
    }
  }
}

std::set<std::string> IrModule::reachable(const std::string& symbol) const {
  std::set<std::string> seen{symbol};
  std::vector<std::string> todo{symbol};
  while (!todo.empty()) {
    const std::string next = todo.back();
    todo.pop_back();
    const auto found = references_.find(next);
    if (found == references_.end()) continue;
    for (const auto& s : found->second) {
      if (seen.insert(s).second) todo.push_back(s);
    }
  }
  return seen;
}

std::vector<int> IrModule::words(const std::string& symbol) const {
  const auto found = globals_.find(symbol);
  std::vector<int> out;
  if (found == globals_.end()) return out;
  const std::string& line = found->second;
  const std::size_t begin = line.find("[i32 ");
  if (begin == std::string::npos) return out;
  for (std::size_t at = begin; at != std::string::npos; at = line.find("i32 ", at + 1)) {
    const std::size_t number = line.find("i32 ", at) + 4;
    out.push_back(to_int(std::string_view(line).substr(number)));
    at = number - 1;
  }
  return out;
}

std::string_view IrModule::read_type(std::string_view line, std::size_t& at) const {
  const std::size_t begin = at;
  int depth = 0;
  for (; at < line.size(); ++at) {
    const char c = line[at];
    if (c == '[' || c == '<' || c == '{' || c == '(') ++depth;
    if (c == ']' || c == '>' || c == '}' || c == ')') --depth;
    if (depth < 0) break;
    if (depth == 0 && (c == ' ' || c == ',')) {
      if (line.substr(at).starts_with(" addrspace(")) continue;
      break;
    }
  }
  return line.substr(begin, at - begin);
}

IrModule::Layout IrModule::layout(std::string_view type) const {
  if (type.starts_with("ptr")) return {8, 8};
  if (type == "half" || type == "bfloat") return {2, 2};
  if (type == "float") return {4, 4};
  if (type == "double") return {8, 8};
  if (type.starts_with("i")) {
    const auto bits = static_cast<std::uint64_t>(to_int(type.substr(1)));
    const std::uint64_t bytes = bits <= 8    ? 1
                                : bits <= 16 ? 2
                                : bits <= 32 ? 4
                                             : (bits + 63) / 64 * 8;
    return {bytes, std::min<std::uint64_t>(bytes, 16)};
  }
  if (type.starts_with("%")) {
    const auto found = types_.find(type);
    if (found == types_.end()) throw std::runtime_error("IR type not known: " + std::string(type));
    return layout(found->second);
  }
  const bool packed = type.starts_with("<{");
  if (type.starts_with("{") || packed) {
    Layout sum{0, 1};
    std::size_t at = packed ? 2 : 1;
    while (at < type.size() && type[at] != '}') {
      if (type[at] == ' ' || type[at] == ',') {
        ++at;
        continue;
      }
      const Layout element = layout(read_type(type, at));
      if (!packed) {
        sum.bytes = round_up(sum.bytes, element.alignment);
        sum.alignment = std::max(sum.alignment, element.alignment);
      }
      sum.bytes += element.bytes;
    }
    return {round_up(sum.bytes, sum.alignment), sum.alignment};
  }
  if (type.starts_with("[") || type.starts_with("<")) {
    const std::size_t by = type.find(" x ");
    const auto n = static_cast<std::uint64_t>(to_int(type.substr(1)));
    std::size_t at = by + 3;
    const Layout element = layout(read_type(type, at));
    if (type.starts_with("[")) return {n * element.bytes, element.alignment};
    std::uint64_t bytes =
        type.find(" x i1>") != std::string_view::npos ? (n + 7) / 8 : n * element.bytes;
    bytes = std::bit_ceil(std::max<std::uint64_t>(1, bytes));
    return {bytes, bytes};
  }
  throw std::runtime_error("IR type not understood: " + std::string(type));
}

std::uint64_t IrModule::size_of(std::string_view type) const { return layout(type).bytes; }

std::uint64_t IrModule::moved_bytes(std::string_view type) const {
  const std::size_t by = type.find(" x ");
  if (!type.starts_with("<") || type.starts_with("<{") || type.ends_with(" x i1>")) {
    return size_of(type);
  }
  return static_cast<std::uint64_t>(to_int(type.substr(1))) *
         size_of(type.substr(by + 3, type.size() - by - 4));
}

std::vector<ThreadgroupVariable> IrModule::threadgroup_variables() const {
  std::vector<ThreadgroupVariable> found;
  for (const auto& [symbol, line] : globals_) {
    const std::size_t space = line.find(" addrspace(3) global ");
    if (space == std::string::npos || line.find("thread_local") == std::string::npos) continue;
    std::size_t at = space + 21;
    ThreadgroupVariable v;
    v.symbol = symbol;
    v.type = std::string(read_type(line, at));
    v.bytes = size_of(v.type);
    const std::size_t align = line.find(", align ", at);
    if (align != std::string::npos) {
      v.alignment = static_cast<std::uint64_t>(to_int(std::string_view(line).substr(align + 8)));
    }
    found.push_back(std::move(v));
  }
  return found;
}

std::string IrModule::file_of(std::string scope) const {
  const auto line = scopes_.find(scope);
  if (line == scopes_.end()) return {};
  const auto file = files_.find(field(line->second, "file: "));
  return file == files_.end() ? std::string() : file->second;
}

std::optional<TextPlace> IrModule::text_place(std::string_view line) const {
  const std::size_t at = line.find("!dbg !");
  if (at == std::string_view::npos) return std::nullopt;
  const auto found = locations_.find(field(line, "!dbg "));
  if (found == locations_.end()) return std::nullopt;
  const Location& l = found->second;
  return TextPlace{file_of(l.scope), l.line, l.column};
}

std::optional<SourcePlace> IrModule::place(std::string_view line) const {
  const std::size_t at = line.find("!dbg !");
  if (at == std::string_view::npos) return std::nullopt;
  std::string id = field(line, "!dbg ");
  while (!id.empty()) {
    const auto found = locations_.find(id);
    if (found == locations_.end()) return std::nullopt;
    const std::string file = file_of(found->second.scope);
    const bool library = file.find("softmetal_") != std::string::npos;
    if (!library) return SourcePlace{file, found->second.line};
    id = found->second.inlined_at;
  }
  return std::nullopt;
}

}  // namespace softmetal::msl
