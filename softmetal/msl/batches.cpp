#include "batches.hpp"

#include <algorithm>
#include <array>

namespace softmetal::msl {
namespace {

constexpr std::size_t kMostProducts = 64;  // softmetal::MmaBatch
constexpr std::size_t kProductBytes = 40;  // softmetal::Mma
constexpr std::string_view kCall = "call void @softmetal_mma(";

/// The value of a call's argument: its last word.
std::string value_of(std::string_view argument) {
  const std::size_t space = argument.rfind(' ');
  return std::string(space == std::string_view::npos ? argument : argument.substr(space + 1));
}

std::vector<std::string> arguments(std::string_view call) {
  std::vector<std::string> list;
  std::size_t begin = call.find('(', call.find('@')) + 1;
  int depth = 0;
  for (std::size_t i = begin; i < call.size(); ++i) {
    if (call[i] == '(') ++depth;
    const bool last = call[i] == ')' && depth-- == 0;
    if (last || (call[i] == ',' && depth == 0)) {
      list.push_back(value_of(call.substr(begin, i - begin)));
      begin = i + 2;
    }
    if (last) break;
  }
  return list;
}

bool lifetime_mark(const std::string& line) {
  return line.find("@llvm.lifetime.") != std::string::npos;
}

class Function {
 public:
  Function(const std::vector<std::string>& lines, std::size_t begin, std::size_t end)
      : lines_(lines), begin_(begin), end_(end) {}

  std::string run() {
    find_own();
    find_batches();
    std::string text;
    bool entered = batches_.empty();
    for (std::size_t i = begin_; i < end_; ++i) {
      const std::string& line = lines_[i];
      if (!batches_.empty() && lifetime_mark(line)) continue;
      const auto place = places_.find(i);
      text += place == places_.end() ? line + "\n" : stores(i, place->second);
      const bool at_entry = i > begin_ || !lines_[i + 1].ends_with(":");
      if (!entered && at_entry && (i > begin_ + 1 || i == begin_)) {
        text += "  %softmetal.batch = alloca [" +
                std::to_string(8 + kMostProducts * kProductBytes) + " x i8], align 16\n";
        entered = true;
      }
    }
    return text;
  }

 private:
  struct Place {
    std::size_t number, count;  // of the product in its batch, of products
  };

  static std::string result_of(const std::string& line) {
    const std::size_t equals = line.find(" = ");
    const bool names = line.starts_with("  %") && equals != std::string::npos;
    return names ? line.substr(2, equals - 2) : "";
  }
  static std::string_view verb_of(const std::string& line) {
    const std::size_t equals = line.find(" = ");
    const bool names = line.starts_with("  %") && equals != std::string::npos;
    return std::string_view(line).substr(names ? equals + 3
                                               : std::min<std::size_t>(2, line.size()));
  }
  /// The pointer of a load or store, or the base of a getelementptr.
  static std::string pointer_of(std::string_view text) {
    const std::size_t at = text.rfind(", ptr ");
    const std::size_t gep = text.find(", ptr ");
    const std::size_t from = (text.starts_with("getelementptr") ? gep : at) + 6;
    if (at == std::string_view::npos) return "";
    return std::string(text.substr(from, text.find_first_of(", ", from) - from));
  }

  /// Local arrays whose address nobody else has: no product can change them.
  void find_own() {
    for (std::size_t i = begin_; i < end_; ++i) {
      const std::string_view verb = verb_of(lines_[i]);
      const std::string name = result_of(lines_[i]);
      if (verb.starts_with("alloca ")) root_[name] = name;
      if (!verb.starts_with("getelementptr ")) continue;
      const auto base = root_.find(pointer_of(verb));
      if (base != root_.end()) root_[name] = base->second;
    }
    for (std::size_t i = begin_; i < end_; ++i) find_escapes(lines_[i]);
  }

  void find_escapes(const std::string& line) {
    const std::string_view verb = verb_of(line);
    if (verb.starts_with("alloca ") || lifetime_mark(line)) return;
    const bool memory = verb.starts_with("load ") || verb.starts_with("getelementptr ") ||
                        verb.starts_with("store ");
    std::string allowed = memory ? pointer_of(verb) : "";
    for (std::size_t at = verb.find('%'); at != std::string_view::npos;
         at = verb.find('%', at + 1)) {
      const std::size_t end = verb.find_first_of(",) ]", at);
      const std::string name(verb.substr(at, end - at));
      const auto root = root_.find(name);
      if (root != root_.end() && name != allowed) escaped_.insert(root->second);
      if (name == allowed) allowed.clear();  // once as the address
    }
  }

