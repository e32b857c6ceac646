#include "source_pass.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "rewrites.hpp"
#include "tokens.hpp"

namespace softmetal::msl {
namespace {

[[noreturn]] void fail(const Token& at, const std::string& text) {
  Diagnostic d{Diagnostic::Severity::error, at.file, at.line, 1, text};
  throw CompileError(at.file + ":" + std::to_string(at.line) + ":1: error: " + text + "\n", {d});
}

const Attribute* find(const Token& token, std::string_view name) {
  for (const Attribute& a : token.attributes) {
    if (a.name == name) return &a;
  }
  return nullptr;
}

std::string unquoted(std::string s) {
  std::erase_if(s, [](char c) { return c == '"' || c == ' '; });
  return s;
}

std::uint32_t number(const Token& at, const std::string& text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    fail(at, "expected an integer literal, got '" + text + "'");
  }
  return value;
}

class Pass {
 public:
  Pass(std::string_view text, const LowerOptions& options)
      : tokens_(tokenize(text)), cursor_(tokens_), options_(options) {}

  LoweredSource run() {
    drop_coherent(cursor_);
    merge_method_variants(cursor_);
    for (at_ = 0; at_ < cursor_.size(); ++at_) step();
    place_threadgroup_variables(cursor_);
    rewrite_array_parameters(cursor_);
    name_overloads();
    if (options_.conditionals) rewrite_conditionals(cursor_);
    if (options_.braced_lists) rewrite_braced_lists(cursor_);
    rewrite_constructors(cursor_);
    rewrite_literals(cursor_);
    rewrite_constant_queries();
    out_.text = join(tokens_) + entries();
    return std::move(out_);
  }

 private:
  void step() {
    Token& t = cursor_[at_];
    if (t.is("namespace") && !cursor_[at_ - 1].is("using")) {
      pending_namespace_ = cursor_[at_ + 1].identifier() ? cursor_[at_ + 1].text : "";
    } else if (t.is(";")) {
      statement_ = at_ + 1;
    } else if (t.is("{")) {
      scopes_.push_back(pending_namespace_);
      pending_namespace_.clear();
      statement_ = at_ + 1;
    } else if (t.is("}")) {
      if (!scopes_.empty()) scopes_.pop_back();
      statement_ = at_ + 1;
    } else if (t.is("kernel") || find(t, "kernel") != nullptr) {
      kernel();
    } else if (find(t, "function_constant") != nullptr) {
      function_constant();
    }
  }

  std::string qualified(const std::string& name) const {
    std::string path;
    for (const std::string& scope : scopes_) {
      if (!scope.empty()) path += scope + "::";
    }
    return path + name;
  }

  /// at_ is at the word or attribute `kernel`; leaves at_ before the body or at the final ;.
  void kernel() {
    const bool is_template = cursor_[statement_].is("template");
    const bool instantiation = is_template && !cursor_[statement_ + 1].is("<");
    std::size_t open = at_ + 1;
    while (open < cursor_.size() && !cursor_[open].is("(") && !cursor_[open].is(";")) {
      if (cursor_[open].is("decltype")) open = cursor_.close(open + 1);
      ++open;
    }
    ParsedKernel k;
    k.line = cursor_[at_].line;
    std::size_t name_end = open;
    while (cursor_[name_end - 1].kind == Token::Kind::attribute) --name_end;
    std::size_t name = name_end - 1;
    if (cursor_[name].is(">")) name = cursor_.open_angle(name) - 1;
    k.name = cursor_[name].text;
    k.expression = qualified(cursor_.text(name, name_end));
    attributes_of(k, statement_, open);
    const std::size_t shut = cursor_[open].is("(") ? cursor_.close(open) : open;
    if (instantiation) return instantiate(std::move(k), {name, name_end, open, shut});
    k.parameters = parameters(open + 1, shut);
    for (std::size_t i = shut + 1; i < cursor_.size() && !cursor_[i].is("{"); ++i) {
      attributes_of(k, i, i + 1);
      if (cursor_[i].is(";")) break;
    }
    cursor_[at_].text = "static ";
    const bool specialisation = is_template && cursor_[statement_ + 2].is(">");
    if (is_template && !specialisation) {
      templates_[cursor_[name].text].push_back(k);
    } else if (!specialisation) {
      add(std::move(k), cursor_[at_]);
      definitions_[qualified(cursor_[name].text)].push_back(
          {out_.kernels.size() - 1, {name, name_end, open, shut}});
    }
    at_ = shut;
  }

