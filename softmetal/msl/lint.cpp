#include "lint.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "cache.hpp"
#include "compiler.hpp"
#include "ir.hpp"
#include "reflection.hpp"
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

/// Names and the first language version that has them.
const std::map<std::string_view, std::string_view> kSince{{"simdgroup_matrix", "2.3"},
                                                          {"simdgroup_float8x8", "2.3"},
                                                          {"simdgroup_half8x8", "2.3"},
                                                          {"simd_shuffle_and_fill_up", "2.4"},
                                                          {"simd_shuffle_and_fill_down", "2.4"},
                                                          {"quad_shuffle_and_fill_up", "2.4"},
                                                          {"quad_shuffle_and_fill_down", "2.4"},
                                                          {"atomic_float", "3.0"},
                                                          {"bfloat", "3.1"},
                                                          {"bfloat2", "3.1"},
                                                          {"bfloat4", "3.1"},
                                                          {"simdgroup_bfloat8x8", "3.1"},
                                                          {"os_log", "3.2"},
                                                          {"tensor", "4.0"},
                                                          {"tensor_ops", "4.0"}};

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
    for (std::size_t i = 0; i < cursor_.size(); ++i) {
      scope(i);
      word(i);
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
    if (t.text.starts_with("__metal_") || t.text.starts_with("__builtin_")) {
      add(i, "'" + t.text + "' is a private intrinsic");
    }
    const auto since = kSince.find(t.text);
    if (since != kSince.end() && version_ < since->second) {
      add(i, "'" + t.text + "' needs language version " + std::string(since->second) +
                 ", this is " + version_);
    }
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
    const LoweredSource lowered = lower_source(text);
    const std::string dir = Cache::instance().entry("ir " + key, [&](const std::string& fresh) {
      write_file(fresh + "/lowered.cpp", lowered.text);
      write_file(fresh + "/defines.h", reflection_defines(lowered));
      compile_to_ir(fresh, {-1, false, options.language_version}, nullptr);
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
