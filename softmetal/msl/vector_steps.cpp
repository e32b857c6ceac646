#include "vector_steps.hpp"

#include <charconv>
#include <string_view>

namespace softmetal::msl {
namespace {

/// `<4 x float>` at `at`; moves behind it.
std::optional<VectorType> vector_type(std::string_view line, std::size_t& at) {
  if (at >= line.size() || line[at] != '<') return std::nullopt;
  const std::size_t shut = line.find('>', at);
  const std::size_t by = line.find(" x ", at);
  if (shut == std::string_view::npos || by == std::string_view::npos || by > shut) {
    return std::nullopt;
  }
  VectorType type;
  std::from_chars(line.data() + at + 1, line.data() + by, type.width);
  type.element = std::string(line.substr(by + 3, shut - by - 3));
  if (type.element == "i1") return std::nullopt;  // packed bits
  at = shut + 1;
  return type;
}

std::string word(std::string_view line, std::size_t& at) {
  while (at < line.size() && (line[at] == ' ' || line[at] == ',')) ++at;
  const std::size_t begin = at;
  while (at < line.size() && line[at] != ' ' && line[at] != ',') ++at;
  return std::string(line.substr(begin, at - begin));
}

Pointer pointer(std::string_view line, std::size_t at) {
  Pointer p;
  p.type = word(line, at);
  if (line.substr(at).starts_with(" addrspace(")) p.type += " " + word(line, at);
  p.value = word(line, at);
  return p;
}

std::optional<Step> read_memory(const std::string& line, std::size_t at, bool store) {
  Step s{store ? Step::Kind::store : Step::Kind::load, {}, {}, {}, {}, {}, {}, {}};
  const auto type = vector_type(line, at);
  if (!type) return std::nullopt;
  s.type = *type;
  if (store) s.value = word(line, at);
  if (line.compare(at, 5, ", ptr") != 0) return std::nullopt;
  s.memory = pointer(line, at + 2);
  return s;
}

std::optional<Step> read_insert(const std::string& line, std::size_t at) {
  Step s{Step::Kind::insert, {}, {}, {}, {}, {}, {}, {}};
  const auto type = vector_type(line, at);
  if (!type) return std::nullopt;
  s.type = *type;
  s.value = word(line, at);
  word(line, at);  // the element's type
  s.other = word(line, at);
  word(line, at);
  s.index = word(line, at);
  return s;
}

std::optional<Step> read_extract(const std::string& line, std::size_t at) {
  Step s{Step::Kind::extract, {}, {}, {}, {}, {}, {}, {}};
  const auto type = vector_type(line, at);
  if (!type) return std::nullopt;
  s.type = *type;
  s.value = word(line, at);
  word(line, at);
  s.index = word(line, at);
  return s;
}

std::optional<Step> read_shuffle(const std::string& line, std::size_t at) {
  Step s{Step::Kind::shuffle, {}, {}, {}, {}, {}, {}, {}};
  const auto type = vector_type(line, at);
  if (!type) return std::nullopt;
  s.type = *type;
  s.value = word(line, at);
  at += 2;
  if (!vector_type(line, at)) return std::nullopt;
  s.other = word(line, at);
  at += 2;
  const auto mask = vector_type(line, at);
  if (!mask) return std::nullopt;
  const std::string list = line.substr(at, line.find('>', at) - at);
  if (list.find("zeroinitializer") != std::string::npos || list.find('<') == std::string::npos) {
    s.mask.assign(static_cast<std::size_t>(mask->width), 0);
    return s;
  }
  for (std::size_t i = list.find("i32 "); i != std::string::npos; i = list.find("i32 ", i + 1)) {
    int lane = -1;
    std::from_chars(list.data() + i + 4, list.data() + list.size(), lane);
    s.mask.push_back(lane);
  }
  return s;
}

}  // namespace

std::optional<Step> read_step(const std::string& line) {
  if (!line.starts_with("  ")) return std::nullopt;
  if (line.starts_with("  store ")) return read_memory(line, 8, true);
  const std::size_t equals = line.find(" = ");
  if (equals == std::string::npos || line[2] != '%') return std::nullopt;
  const std::size_t verb = equals + 3;
  const std::size_t operand = line.find(' ', verb) + 1;
  std::optional<Step> s;
  if (line.compare(verb, 5, "load ") == 0) s = read_memory(line, operand, false);
  if (line.compare(verb, 14, "insertelement ") == 0) s = read_insert(line, operand);
  if (line.compare(verb, 15, "extractelement ") == 0) s = read_extract(line, operand);
  if (line.compare(verb, 14, "shufflevector ") == 0) s = read_shuffle(line, operand);
  if (s) s->result = line.substr(2, equals - 2);
  return s;
}

std::optional<int> number(const std::string& text) {
  int n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return n;
}

}  // namespace softmetal::msl