  void attributes_of(ParsedKernel& k, std::size_t from, std::size_t to) {
    for (std::size_t i = from; i < to; ++i) {
      if (const Attribute* a = find(cursor_[i], "host_name")) k.name = unquoted(a->argument);
      if (const Attribute* a = find(cursor_[i], "max_total_threads_per_threadgroup")) {
        const bool literal = !a->argument.empty() && a->argument[0] >= '0' && a->argument[0] <= '9';
        if (literal) k.max_total_threads = number(cursor_[i], unquoted(a->argument));
      }
    }
  }

  /// Where the head of a kernel lies: its name with template arguments, its parentheses.
  struct Head {
    std::size_t name, name_end, open, shut;
  };

  /// template [[host_name("x")]] [[kernel]] void f<float>(...); becomes a pointer, which also tells
  /// overloads apart and deduces arguments; with decltype it leaves no text.
  void instantiate(ParsedKernel k, const Head& head) {
    const std::string base = cursor_[head.name].text;
    const auto known = templates_.find(base);
    if (known == templates_.end()) fail(cursor_[at_], "no kernel template named '" + base + "'");
    const bool written = cursor_[head.open].is("(");
    const ParsedKernel& model =
        written ? overload(known->second, head.open + 1, head.shut) : known->second.back();
    k.parameters = model.parameters;
    if (k.max_total_threads == 0) k.max_total_threads = model.max_total_threads;
    std::size_t last = head.shut;
    while (last < cursor_.size() && !cursor_[last].is(";")) ++last;
    const Token place = cursor_[at_];
    const std::size_t kept = written ? head.open : last;
    const std::string function = cursor_.text(head.name, head.name_end);
    for (std::size_t i = statement_; i < kept; ++i) cursor_[i].text.clear();
    if (written) {
      const std::string pointer = "softmetal_kernel_" + std::to_string(out_.kernels.size());
      k.expression = qualified(pointer);
      k.pointer = true;
      cursor_[statement_].text = "static constexpr void (*" + pointer + ")";
      for (std::size_t i = head.shut + 1; i < last; ++i) cursor_[i].text.clear();
      cursor_[last].text = " = &" + function + ";";
    }
    at_ = last;
    statement_ = last + 1;
    add(std::move(k), place);
  }

  /// Of several templates of one name, the one whose parameters are most like those in [from, to).
  const ParsedKernel& overload(const std::vector<ParsedKernel>& models, std::size_t from,
                               std::size_t to) {
    const auto texts = parameter_texts(from, to);
    const ParsedKernel* best = &models.back();
    int most = -1;
    for (const ParsedKernel& model : models) {
      if (model.parameters.size() != texts.size()) continue;
      int alike = 0;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        alike += texts[i].starts_with(model.parameters[i].type) ? 1 : 0;
      }
      if (alike > most) {
        most = alike;
        best = &model;
      }
    }
    return *best;
  }

  /// Kernels of one name in one namespace are told apart by a pointer of the right type.
  void name_overloads() {
    for (const auto& [name, list] : definitions_) {
      if (list.size() < 2) continue;
      for (const auto& [number, head] : list) {
        const std::string pointer = "softmetal_kernel_" + std::to_string(number);
        std::size_t body = head.shut;
        while (body < cursor_.size() && !cursor_[body].is("{") && !cursor_[body].is(";")) ++body;
        const std::size_t end = cursor_[body].is("{") ? cursor_.close(body) : body;
        cursor_[end].text += " static constexpr void (*" + pointer + ")(" +
                             cursor_.text(head.open + 1, head.shut) + ") = &" +
                             cursor_[head.name].text + ";";
        ParsedKernel& k = out_.kernels[number];
        k.expression = k.expression.substr(0, k.expression.size() - cursor_[head.name].text.size());
        k.expression += pointer;
        k.pointer = true;
      }
    }
  }

