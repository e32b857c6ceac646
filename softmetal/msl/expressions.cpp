#include "rewrites.hpp"

// Rewrites of expressions that clang rejects and MSL accepts. They look at tokens only, so they are
// made where clang found something to object to.

namespace softmetal::msl {
namespace {

bool opens(const Token& t) { return t.is("(") || t.is("[") || t.is("{"); }
bool closes(const Token& t) { return t.is(")") || t.is("]") || t.is("}"); }

/// The end of the expression at `from`: where a `:` (of ours), `,` `;` or closing bracket stands.
std::size_t operand_end(Cursor& cursor, std::size_t from) {
  int inner = 0;  // conditionals that began inside
  for (std::size_t i = from; i < cursor.size(); ++i) {
    const Token& t = cursor[i];
    if (opens(t)) {
      i = cursor.close(i);
      continue;
    }
    if (t.is("?")) ++inner;
    if (t.is(":") && inner-- == 0) return i;
    if (t.is(",") || t.is(";") || closes(t)) return i;
    if (t.is("<")) {  // template arguments may hold commas
      const std::size_t shut = cursor.close(i);
      if (shut < cursor.size() && (cursor[shut + 1].is("(") || cursor[shut + 1].is("{"))) i = shut;
    }
  }
  return cursor.size();
}

/// Literals and null pointers mean less when they have passed through a function.
bool worth_copying(Cursor& cursor, std::size_t from, std::size_t to) {
  if (from >= to) return false;
  const Token& t = cursor[from];
  const bool single = from + 1 == to;
  return !(single &&
           (t.kind == Token::Kind::number || t.is("nullptr") || t.is("true") || t.is("false"))) &&
         !t.is("throw") && !(t.is("-") && from + 2 == to);
}

void copy_out(Cursor& cursor, std::size_t from, std::size_t to) {
  if (!worth_copying(cursor, from, to)) return;
  cursor[from].text.insert(0, "softmetal::copied_out(");
  cursor[to - 1].text += ")";
}

}  // namespace

void drop_coherent(Cursor& cursor) {
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    if (!cursor[i].is("coherent")) continue;
    const std::size_t last = cursor[i + 1].is("(") ? cursor.close(i + 1) : i;
    const Token& next = cursor[last + 1];
    if (!next.is("device") && !next.is("const") && !next.is("volatile")) continue;
    for (std::size_t k = i; k <= last; ++k) cursor[k].text.clear();
  }
}

void rewrite_conditionals(Cursor& cursor) {
  for (std::size_t i = 0; i < cursor.size(); ++i) {
    if (!cursor[i].is("?")) continue;
    const std::size_t colon = operand_end(cursor, i + 1);
    if (!cursor[colon].is(":")) continue;
    const std::size_t end = operand_end(cursor, colon + 1);
    if (end >= cursor.size()) continue;
    copy_out(cursor, i + 1, colon);
    copy_out(cursor, colon + 1, end);
  }
}

void rewrite_braced_lists(Cursor& cursor) {
  for (std::size_t i = 2; i < cursor.size(); ++i) {
    if (!cursor[i].is("{") || !(cursor[i - 1].is("(") || cursor[i - 1].is(","))) continue;
    const std::size_t shut = cursor.close(i);
    if (!cursor[shut + 1].is(",") && !cursor[shut + 1].is(")")) continue;
    int elements = 1;
    for (std::size_t k = i + 1; k < shut; ++k) {
      if (opens(cursor[k])) k = cursor.close(k);
      if (cursor[k].is(",")) ++elements;
      if (cursor[k].is(";")) elements = 0;
    }
    if (elements < 2 || elements > 4) continue;
    cursor[i].text = "softmetal::braced(";
    cursor[shut].text = ")";
  }
}

}  // namespace softmetal::msl
