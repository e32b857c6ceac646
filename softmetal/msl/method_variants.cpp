#include "rewrites.hpp"

// MSL overloads member functions by the address space of the object. Here one version serves all
// spaces, so the first of each set is kept and loses its qualifier; the others are dropped.

namespace softmetal::msl {
namespace {

bool space_word(const Token& t) {
  return t.is("device") || t.is("constant") || t.is("threadgroup") || t.is("thread");
}

class Variants {
 public:
  explicit Variants(Cursor& cursor) : cursor_(cursor) {}

  void run() {
    for (std::size_t i = 1; i < cursor_.size(); ++i) {
      if (cursor_[i].is("{")) opens_.push_back(i);
      if (cursor_[i].is("}") && !opens_.empty()) opens_.pop_back();
      if (space_word(cursor_[i]) && qualifies_function(i)) variant(i);
    }
  }

 private:
  bool qualifies_function(std::size_t i) {
    std::size_t before = i - 1;
    while (cursor_[before].is("const") || cursor_[before].is("volatile")) --before;
    if (!cursor_[before].is(")")) return false;
    const Token& next = cursor_[i + 1];
    return next.is("{") || next.is(":") || next.is(";") || next.is("=") || next.is("const");
  }

  std::size_t statement_begin(std::size_t i) {
    const std::size_t open = opens_.empty() ? 0 : opens_.back();
    int depth = 0;
    while (i > open + 1) {
      const Token& t = cursor_[i - 1];
      if (t.is(")")) ++depth;
      if (t.is("(")) --depth;
      const bool access =
          t.is(":") && (cursor_[i - 2].is("public") || cursor_[i - 2].is("private"));
      if (depth == 0 && (t.is(";") || t.is("}") || access)) break;
      --i;
    }
    return i;
  }

  bool constant_after(std::size_t i) {
    while (cursor_[i].text.empty() || space_word(cursor_[i])) ++i;
    return cursor_[i].is("const");
  }

  /// Whether the class already has the function whose head is [from, to], to being its `)`.
  bool seen(std::size_t from, std::size_t to) {
    const std::size_t open = opens_.empty() ? 0 : opens_.back();
    for (std::size_t at = open + 1; at + (to - from) < from; ++at) {
      std::size_t k = 0;
      while (from + k <= to && cursor_[at + k].text == cursor_[from + k].text) ++k;
      if (from + k > to && constant_after(at + k) == constant_after(to + 1)) return true;
    }
    return false;
  }

  void variant(std::size_t i) {
    std::size_t head = i - 1;
    while (!cursor_[head].is(")")) --head;
    std::size_t begin = statement_begin(head + 1);
    while (cursor_[begin].text.empty()) ++begin;  // variants that were dropped before
    if (!seen(begin, head)) {
      cursor_[i].text.clear();
      return;
    }
    std::size_t end = i;
    while (end < cursor_.size() && !cursor_[end].is("{") && !cursor_[end].is(";")) {
      end = cursor_[end].is("(") ? cursor_.close(end) + 1 : end + 1;
    }
    if (cursor_[end].is("{")) end = cursor_.close(end);
    for (std::size_t k = begin; k <= end; ++k) cursor_[k].text.clear();
  }

  Cursor& cursor_;
  std::vector<std::size_t> opens_;
};

}  // namespace

void merge_method_variants(Cursor& cursor) { Variants(cursor).run(); }

}  // namespace softmetal::msl