  void add(ParsedKernel k, const Token& place) {
    for (const ParsedKernel& other : out_.kernels) {
      if (other.name == k.name) fail(place, "kernel '" + k.name + "' is defined twice");
    }
    out_.kernels.push_back(std::move(k));
  }

  /// Calls each(begin, end) for every parameter in [from, to).
  template <typename F>
  void each_parameter(std::size_t from, std::size_t to, F each) {
    std::size_t begin = from;
    int depth = 0;
    for (std::size_t i = from; i <= to; ++i) {
      const Token& t = cursor_[i];
      if (t.is("(") || t.is("[") || t.is("{") || t.is("<")) ++depth;
      if ((t.is(")") && i != to) || t.is("]") || t.is("}") || t.is(">")) --depth;
      if (i != to && !(t.is(",") && depth == 0)) continue;
      if (i > begin) each(begin, i);
      begin = i + 1;
    }
  }

  std::vector<ParsedParameter> parameters(std::size_t from, std::size_t to) {
    std::vector<ParsedParameter> list;
    each_parameter(from, to, [&](std::size_t begin, std::size_t end) {
      list.push_back(parameter(begin, end));
    });
    assign_free_indices(list);
    return list;
  }

  std::vector<std::string> parameter_texts(std::size_t from, std::size_t to) {
    std::vector<std::string> list;
    each_parameter(from, to, [&](std::size_t begin, std::size_t end) {
      list.push_back(cursor_.text(begin, end));
    });
    return list;
  }

  ParsedParameter parameter(std::size_t from, std::size_t to) {
    ParsedParameter p;
    p.line = cursor_[from].line;
    std::size_t end = to;
    for (std::size_t i = from; i < to; ++i) {
      if (cursor_[i].kind != Token::Kind::attribute) continue;
      end = std::min(end, i);
      for (const Attribute& a : cursor_[i].attributes) {
        if (a.name == "function_constant") {
          p.active = unquoted(a.argument);
        } else if (argument_kind(a.name) >= 0) {
          if (!p.kind.empty()) fail(cursor_[i], "two attributes say where an argument comes from");
          p.kind = a.name;
          p.index = a.argument;
        } else {
          fail(cursor_[i], "unknown attribute '" + a.name + "' of a kernel argument");
        }
      }
    }
    std::size_t array = from;
    while (array < end && !cursor_[array].is("[")) ++array;
    std::size_t name = std::min(array, end) - 1;
    while (name > from && !cursor_[name].identifier()) --name;
    p.name = cursor_[name].text;
    p.type = cursor_.text(from, name);
    const bool memory = array < end || p.type.find('*') != std::string::npos ||
                        p.type.find('&') != std::string::npos;
    if (p.kind.empty() && !memory) {
      fail(cursor_[from], "argument '" + p.name + "' of a kernel needs an attribute");
    }
    if (p.kind.empty()) {
      p.kind = p.type.find("threadgroup") != std::string::npos ? "threadgroup" : "buffer";
    }
    return p;
  }

  /// Buffers without an index take the free ones in order.
  static void assign_free_indices(std::vector<ParsedParameter>& list) {
    for (const char* kind : {"buffer", "threadgroup"}) {
      std::set<std::string> used;
      for (const auto& p : list) {
        if (p.kind == kind) used.insert(unquoted(p.index));
      }
      int next = 0;
      for (auto& p : list) {
        if (p.kind != kind || !p.index.empty()) continue;
        while (used.count(std::to_string(next)) != 0) ++next;
        p.index = std::to_string(next++);
      }
    }
  }

