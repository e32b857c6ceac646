#include "nvrtc/rewrite.hpp"

#include <algorithm>
#include <cctype>
#include <set>
#include <stdexcept>
#include <vector>

#include "ptx/asm_statement.hpp"
#include "ptx/translate.hpp"

namespace softcuda {
namespace {

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::set<std::string, std::less<>> words_of(std::string_view text) {
  std::set<std::string, std::less<>> words;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && is_word(text[end])) ++end;
    if (end > at && end < text.size() && text[end] == '(') words.emplace(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1));
}

/// Every place has the largest alignment that is asked for.
std::string without_attribute(const std::string& declaration) {
  if (!declaration.starts_with("__attribute__")) return declaration;
  int depth = 0;
  for (std::size_t at = 0; at < declaration.size(); ++at) {
    if (declaration[at] == '(') ++depth;
    if (declaration[at] == ')' && --depth == 0) {
      return trimmed(std::string_view(declaration).substr(at + 1));
    }
  }
  return declaration;
}

class Rewriter {
 public:
  Rewriter(std::string_view source, std::string_view prelude)
      : source_(source), functions_(words_of(prelude)) {}

  std::string run() {
    while (at_ < source_.size()) step();
    for (const std::string& kernel : kernels_) {
      out_ += "extern \"C\" __attribute__((visibility(\"default\"))) void softcuda_entry_" +
              kernel + "(void** arguments) { ::softcuda::call(&" + kernel + ", arguments); }\n";
      out_ +=
          "extern \"C\" __attribute__((visibility(\"default\"))) unsigned long long "
          "softcuda_size_" +
          kernel + "(unsigned i) { return ::softcuda::size_of_argument(&" + kernel + ", i); }\n";
    }
    return std::move(out_);
  }

 private:
  void step() {
    const char c = source_[at_];
    if (c == '#' && (out_.empty() || out_.back() == '\n')) return directive();
    if (const std::size_t end = skip_literal(source_, at_); end != at_) return copy(end);
    if (!is_word(c)) return copy(at_ + 1);
    std::size_t end = at_;
    while (end < source_.size() && is_word(source_[end])) ++end;
    const std::string_view word = source_.substr(at_, end - at_);
    if (word == "asm" || word == "__asm__") return assembly(end);
    if (word == "__shared__") return shared(end);
    if (word == "__global__") return kernel(end);
    copy(end);
  }

  void copy(std::size_t end) {
    out_ += source_.substr(at_, end - at_);
    at_ = end;
  }

  /// Line markers are followed; loops stay loops, which compiles faster.
  void directive() {
    const std::size_t end = std::min(source_.find('\n', at_), source_.size());
    const std::string_view line = source_.substr(at_, end - at_);
    if (line.starts_with("#pragma unroll")) {
      at_ = end;
      return;
    }
    copy(end);
  }

  void replace(std::size_t end, const std::string& with) {
    out_ += with;
    out_.append(static_cast<std::size_t>(std::ranges::count(source_.substr(at_, end - at_), '\n')),
                '\n');
    at_ = end;
  }

  void assembly(std::size_t end) {
    // The prelude reads registers of the host.
    if (source_.substr(at_, end - at_) == "__asm__") return copy(end);
    try {
      const AsmStatement statement = read_asm(source_, end);
      replace(end, translate(statement, [this](const std::string& name) {
                return functions_.contains(name);
              }));
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(place() + error.what());
    }
  }

  /// `extern __shared__ T name[];` is the start of dynamic shared memory; another variable has its
  /// place behind it.
  void shared(std::size_t begin) {
    const std::size_t end = source_.find(';', begin);
    if (end == std::string_view::npos) throw std::runtime_error(place() + "__shared__: no end");
    const std::string declaration = without_attribute(trimmed(source_.substr(begin, end - begin)));
    const std::size_t array = std::min(declaration.find('['), declaration.size());
    std::size_t name_end = array;
    while (name_end > 0 && !is_word(declaration[name_end - 1])) --name_end;
    std::size_t name = name_end;
    while (name > 0 && is_word(declaration[name - 1])) --name;
    const std::string type = trimmed(declaration.substr(0, name));
    const std::string variable = declaration.substr(name, name_end - name);
    if (drop_extern()) {
      replace(end + 1, type + "* const " + variable + " = static_cast<" + type +
                           "*>(::softcuda::dynamic_shared());");
      return;
    }
    const std::string whole = type + " " + declaration.substr(array);
    const std::string site = "softcuda_site_" + std::to_string(sites_++);
    replace(end + 1, "static const char " + site + " = 0; auto& " + variable +
                         " = ::softcuda::static_shared<" + whole + ">(&" + site + ");");
  }

  /// Takes back the word `extern` that was copied last.
  bool drop_extern() {
    const std::size_t end = out_.find_last_not_of(" \t\n");
    constexpr std::string_view word = "extern";
    if (end == std::string::npos || end + 1 < word.size() ||
        out_.compare(end + 1 - word.size(), word.size(), word) != 0) {
      return false;
    }
    out_.resize(end + 1 - word.size());
    return true;
  }

  /// The name stands in front of the first parenthesis.
  void kernel(std::size_t end) {
    const std::size_t open = std::min(source_.find('(', end), source_.size());
    const std::string head = trimmed(source_.substr(end, open - end));
    std::size_t name = head.size();
    while (name > 0 && is_word(head[name - 1])) --name;
    kernels_.push_back(head.substr(name));
    replace(end, "");
  }

  /// "file(12): error: " of the place that is read.
  std::string place() const {
    std::size_t line = 1;
    std::string file = "kernel";
    for (std::size_t at = 0; at < at_;) {
      const std::size_t end = std::min(source_.find('\n', at), source_.size());
      const std::string_view text = source_.substr(at, end - at);
      ++line;
      if (text.starts_with("# ")) {
        line = std::stoul(std::string(text.substr(2)));
        const std::size_t quote = text.find('"');
        file = text.substr(quote + 1, text.find('"', quote + 1) - quote - 1);
      }
      if (end >= at_) return file + "(" + std::to_string(line - 1) + "): error: ";
      at = end + 1;
    }
    return file + ": error: ";
  }

  std::string_view source_;
  const std::set<std::string, std::less<>> functions_;
  std::size_t at_ = 0;
  std::string out_;
  std::vector<std::string> kernels_;
  int sites_ = 0;
};

}  // namespace

std::string rewrite(std::string_view source, std::string_view prelude) {
  return Rewriter(source, prelude).run();
}

}  // namespace softcuda
