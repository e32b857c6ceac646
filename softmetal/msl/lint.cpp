#include "lint.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "builtins.hpp"
#include "cache.hpp"
#include "compiler.hpp"
#include "front_end.hpp"
#include "ir.hpp"
#include "source_pass.hpp"
#include "tokens.hpp"

namespace softmetal::msl {
namespace {

const std::map<std::string_view, const char*> kForbidden{
    {"double", "double is not a type of MSL"},
    {"new", "MSL has no new"},
    {"delete", "MSL has no delete"},
    {"virtual", "MSL has no virtual functions"},
    {"throw", "MSL has no exceptions"},
    {"try", "MSL has no exceptions"},
    {"catch", "MSL has no exceptions"},
    {"goto", "MSL has no goto"},
    {"dynamic_cast", "MSL has no dynamic_cast"},
    {"typeid", "MSL has no typeid"},
    {"thread_local", "MSL has no thread_local"},
    {"asm", "inline assembly is not available"},
    {"__asm", "private intrinsics by __asm are rejected from macOS 26 on"},
    {"__asm__", "private intrinsics by __asm__ are rejected from macOS 26 on"}};

/// Words that a parenthesis may follow without a call.
const std::set<std::string_view> kWords{
    "if",       "for",           "while",      "switch",   "return",        "sizeof",
    "alignof",  "alignas",       "decltype",   "noexcept", "static_assert", "operator",
    "constant", "__attribute__", "device",     "thread",   "threadgroup",   "static_cast",
    "case",     "else",          "const_cast", "do",       "defined",       "reinterpret_cast",
    "auto",     "bool",          "unsigned",   "signed",   "const",         "template",
    "typename", "size_t",        "ptrdiff_t",  "requires", "explicit",      "_Pragma",
    "constexpr"};

const std::set<std::string_view> kScalars{
    "bool",     "char",    "uchar",    "short",   "ushort",   "int",    "uint",    "long",
    "ulong",    "half",    "float",    "bfloat",  "size_t",   "int8_t", "uint8_t", "int16_t",
    "uint16_t", "int32_t", "uint32_t", "int64_t", "uint64_t", "void"};

bool vector_name(const Token& t) {
  if (!t.identifier() || t.text.size() < 4) return false;
  const char n = t.text.back();
  return n >= '2' && n <= '4' && kScalars.count(t.text.substr(0, t.text.size() - 1)) != 0;
}
bool type_name(const Token& t) { return kScalars.count(t.text) != 0 || vector_name(t); }

class Linter {
 public:
  Linter(std::string_view preprocessed, const CompileOptions& options)
      : tokens_(tokenize(preprocessed)), cursor_(tokens_), version_(options.language_version) {}

  std::vector<Diagnostic> run() {
    collect_declared();
    for (std::size_t i = 0; i < cursor_.size(); ++i) {
      scope(i);
      word(i);
      call(i);
      static_variable(i);
      lambda(i);
      unqualified_pointer(i);
      vector_cast(i);
    }
    return std::move(found_);
  }

 private:
  void add(std::size_t i, std::string text) {
    const Token& t = cursor_[i];
    found_.push_back({Diagnostic::Severity::error, t.file, t.line, 1, std::move(text)});
  }

  /// Tracks whether a brace opened a function's body.
  void scope(std::size_t i) {
    if (cursor_[i].is("{")) {
      std::size_t before = i - 1;
      while (cursor_[before].is("const") || cursor_[before].kind == Token::Kind::attribute)
        --before;
      const bool body =
          cursor_[before].is(")") || cursor_[before].is("else") || cursor_[before].is("do");
      functions_.push_back(body || (!functions_.empty() && functions_.back()));
    } else if (cursor_[i].is("}") && !functions_.empty()) {
      functions_.pop_back();
    }
  }
  bool in_function() const { return !functions_.empty() && functions_.back(); }

  void word(std::size_t i) {
    const Token& t = cursor_[i];
    if (!t.identifier()) return;
    if (const auto f = kForbidden.find(t.text); f != kForbidden.end()) add(i, f->second);
    const bool of_macro = t.is("__builtin_inff") || t.is("__builtin_nanf");  // INFINITY, NAN
    if (t.text.starts_with("__metal_") || (t.text.starts_with("__builtin_") && !of_macro)) {
      add(i, "'" + t.text + "' is a private intrinsic");
    }
    if (t.is("std") && cursor_[i + 1].is("::")) add(i, "MSL has no C++ standard library");
    if (t.text.starts_with("softmetal")) add(i, "'" + t.text + "' is not a name of MSL");
    const bool member = cursor_[i - 1].is(".") || cursor_[i - 1].is("->");
    if (!member && declared_.count(t.text) == 0) newer(i, name_since(t.text));
  }

  void newer(std::size_t i, std::string_view since) {
    if (since.empty() || version_ >= since) return;
    add(i, "'" + cursor_[i].text + "' needs language version " + std::string(since) +
               ", this is newer than language version " + version_);
  }

