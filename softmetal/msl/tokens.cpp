#include "tokens.hpp"

#include <array>
#include <cctype>

namespace softmetal::msl {
namespace {

bool word_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

class Splitter {
 public:
  explicit Splitter(std::string_view text) : text_(text) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) next();
    return std::move(tokens_);
  }

 private:
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }

  void next() {
    const char c = peek();
    const bool line_start = at_ == 0 || text_[at_ - 1] == '\n';
    if (c == '#' && line_start) return directive();
    if (std::isspace(static_cast<unsigned char>(c)) != 0) return space();
    if (word_start(c)) return take(Token::Kind::identifier, word_end());
    if (digit(c) || (c == '.' && digit(peek(1)))) return take(Token::Kind::number, number_end());
    if (c == '"' || c == '\'') return take(Token::Kind::string, string_end(c));
    take(Token::Kind::punctuation, punctuation_end());
  }

  void take(Token::Kind kind, std::size_t end) {
    Token token;
    token.kind = kind;
    token.text = std::string(text_.substr(at_, end - at_));
    token.file = file_;
    token.line = line_;
    at_ = end;
    tokens_.push_back(std::move(token));
  }

  void space() {
    // One token a line, so that line numbers stay right.
    std::size_t end = at_;
    while (end < text_.size() && std::isspace(static_cast<unsigned char>(text_[end])) != 0) {
      if (text_[end++] == '\n') break;
    }
    const bool new_line = text_[end - 1] == '\n';
    take(Token::Kind::space, end);
    if (new_line) ++line_;
  }

  void directive() {
    std::size_t end = text_.find('\n', at_);
    end = end == std::string_view::npos ? text_.size() : end + 1;
    const std::string_view body = text_.substr(at_, end - at_);
    take(Token::Kind::directive, end);
    ++line_;
    std::size_t i = 1;
    while (i < body.size() && body[i] == ' ') ++i;
    if (i >= body.size() || !digit(body[i])) return;
    int line = 0;
    while (i < body.size() && digit(body[i])) line = line * 10 + (body[i++] - '0');
    line_ = line;
    const std::size_t open = body.find('"', i);
    const std::size_t shut = body.find('"', open + 1);
    if (open != std::string_view::npos && shut != std::string_view::npos) {
      file_ = std::string(body.substr(open + 1, shut - open - 1));
    }
  }

  std::size_t word_end() const {
    std::size_t end = at_;
    while (end < text_.size() && word(text_[end])) ++end;
    return end;
  }
  std::size_t number_end() const {
    std::size_t end = at_;
    const bool hex = peek() == '0' && (peek(1) == 'x' || peek(1) == 'X');
    while (end < text_.size()) {
      const char c = text_[end];
      const char before = end > at_ ? text_[end - 1] : '\0';
      const bool exponent = hex ? before == 'p' || before == 'P' : before == 'e' || before == 'E';
      if (!word(c) && c != '.' && !((c == '+' || c == '-') && exponent)) break;
      ++end;
    }
    return end;
  }
  std::size_t string_end(char quote) const {
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    return std::min(end + 1, text_.size());
  }
  std::size_t punctuation_end() const {
    static constexpr std::array<std::string_view, 18> kLong{
        "...", "<<=", "->*", "::", "->", "++", "--", "&&", "||",
        "==",  "!=",  "<=",  ">=", "+=", "-=", "*=", "/=", "<<"};
    for (std::string_view op : kLong) {
      if (text_.substr(at_, op.size()) == op) return at_ + op.size();
    }
    return at_ + 1;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::string file_ = "program_source";
  std::vector<Token> tokens_;
};

/// The names in the tokens between [[ and ]].
std::vector<Attribute> parse_attributes(const std::vector<Token>& tokens, std::size_t from,
                                        std::size_t to) {
  std::vector<Attribute> list;
  int depth = 0;
  for (std::size_t i = from; i < to; ++i) {
    const Token& t = tokens[i];
    if (t.kind == Token::Kind::space) {
      if (depth > 0) list.back().argument += ' ';
      continue;
    }
    if (t.is("(") && depth++ == 0) continue;
    if (t.is(")") && --depth == 0) continue;
    if (depth > 0 && !list.empty()) {
      list.back().argument += t.text;
    } else if (t.identifier()) {
      list.push_back({t.text, ""});
    }
  }
  return list;
}

/// Folds [[ ... ]] into one token, keeping the line breaks.
std::vector<Token> fold_attributes(std::vector<Token> tokens) {
  std::vector<Token> out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const bool opens = tokens[i].is("[") && i + 1 < tokens.size() && tokens[i + 1].is("[");
    if (!opens) {
      out.push_back(std::move(tokens[i]));
      continue;
    }
    std::size_t end = i + 2;
    int depth = 0;
    for (; end < tokens.size(); ++end) {
      if (tokens[end].is("[")) ++depth;
      if (tokens[end].is("]") && depth-- == 0) break;
    }
    Token attribute;
    attribute.kind = Token::Kind::attribute;
    attribute.file = tokens[i].file;
    attribute.line = tokens[i].line;
    attribute.attributes = parse_attributes(tokens, i + 2, end);
    for (std::size_t k = i; k < end; ++k) {
      if (tokens[k].text.find('\n') != std::string::npos) attribute.text += '\n';
    }
    out.push_back(std::move(attribute));
    i = end + 1;
  }
  return out;
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) { return fold_attributes(Splitter(text).run()); }

std::string join(const std::vector<Token>& tokens) {
  std::string out;
  for (const Token& t : tokens) out += t.text;
  return out;
}

Cursor::Cursor(std::vector<Token>& tokens) : tokens_(tokens) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto kind = tokens[i].kind;
    if (kind != Token::Kind::space && kind != Token::Kind::directive) significant_.push_back(i);
  }
  none_.kind = Token::Kind::punctuation;
}

Token& Cursor::operator[](std::size_t i) {
  return i < significant_.size() ? tokens_[significant_[i]] : none_;
}

std::size_t Cursor::close(std::size_t open) {
  const bool angles = (*this)[open].is("<");
  int depth = 0;
  int round = 0;
  for (std::size_t i = open; i < size(); ++i) {
    const Token& t = (*this)[i];
    if (t.is("(") || t.is("[") || t.is("{")) ++round;
    if (t.is(")") || t.is("]") || t.is("}")) --round;
    if (angles && round == 0 && t.is("<")) ++depth;
    if (angles && round == 0 && t.is(">") && --depth == 0) return i;
    if (angles && (round < 0 || t.is(";"))) return size();
    if (!angles && round == 0) return i;
  }
  return size();
}

std::size_t Cursor::open_angle(std::size_t shut) {
  int depth = 0;
  int round = 0;
  for (std::size_t i = shut;; --i) {
    const Token& t = (*this)[i];
    if (t.is(")") || t.is("]") || t.is("}")) ++round;
    if (t.is("(") || t.is("[") || t.is("{")) --round;
    if (round == 0 && t.is(">")) ++depth;
    if (round == 0 && t.is("<") && --depth == 0) return i;
    if (i == 0) return 0;
  }
}

std::string Cursor::text(std::size_t from, std::size_t to) {
  std::string out;
  for (std::size_t i = from; i < to && i < size(); ++i) {
    const Token& t = (*this)[i];
    const bool words = !out.empty() && !t.text.empty() && word(out.back()) && word(t.text.front());
    if (words) out += ' ';
    out += t.text;
  }
  return out;
}

}  // namespace softmetal::msl
