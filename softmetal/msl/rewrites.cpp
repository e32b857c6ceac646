#include "rewrites.hpp"

#include <algorithm>
#include <set>

namespace softmetal::msl {
namespace {

bool begins_statement(Cursor& cursor, std::size_t i) {
  while (i > 0) {
    const Token& before = cursor[i - 1];
    if (before.is("const") || before.is("volatile") || before.kind == Token::Kind::attribute) {
      --i;
      continue;
    }
    if (before.is(")")) {  // alignas(16)
      std::size_t open = i - 1;
      while (open > 0 && !cursor[open].is("(")) --open;
      if (open == 0 || !cursor[open - 1].is("alignas")) return false;
      i = open - 1;
      continue;
    }
    return before.is(";") || before.is("{") || before.is("}") || before.is(":");
  }
  return true;
}

/// Names declared by `threadgroup T a[..], b;` from the position of `threadgroup`; none if it
/// declares a pointer, a reference or a function. `end` is the position of the semicolon.
std::vector<std::string> declared_names(Cursor& cursor, std::size_t from, std::size_t& end) {
  std::vector<std::string> names;
  for (std::size_t i = from; i < cursor.size(); ++i) {
    const Token& t = cursor[i];
    if (t.is("<")) {
      const std::size_t shut = cursor.close(i);
      if (shut < cursor.size()) i = shut;
      continue;
    }
    if (t.is("*") || t.is("&") || t.is("&&")) return {};
    if (t.is("(")) {
      // alignas, decltype and __attribute__ may come before the name; anything else is a function.
      const Token& word = cursor[i - 1];
      if (!word.is("alignas") && !word.is("decltype") && !word.is("__attribute__")) return {};
      i = cursor.close(i);
      continue;
    }
    const bool ends_name = t.is("[") || t.is(",") || t.is(";") || t.is("=") || t.is("{");
    if (!ends_name) continue;
    std::size_t name = i - 1;
    while (cursor[name].kind == Token::Kind::attribute) --name;
    if (cursor[name].identifier()) names.push_back(cursor[name].text);
    while (i < cursor.size() && !cursor[i].is(",") && !cursor[i].is(";")) {
      const bool bracket = cursor[i].is("[") || cursor[i].is("(") || cursor[i].is("{");
      i = bracket ? cursor.close(i) + 1 : i + 1;
    }
    if (cursor[i].is(";")) {
      end = i;
      return names;
    }
  }
  return {};
}

const char* const kElements[] = {"bool", "char", "uchar", "short", "ushort", "int",
                                 "uint", "long", "ulong", "half",  "float",  "bfloat"};

class Constructors {
 public:
  explicit Constructors(Cursor& cursor) : cursor_(cursor) {
    for (const char* e : kElements) {
      for (const char* n : {"2", "3", "4"}) {
        vectors_.insert(std::string(e) + n);
        if (n[0] != '3') vectors_.insert("packed_" + std::string(e) + n);
      }
    }
    collect_aliases();
    collect_template_parameters();
  }

  void run() {
    for (std::size_t i = 0; i < cursor_.size(); ++i) {
      if (cursor_[i].is("static_cast")) {
        cast(i);
      } else if (known(cursor_[i]) || cursor_[i].is("vec")) {
        if (!direct_initialisation(i)) construct(i);
        bool_vector(i);
      }
    }
  }

 private:
  bool known(const Token& t) const {
    return t.identifier() && (vectors_.count(t.text) != 0 || parameters_.count(t.text) != 0);
  }
  bool names_vector(std::size_t from, std::size_t to) {
    while (from < to &&
           (cursor_[from].is("metal") || cursor_[from].is("::") || cursor_[from].is("typename"))) {
      ++from;
    }
    if (from + 1 == to) return known(cursor_[from]);
    return cursor_[from].is("vec") && cursor_[from + 1].is("<") &&
           cursor_.close(from + 1) + 1 == to;
  }

  void collect_aliases() {
    for (std::size_t i = 0; i < cursor_.size(); ++i) {
      std::size_t end = i;
      while (end < cursor_.size() && !cursor_[end].is(";")) ++end;
      if (cursor_[i].is("using") && cursor_[i + 2].is("=") && names_vector(i + 3, end)) {
        vectors_.insert(cursor_[i + 1].text);
      } else if (cursor_[i].is("typedef") && names_vector(i + 1, end - 1)) {
        vectors_.insert(cursor_[end - 1].text);
      }
    }
  }

  void collect_template_parameters() {
    for (std::size_t i = 0; i < cursor_.size(); ++i) {
      if (!cursor_[i].is("template") || !cursor_[i + 1].is("<")) continue;
      const std::size_t end = cursor_.close(i + 1);
      for (std::size_t k = i + 2; k < end; ++k) {
        const bool type = cursor_[k].is("typename") || cursor_[k].is("class");
        if (type && cursor_[k + 1].identifier()) parameters_.insert(cursor_[k + 1].text);
      }
    }
  }

  /// T (&x)[n] and T (*f)(...) declare; T(*p) does not.
  bool declarator(std::size_t open) {
    const Token& sign = cursor_[open + 1];
    if (!sign.is("&") && !sign.is("*")) return false;
    const std::size_t shut = cursor_.close(open);
    return sign.is("&") || cursor_[shut + 1].is("[") || cursor_[shut + 1].is("(");
  }