  /// Every name that the text itself may declare: whatever follows a type or a declaring word.
  void collect_declared() {
    static const std::set<std::string_view> before_values{
        "return",      "else",   "do",    "case",   "goto",   "sizeof",   "not",
        "and",         "or",     "using", "new",    "delete", "device",   "constant",
        "threadgroup", "thread", "const", "static", "inline", "volatile", "constexpr"};
    for (std::size_t i = 1; i < cursor_.size(); ++i) {
      if (!cursor_[i].identifier()) continue;
      std::size_t before = i - 1;
      while (before > 0 && cursor_[before].kind == Token::Kind::attribute) --before;
      const Token& t = cursor_[before];
      const bool word = t.identifier() && before_values.count(t.text) == 0;
      const bool sign = t.is(">") || t.is("*") || t.is("&") || t.is("&&");
      const bool alias = t.is("using") && cursor_[i + 1].is("=");
      const bool list = t.is(",") && (cursor_[i + 1].is("=") || cursor_[i + 1].is("["));
      const bool declares = sign ? declared_after_sign(i, before) : word || alias || list;
      if (declares) declared_.insert(cursor_[i].text);
    }
  }

  /// `vec<T, 2> f(` and `T* f(` declare f; `a > f(x)` and `a * f(x)` do not.
  bool declared_after_sign(std::size_t i, std::size_t sign) {
    const Token& next = cursor_[i + 1];
    if (!next.is("(")) return true;
    const std::size_t shut = cursor_.close(i + 1);
    const Token& after = cursor_[shut + 1];
    const bool body = after.is("{") || after.is("const") || after.is("thread");
    const bool prototype = after.is(";") && !in_expression(sign);
    return body || prototype;
  }
  bool in_expression(std::size_t i) {
    while (i > 0 && !cursor_[i].is(";") && !cursor_[i].is("{") && !cursor_[i].is("}")) {
      if (cursor_[i].is("=") || cursor_[i].is("return") || cursor_[i].is("(")) return true;
      --i;
    }
    return false;
  }

  /// A call of a function that the text does not declare must be one of the language's.
  void call(std::size_t i) {
    const Token& t = cursor_[i];
    if (!t.identifier() || type_name(t) || kWords.count(t.text) != 0) return;
    if (kForbidden.count(t.text) != 0 || t.text.starts_with("__")) return;
    const Token& before = cursor_[i - 1];
    if (before.is(".") || before.is("->") || declared_.count(t.text) != 0) return;
    std::size_t open = i + 1;
    if (cursor_[open].is("<")) open = cursor_.close(open) + 1;
    if (!cursor_[open].is("(")) return;
    if (before.is("::")) {
      const Token& scope = cursor_[i - 2];
      if (!scope.is("metal") && !scope.is("fast") && !scope.is("precise")) return;
    }
    const std::string_view since = function_since(t.text);
    if (!since.empty()) return newer(i, since);
    if (!name_since(t.text).empty() || is_type(t.text)) return;
    add(i, "'" + t.text + "' is not a function of MSL");
  }

  /// Types of the library that are made by a call.
  static bool is_type(const std::string& name) {
    static const std::set<std::string_view> types{"vec",     "array",     "matrix", "simd_vote",
                                                  "uniform", "mem_flags", "packed"};
    const bool matrix = name.size() > 3 && name[name.size() - 2] == 'x' &&
                        (name.starts_with("float") || name.starts_with("half"));
    return types.count(name) != 0 || name.starts_with("packed_") || matrix;
  }

  void static_variable(std::size_t i) {
    if (cursor_[i].is("static") && in_function()) add(i, "MSL has no static local variables");
    const bool start = i == 0 || cursor_[i - 1].is(";") || cursor_[i - 1].is("}");
    if (!start || !functions_.empty() || !type_name(cursor_[i])) return;
    const bool variable =
        cursor_[i + 1].identifier() &&
        (cursor_[i + 2].is("=") || cursor_[i + 2].is(";") || cursor_[i + 2].is("["));
    if (variable) add(i, "a variable at program scope must be in the constant address space");
  }

  void lambda(std::size_t i) {
    if (!cursor_[i].is("[") || version_ >= "3.2") return;
    const Token& before = cursor_[i - 1];
    const bool subscript = before.identifier() || before.is(")") || before.is("]");
    const std::size_t shut = cursor_.close(i);
    if (!subscript && (cursor_[shut + 1].is("(") || cursor_[shut + 1].is("{"))) {
      add(i, "lambdas need language version 3.2, this is " + version_);
    }
  }

