#include "ptx/asm_statement.hpp"

#include <cctype>
#include <stdexcept>

namespace softcuda {
namespace {

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

/// What a literal between quotes stands for.
std::string resolve(std::string_view literal) {
  std::string text;
  for (std::size_t i = 0; i < literal.size(); ++i) {
    if (literal[i] != '\\' || i + 1 == literal.size()) {
      text += literal[i];
      continue;
    }
    const char c = literal[++i];
    text += c == 'n' ? '\n' : c == 't' ? '\t' : c;
  }
  return text;
}

class Reader {
 public:
  Reader(std::string_view source, std::size_t at) : source_(source), at_(at) {}

  std::size_t at() const { return at_; }

  void skip_spaces() {
    while (at_ < source_.size() && is_space(source_[at_])) ++at_;
  }
  bool take(char c) {
    skip_spaces();
    if (at_ >= source_.size() || source_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) throw std::runtime_error(std::string("asm: expected ") + c);
  }
  bool take_word(std::string_view word) {
    skip_spaces();
    if (source_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  /// Adjacent literals, joined; "" where there is none.
  std::string literals() {
    std::string text;
    for (skip_spaces(); at_ < source_.size() && source_[at_] == '"'; skip_spaces()) {
      const std::size_t end = skip_literal(source_, at_);
      text += resolve(source_.substr(at_ + 1, end - at_ - 2));
      at_ = end;
    }
    return text;
  }
  /// Up to the parenthesis that closes the one just taken, which is taken, too.
  std::string expression() {
    const std::size_t begin = at_;
    for (int depth = 1; at_ < source_.size();) {
      const std::size_t behind = skip_literal(source_, at_);
      if (behind != at_) {
        at_ = behind;
        continue;
      }
      const char c = source_[at_++];
      if (c == '(') ++depth;
      if (c == ')' && --depth == 0) return std::string(source_.substr(begin, at_ - 1 - begin));
    }
    throw std::runtime_error("asm: an operand has no end");
  }

 private:
  std::string_view source_;
  std::size_t at_;
};

}  // namespace

std::size_t skip_literal(std::string_view source, std::size_t at) {
  const char quote = source[at];
  if (quote != '"' && quote != '\'') return at;
  for (std::size_t i = at + 1; i < source.size(); ++i) {
    if (source[i] == '\\') {
      ++i;
    } else if (source[i] == quote) {
      return i + 1;
    }
  }
  return source.size();
}

AsmStatement read_asm(std::string_view source, std::size_t& at) {
  Reader reader(source, at);
  while (reader.take_word("volatile") || reader.take_word("__volatile__")) {
  }
  reader.expect('(');
  AsmStatement statement;
  statement.text = reader.literals();
  for (int list = 0; list < 3 && reader.take(':'); ++list) {
    do {
      const std::string constraint = reader.literals();
      if (list == 2 || constraint.empty()) continue;  // a clobber, or an empty list
      reader.expect('(');
      statement.operands.push_back({constraint, reader.expression()});
    } while (reader.take(','));
  }
  reader.expect(')');
  reader.expect(';');
  at = reader.at();
  return statement;
}

}  // namespace softcuda