  void construct(std::size_t i) {
    std::size_t first = i;
    if (cursor_[i - 1].is("::")) {
      if (!cursor_[i - 2].is("metal")) return;
      first = i - 2;
    }
    std::size_t last = i;
    if (cursor_[i].is("vec")) {
      if (!cursor_[i + 1].is("<")) return;
      last = cursor_.close(i + 1);
    }
    const bool list =
        cursor_[last + 1].is("{") && (cursor_[i].is("vec") || vectors_.count(cursor_[i].text) != 0);
    if (!cursor_[last + 1].is("(") && !list) return;
    const Token& before = cursor_[first - 1];
    const bool other = first > 0 && (before.is("operator") || before.is(".") || before.is("->") ||
                                     before.is("~") || before.is("struct") || before.is("class") ||
                                     before.is("template"));
    if (other || (!list && declarator(last + 1))) return;
    if (list) {
      const std::size_t shut = cursor_.close(last + 1);
      cursor_[last + 1].text = "(";
      cursor_[shut].text = ")";
    }
    cursor_[first].text.insert(0, "softmetal::make<");
    cursor_[last].text += ">";
  }

  /// short2 x(a, b); but not the declaration of a function.
  bool direct_initialisation(std::size_t i) {
    if (vectors_.count(cursor_[i].text) == 0 || !cursor_[i + 1].identifier()) return false;
    if (!cursor_[i + 2].is("(") || cursor_[i + 3].is(")")) return false;
    const std::size_t shut = cursor_.close(i + 2);
    if (!cursor_[shut + 1].is(";") && !cursor_[shut + 1].is(",")) return false;
    for (std::size_t k = i + 3; k < shut; ++k) {
      const bool pair = cursor_[k].identifier() && cursor_[k + 1].identifier();
      if (pair || (known(cursor_[k]) && !cursor_[k + 1].is("("))) return false;
    }
    cursor_[i + 2].text = " = softmetal::make<" + cursor_[i].text + ">(";
    return true;
  }

  /// vec<bool, n> is a type of its own.
  void bool_vector(std::size_t i) {
    const bool flags = cursor_[i].is("vec") && cursor_[i + 1].is("<") && cursor_[i + 2].is("bool");
    if (!flags || !cursor_[i + 3].is(",")) return;
    if (cursor_[i - 1].is("::") && cursor_[i - 2].is("metal")) {
      cursor_[i - 1].text.clear();
      cursor_[i - 2].text.clear();
    }
    cursor_[i].text = "softmetal::Bools";
    cursor_[i + 2].text.clear();
    cursor_[i + 3].text.clear();
  }

  void cast(std::size_t i) {
    if (!cursor_[i + 1].is("<")) return;
    const std::size_t shut = cursor_.close(i + 1);
    const bool narrow =
        i + 3 == shut && (cursor_[i + 2].text.starts_with("bfloat") || cursor_[i + 2].is("half") ||
                          cursor_[i + 2].is("float16_t"));
    if (narrow || names_vector(i + 2, shut)) cursor_[i].text = "softmetal::cast";
  }

  Cursor& cursor_;
  std::set<std::string> vectors_, parameters_;
};

}  // namespace

void place_threadgroup_variables(Cursor& cursor) {
  std::vector<std::pair<std::size_t, std::string>> additions;  // later: they hide the semicolons
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    if (!cursor[i].is("threadgroup") || !begins_statement(cursor, i)) continue;
    std::size_t end = 0;
    const auto names = declared_names(cursor, i + 1, end);
    if (names.empty()) continue;
    cursor[i].text = "static thread_local threadgroup";
    for (const std::string& name : names)
      additions.emplace_back(end, " softmetal::escape(&" + name + ");");
  }
  for (const auto& [at, text] : additions) cursor[at].text += text;
}

void rewrite_array_parameters(Cursor& cursor) {
  for (std::size_t i = 1; i < cursor.size(); ++i) {
    const Token& t = cursor[i];
    const bool space = t.is("device") || t.is("constant") || t.is("threadgroup") || t.is("thread");
    std::size_t before = i - 1;
    while (cursor[before].is("const")) --before;
    if (!space || !(cursor[before].is("(") || cursor[before].is(","))) continue;
    for (std::size_t k = i + 1; k < cursor.size(); ++k) {
      const Token& at = cursor[k];
      if (at.is("<")) k = std::min(cursor.close(k), cursor.size() - 1);
      if (at.is("*") || at.is("&") || at.is(",") || at.is(")") || at.is(";") || at.is("(")) break;
      if (!at.is("[")) continue;
      const std::size_t shut = cursor.close(k);
      cursor[k - 1].text.insert(0, "*");
      for (std::size_t n = k; n <= shut && n < cursor.size(); ++n) cursor[n].text.clear();
      break;
    }
  }
}

void rewrite_constructors(Cursor& cursor) { Constructors(cursor).run(); }

void rewrite_literals(Cursor& cursor) {
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    Token& t = cursor[i];
    if (t.kind != Token::Kind::number || t.text.size() < 2) continue;
    const bool hex = t.text[1] == 'x' || t.text[1] == 'X';
    const char last = t.text.back();
    if (hex && t.text.find('p') == std::string::npos) continue;
    if (last == 'h' || last == 'H') {
      t.text = "half(" + t.text.substr(0, t.text.size() - 1) + "f)";
      if (t.text.find('.') == std::string::npos) t.text.insert(t.text.size() - 2, ".0");
    } else if (t.text.size() > 2 && (t.text.ends_with("bf") || t.text.ends_with("BF"))) {
      t.text = "bfloat(" + t.text.substr(0, t.text.size() - 2) + "f)";
    }
  }
}

}  // namespace softmetal::msl