  /// constant T name [[function_constant(n)]];
  void function_constant() {
    Token& attribute = cursor_[at_];
    if (!scopes_.empty() &&
        !std::all_of(scopes_.begin(), scopes_.end(), [](auto& s) { return !s.empty(); })) {
      return;  // an argument's attribute; those are read with their kernel
    }
    std::size_t name = at_ - 1;
    if (!cursor_[at_ + 1].is(";") || !cursor_[name].identifier()) return;
    ParsedConstant c;
    c.index = number(attribute, unquoted(find(attribute, "function_constant")->argument));
    c.name = cursor_[name].text;
    c.line = attribute.line;
    for (std::size_t i = statement_; i < name; ++i) {
      Token& t = cursor_[i];
      const bool type = t.identifier() && !t.is("constant") && !t.is("const") && !t.is("static") &&
                        !t.is("constexpr");
      if (type) c.type += (c.type.empty() ? "" : " ") + t.text;
      t.text.clear();
    }
    const std::string n = std::to_string(c.index);
    cursor_[name].text = "SOFTMETAL_CONSTANT_" + n + "(" + c.type + ", " + c.name + ")";
    for (ParsedConstant& other : out_.constants) {
      if (other.index == c.index) fail(attribute, "function_constant(" + n + ") is used twice");
    }
    out_.constants.push_back(std::move(c));
  }

  void rewrite_constant_queries() {
    for (std::size_t i = 0; i + 3 < cursor_.size(); ++i) {
      if (!cursor_[i].is("is_function_constant_defined")) continue;
      const std::string name = cursor_[i + 2].text;
      bool known = false;
      for (ParsedConstant& c : out_.constants) {
        if (c.name != name) continue;
        c.guarded = known = true;
        cursor_[i].text = "softmetal_defined_" + std::to_string(c.index);
        for (std::size_t k = 1; k <= 3; ++k) cursor_[i + k].text.clear();
      }
      if (!known) fail(cursor_[i], "'" + name + "' is not a function constant");
    }
  }

  std::string entries() const {
    std::string text = "\n# 1 \"softmetal_entries\"\n";
    for (std::size_t i = 0; i < out_.kernels.size(); ++i) {
      const ParsedKernel& k = out_.kernels[i];
      const std::string n = std::to_string(i);
      std::string arguments;
      for (const ParsedParameter& p : k.parameters) {
        arguments += ", softmetal::Arg<" + std::to_string(argument_kind(p.kind)) + ", (" +
                     (p.index.empty() ? "0" : p.index) + "), " +
                     (p.active.empty() ? "true" : "SOFTMETAL_ACTIVE(" + p.active + ")") + ">";
      }
      text += "#if SOFTMETAL_KERNEL == " + n + " || SOFTMETAL_KERNEL == -1\n";
      const std::string function = k.pointer ? k.expression : "(&" + k.expression + ")";
      text += "SOFTMETAL_REFLECT(" + n + ", " + function + arguments + ")\n#endif\n";
      text += "#if SOFTMETAL_KERNEL == " + n + "\n";
      text += "SOFTMETAL_ENTRY_POINT(" + function + arguments + ")\n#endif\n";
    }
    return text;
  }

  std::vector<Token> tokens_;
  Cursor cursor_;
  std::size_t at_ = 0;
  std::size_t statement_ = 0;  // where the current declaration began
  std::string pending_namespace_;
  std::vector<std::string> scopes_;  // "" for anything but a named namespace
  std::map<std::string, std::vector<ParsedKernel>> templates_;
  std::map<std::string, std::vector<std::pair<std::size_t, Head>>> definitions_;
  LowerOptions options_;
  LoweredSource out_;
};

}  // namespace

LoweredSource lower_source(std::string_view preprocessed, const LowerOptions& options) {
  return Pass(preprocessed, options).run();
}

}  // namespace softmetal::msl