  void unqualified_pointer(std::size_t i) {
    if (!type_name(cursor_[i]) || !cursor_[i + 1].is("*")) return;
    const Token& after = cursor_[i + 2];
    if (!after.identifier() && !after.is(")") && !after.is(">") && !after.is(",")) return;
    std::size_t first = i;
    while (cursor_[first - 1].is("const") || cursor_[first - 1].is("volatile") ||
           cursor_[first - 1].is("packed")) {
      --first;
    }
    const Token& before = cursor_[first - 1];
    const bool declares = before.is("(") || before.is(",") || before.is(";") || before.is("{") ||
                          before.is("}") || before.is("<") || before.is("=");
    if (declares || first == 0) add(i, "a pointer needs an address space");
  }

  void vector_cast(std::size_t i) {
    if (!cursor_[i].is("(") || !vector_name(cursor_[i + 1]) || !cursor_[i + 2].is(")")) return;
    const Token& before = cursor_[i - 1];
    const Token& after = cursor_[i + 3];
    const bool call = before.identifier() && !before.is("return");
    const bool operand = after.identifier() || after.is("(") || after.kind == Token::Kind::number;
    if (!call && operand) {
      add(i,
          "a C-style cast to " + cursor_[i + 1].text + "; write " + cursor_[i + 1].text + "(...)");
    }
  }

  std::vector<Token> tokens_;
  Cursor cursor_;
  std::string version_;
  std::vector<bool> functions_;
  std::set<std::string> declared_;
  std::vector<Diagnostic> found_;
};

const char* space_name(char digit) {
  return digit == '1'   ? "device"
         : digit == '3' ? "threadgroup"
         : digit == '5' ? "constant"
                        : "thread";
}

/// Conversions between address spaces that survive in unoptimised code.
class Casts {
 public:
  explicit Casts(const IrModule& module) : module_(module) {}

  std::vector<Diagnostic> run() {
    std::map<std::string, char> generic;  // values cast to the thread space, from which
    for (const std::string& line : module_.lines()) {
      if (line.starts_with("define ")) generic.clear();
      const std::size_t cast = line.find("= addrspacecast ptr");
      if (cast != std::string::npos) {
        const char from = space_of(line, cast);
        const std::size_t to_at = line.find(" to ptr");
        const char to = space_of(line, to_at);
        if (to != '0') complain(line, from, to, "cast");
        if (to == '0') generic[line.substr(2, line.find(' ', 2) - 2)] = from;
      }
      argument(line, generic);
    }
    return std::move(found_);
  }

 private:
  static char space_of(const std::string& line, std::size_t at) {
    const std::size_t ptr = line.find("ptr", at);
    return line.compare(ptr, 14, "ptr addrspace(") == 0 ? line[ptr + 14] : '0';
  }

  /// A free function takes a thread reference or pointer to memory of another space.
  void argument(const std::string& line, const std::map<std::string, char>& generic) {
    const std::size_t call = line.find("call ");
    const std::size_t name = line.find("@_Z", call == std::string::npos ? 0 : call);
    if (call == std::string::npos || name == std::string::npos) return;
    const char next = line[name + 3];
    const bool is_free = (next >= '0' && next <= '9') || next == 'L';
    if (!is_free) return;
    for (const auto& [value, from] : generic) {
      const std::size_t at = line.find(value, name);
      if (at == std::string::npos) continue;
      const char end = at + value.size() < line.size() ? line[at + value.size()] : ' ';
      if (end == ',' || end == ')') complain(line, from, '0', "conversion");
    }
  }

  void complain(const std::string& line, char from, char to, const char* what) {
    const auto place = module_.place(line);
    if (!place) return;
    const std::string text = std::string("a ") + what + " from " + space_name(from) + " to " +
                             space_name(to) + " memory";
    for (const Diagnostic& d : found_) {
      if (d.line == place->line && d.text == text) return;
    }
    found_.push_back({Diagnostic::Severity::error, place->file, place->line, 1, text});
  }

  const IrModule& module_;
  std::vector<Diagnostic> found_;
};

}  // namespace

std::vector<Diagnostic> lint(std::string_view source, const CompileOptions& options) {
  std::vector<Diagnostic> all;
  std::string key = "lint\n" + toolchain_key() + options.language_version + "\n";
  for (const auto& [name, value] : options.macros) key += name + "=" + value + "\n";
  key += source;
  try {
    const std::string text = read_file(Cache::instance().entry(key, [&](const std::string& dir) {
      preprocess(dir, source, options);
    }) + "/preprocessed");
    all = Linter(text, options).run();
    const auto library = Library::compile(source, options);
    const std::string dir = Cache::instance().entry("ir " + key, [&](const std::string& fresh) {
      run_front_end(fresh, text, options.language_version);
    });
    const IrModule module(read_file(dir + "/kernel.ll"));
    for (auto& d : Casts(module).run()) all.push_back(std::move(d));
  } catch (const CompileError& e) {
    for (const auto& d : e.diagnostics()) {
      if (d.severity == Diagnostic::Severity::error) all.push_back(d);
    }
  }
  std::sort(all.begin(), all.end(),
            [](auto& a, auto& b) { return std::tie(a.line, a.text) < std::tie(b.line, b.text); });
  return all;
}

}  // namespace softmetal::msl
