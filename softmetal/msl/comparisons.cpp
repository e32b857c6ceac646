#include "comparisons.hpp"

#include <cctype>
#include <map>
#include <vector>

namespace softmetal::msl {
namespace {

/// The comparison operator at `at`; empty if there is none.
std::string_view comparison_at(std::string_view text, std::size_t at) {
  const std::string_view rest = text.substr(at);
  for (std::string_view op : {"<=", ">=", "==", "!=", "<", ">"}) {
    if (rest.starts_with(op)) return rest.substr(0, op.size());
  }
  return {};
}

/// `# 12 "file"` or `#line 12 "file"`: sets where the next line is.
bool read_marker(std::string_view line, std::string& file, int& number) {
  std::size_t i = 1;
  while (i < line.size() && (line[i] == ' ' || std::isalpha(static_cast<unsigned char>(line[i])))) {
    ++i;
  }
  if (line.empty() || line[0] != '#' || i >= line.size() ||
      std::isdigit(static_cast<unsigned char>(line[i])) == 0) {
    return false;
  }
  number = 0;
  while (i < line.size() && std::isdigit(static_cast<unsigned char>(line[i])) != 0) {
    number = number * 10 + (line[i++] - '0');
  }
  const std::size_t open = line.find('"', i);
  const std::size_t shut = line.find('"', open + 1);
  if (open != std::string_view::npos && shut != std::string_view::npos) {
    file = std::string(line.substr(open + 1, shut - open - 1));
  }
  return true;
}

}  // namespace

std::set<TextPlace> vector_comparisons(const IrModule& module) {
  std::set<TextPlace> places;
  for (const std::string& line : module.lines()) {
    const std::size_t verb = line.find("cmp ");
    if (verb == std::string::npos || line.find(" x ", verb) == std::string::npos) continue;
    if (line[verb - 1] != 'f' && line[verb - 1] != 'i') continue;
    const std::size_t type = line.find('<', verb);
    if (type == std::string::npos || type > line.find('%', verb)) continue;
    const auto place = module.text_place(line);
    const bool library = place && place->file.find("softmetal_") != std::string::npos;
    if (place && !library) places.insert(*place);
  }
  return places;
}

std::string with_bool_comparisons(const std::string& text, const std::set<TextPlace>& places) {
  std::string out;
  std::string file = "lowered.cpp";
  int number = 1;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = text.find('\n', at);
    end = end == std::string::npos ? text.size() : end + 1;
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end;
    if (read_marker(line, file, number)) {
      out += line;
      continue;
    }
    std::size_t done = 0;
    for (auto p = places.lower_bound({file, number, 0}); p != places.end(); ++p) {
      if (p->file != file || p->line != number) break;
      const auto column = static_cast<std::size_t>(p->column - 1);
      if (p->column < 1 || column < done || column >= line.size()) continue;
      const std::string_view op = comparison_at(line, column);
      if (op.empty()) continue;
      out += line.substr(done, column - done);
      out.append(op).append(" softmetal::compared ").append(op);
      done = column + op.size();
    }
    out += line.substr(done);
    ++number;
  }
  return out;
}

}  // namespace softmetal::msl