  bool own(const std::string& pointer) const {
    const auto root = root_.find(pointer);
    return root != root_.end() && escaped_.count(root->second) == 0;
  }

  /// Whether a product before the line may as well run after it.
  bool may_pass(const std::string& line) const {
    static constexpr std::array<std::string_view, 9> kPure{
        "@llvm.fma",      "@llvm.fmuladd", "@llvm.minnum",       "@llvm.maxnum",    "@llvm.fabs",
        "@llvm.lifetime", "@llvm.dbg",     "@llvm.experimental", "@softmetal_lane("};
    const std::string_view verb = verb_of(line);
    const bool call = verb.find("call ") != std::string_view::npos;
    if (call) {
      return std::any_of(kPure.begin(), kPure.end(),
                         [&](auto name) { return verb.find(name) != std::string_view::npos; });
    }
    if (verb.starts_with("load ") || verb.starts_with("store ")) {
      const bool atomic = verb.find(" atomic ") != std::string_view::npos ||
                          verb.find(" volatile ") != std::string_view::npos;
      const std::size_t last = verb.rfind(", ptr");
      const bool shared =
          last != std::string_view::npos && verb.substr(last).starts_with(", ptr addrspace(");
      return !atomic && (shared || own(pointer_of(verb)));
    }
    return !verb.starts_with("br ") && !verb.starts_with("ret ") && !verb.starts_with("switch ") &&
           !verb.starts_with("unreachable") && !verb.starts_with("fence") &&
           !verb.starts_with("atomicrmw") && !verb.starts_with("cmpxchg");
  }

  void find_batches() {
    std::vector<std::size_t> run;
    auto finish = [&] {
      for (std::size_t k = 0; run.size() > 1 && k < run.size(); ++k) {
        places_[run[k]] = {k, run.size()};
      }
      if (run.size() > 1) batches_.push_back(run.back());
      run.clear();
    };
    for (std::size_t i = begin_ + 1; i < end_; ++i) {
      const std::string& line = lines_[i];
      if (line.find(kCall) != std::string::npos) {
        run.push_back(i);
        if (run.size() == kMostProducts) finish();
      } else if (!line.starts_with("  ") || !may_pass(line)) {
        finish();
      }
    }
  }

  std::string stores(std::size_t at, const Place& place) {
    const std::string& line = lines_[at];
    const auto a = arguments(std::string_view(line).substr(line.find(kCall)));
    const std::size_t base = 8 + place.number * kProductBytes;
    const std::string debug =
        line.find(", !dbg ") == std::string::npos ? "" : line.substr(line.find(", !dbg "));
    std::string text;
    auto store = [&](const std::string& value, std::size_t offset) {
      const std::string p = "%softmetal.batch." + std::to_string(next_++);
      text += "  " + p + " = getelementptr inbounds i8, ptr %softmetal.batch, i64 " +
              std::to_string(offset) + "\n  store " + value + ", ptr " + p + ", align 8\n";
    };
    store("i64 " + a[2], base);
    store("i64 " + a[3], base + 8);
    store("ptr " + a[1], base + 16);
    store("ptr " + a[0], base + 24);
    store("ptr " + a[4], base + 32);
    if (place.number + 1 != place.count) return text;
    store("i64 " + std::to_string(place.count), 0);
    return text + "  call void @softmetal_mma_batch(ptr %softmetal.batch, i32 " + a[5] + ")" +
           debug + "\n";
  }

  const std::vector<std::string>& lines_;
  std::size_t begin_, end_;
  std::map<std::string, std::string> root_;  // pointer, the alloca that it points into
  std::set<std::string> escaped_;
  std::map<std::size_t, Place> places_;  // by line
  std::vector<std::size_t> batches_;
  std::size_t next_ = 0;
};

}  // namespace

std::string with_batches(const IrModule& module) {
  const auto& lines = module.lines();
  std::string text;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (!lines[i].starts_with("define ")) {
      text += lines[i] + "\n";
      continue;
    }
    std::size_t end = i;
    while (end < lines.size() && !lines[end].starts_with("}")) ++end;
    text += Function(lines, i, end).run();
    if (end < lines.size()) text += lines[end] + "\n";
    i = end;
  }
  return text;
}

}  // namespace softmetal::msl
