// Preprocessed MSL text as tokens that remember their place and can be rewritten.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace softmetal::msl {

/// One name of a [[...]] list with the text of its arguments.
struct Attribute {
  std::string name;
  std::string argument;
};

struct Token {
  enum class Kind { identifier, number, string, punctuation, space, directive, attribute };
  Kind kind = Kind::space;
  std::string text;  ///< what is written out; the passes change it
  std::string file;
  int line = 0;
  std::vector<Attribute> attributes;  ///< of Kind::attribute

  bool is(std::string_view t) const { return kind != Kind::space && text == t; }
  bool identifier() const { return kind == Kind::identifier; }
};

/// Splits preprocessed text; every [[...]] becomes one attribute token with an empty text.
std::vector<Token> tokenize(std::string_view text);
std::string join(const std::vector<Token>& tokens);

/// A view of the tokens without space and directives.
class Cursor {
 public:
  explicit Cursor(std::vector<Token>& tokens);
  std::size_t size() const { return significant_.size(); }
  /// Out of range gives an empty punctuation token.
  Token& operator[](std::size_t i);
  /// The position of the bracket that closes the one at `open`; size() if none. Knows ( [ { and,
  /// where `open` is <, angle brackets.
  std::size_t close(std::size_t open);
  /// The position of the < that the > at `shut` closes; 0 if none.
  std::size_t open_angle(std::size_t shut);
  /// The written text of [from, to).
  std::string text(std::size_t from, std::size_t to);

 private:
  std::vector<Token>& tokens_;
  std::vector<std::size_t> significant_;
  Token none_;
};

}  // namespace softmetal::msl
