#include "components.hpp"

#include "vector_steps.hpp"

namespace softmetal::msl {
namespace {

/// One function of unoptimised IR.
class Function {
 public:
  Function(const std::vector<std::string>& lines, std::size_t begin, std::size_t end)
      : lines_(lines), begin_(begin), end_(end) {
    for (std::size_t i = begin; i < end; ++i) {
      auto s = read_step(lines[i]);
      if (!s && lines[i].find(" = alloca ") != std::string::npos) {
        allocas_.insert(lines[i].substr(2, lines[i].find(" = ") - 2));
      }
      if (s && !s->result.empty()) made_[s->result] = i;
      if (s) steps_[i] = std::move(*s);
    }
  }

  bool writes_components() const {
    for (const auto& [line, step] : steps_) {
      if (step.kind == Step::Kind::store && (dynamic_write(step) || partial(step))) return true;
    }
    return false;
  }

  std::string split() {
    for (const auto& [line, step] : steps_) {
      if (step.kind == Step::Kind::store) split_store(line, step);
    }
    for (const auto& [line, step] : steps_) {
      if (step.kind == Step::Kind::load && shared(step.memory)) split_load(line, step);
    }
    std::string text;
    for (std::size_t i = begin_; i < end_; ++i) {
      const auto changed = changed_.find(i);
      text += changed == changed_.end() ? lines_[i] + "\n" : changed->second;
    }
    return text;
  }

 private:
  bool shared(const Pointer& p) const { return allocas_.count(p.value) == 0; }

  const Step* maker(const std::string& value) const {
    const auto found = made_.find(value);
    return found == made_.end() ? nullptr : &steps_.at(found->second);
  }

  /// For every lane of `value`: the lane of memory that it still is, -1 poison, -2 anything else.
  std::vector<int> lanes(const std::string& value, int width, const Pointer& memory) const {
    std::vector<int> out(static_cast<std::size_t>(width), -2);
    const Step* s = maker(value);
    if (value == "poison" || value == "undef") out.assign(out.size(), -1);
    if (s == nullptr) return out;
    if (s->kind == Step::Kind::load && s->memory.value == memory.value) {
      for (int i = 0; i < width; ++i) out[static_cast<std::size_t>(i)] = i;
    } else if (s->kind == Step::Kind::insert) {
      const auto at = number(s->index);
      if (!at) return out;
      out = lanes(s->value, width, memory);
      out[static_cast<std::size_t>(*at)] = -2;
    } else if (s->kind == Step::Kind::shuffle) {
      const auto a = lanes(s->value, s->type.width, memory);
      const auto b = lanes(s->other, s->type.width, memory);
      for (std::size_t i = 0; i < out.size() && i < s->mask.size(); ++i) {
        const auto from = static_cast<std::size_t>(s->mask[i]);
        out[i] = s->mask[i] < 0 ? -1 : from < a.size() ? a[from] : b[from - a.size()];
      }
    }
    return out;
  }

  /// Whether some lanes of what is stored are as they were and others are not.
  bool partial(const Step& store) const {
    if (!shared(store.memory)) return false;
    int kept = 0, changed = 0;
    const auto from = lanes(store.value, store.type.width, store.memory);
    for (std::size_t i = 0; i < from.size(); ++i) {
      kept += from[i] == static_cast<int>(i) ? 1 : 0;
      changed += from[i] != static_cast<int>(i) && from[i] != -1 ? 1 : 0;
    }
    return kept > 0 && changed > 0;
  }

  /// p[i][k] = x
  const Step* dynamic_write(const Step& store) const {
    const Step* insert = maker(store.value);
    if (!shared(store.memory) || insert == nullptr || insert->kind != Step::Kind::insert) {
      return nullptr;
    }
    const Step* load = maker(insert->value);
    const bool same = load != nullptr && load->kind == Step::Kind::load &&
                      load->memory.value == store.memory.value;
    return same && !number(insert->index) ? insert : nullptr;
  }

  static std::string debug(const std::string& line) {
    const std::size_t at = line.find(", !dbg ");
    return at == std::string::npos ? "" : line.substr(at);
  }

  /// The address of one element; `name` is the new value's.
  static std::string element(const std::string& name, const Step& s, const std::string& index) {
    return "  " + name + " = getelementptr inbounds " + s.type.element + ", " + s.memory.type +
           " " + s.memory.value + ", " + index + "\n";
  }
  std::string fresh() { return "%softmetal.lane" + std::to_string(next_++); }

  void split_store(std::size_t at, const Step& s) {
    const std::string& line = lines_[at];
    std::string text;
    if (const Step* insert = dynamic_write(s)) {
      const std::string p = fresh();
      const std::size_t index = lines_[made_.at(s.value)].rfind(", i");
      const std::string& whole = lines_[made_.at(s.value)];
      text = element(p, s, whole.substr(index + 2, whole.find(", !dbg") - index - 2));
      text += "  store " + s.type.element + " " + insert->other + ", " + s.memory.type + " " + p +
              ", align " + std::to_string(bytes(s)) + debug(line) + "\n";
      changed_[at] = text;
      kept_lanes_[at] = {};
      return;
    }
    if (!partial(s)) return;
    const auto from = lanes(s.value, s.type.width, s.memory);
    std::vector<bool> written(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) {
      written[i] = from[i] != static_cast<int>(i) && from[i] != -1;
      if (!written[i]) continue;
      const std::string v = fresh(), p = fresh(), n = std::to_string(i);
      text += "  " + v + " = extractelement <" + std::to_string(s.type.width) + " x " +
              s.type.element + "> " + s.value + ", i64 " + n + debug(line) + "\n";
      text += element(p, s, "i64 " + n);
      text += "  store " + s.type.element + " " + v + ", " + s.memory.type + " " + p + ", align " +
              std::to_string(bytes(s)) + debug(line) + "\n";
    }
    changed_[at] = text;
    kept_lanes_[at] = written;
  }

  static std::uint64_t bytes(const Step& s) {
    const std::string& e = s.type.element;
    if (e == "float") return 4;
    if (e == "half" || e == "bfloat") return 2;
    return e == "double" ? 8u : static_cast<std::uint64_t>(number(e.substr(1)).value_or(8)) / 8;
  }

  void use_all(std::vector<bool>& used) const { used.assign(used.size(), true); }

  /// Which lanes of `value` somebody looks at.
  std::vector<bool> used_lanes(const std::string& value, int width) const {
    std::vector<bool> used(static_cast<std::size_t>(width));
    for (std::size_t i = begin_; i < end_; ++i) {
      const std::string& line = lines_[i];
      const std::size_t at = find_name(line, value);
      if (at == std::string::npos) continue;
      const auto step = steps_.find(i);
      if (step == steps_.end()) {
        use_all(used);
        return used;
      }
      merge(used, step->second, i, value);
    }
    return used;
  }

  static std::size_t find_name(const std::string& line, const std::string& value) {
    for (std::size_t at = line.find(value); at != std::string::npos;
         at = line.find(value, at + 1)) {
      const char end = at + value.size() < line.size() ? line[at + value.size()] : ' ';
      const bool whole = end == ' ' || end == ',' || end == ')';
      if (whole && at > 2) return at;
    }
    return std::string::npos;
  }

  void merge(std::vector<bool>& used, const Step& s, std::size_t at,
             const std::string& value) const {
    if (s.kind == Step::Kind::extract) {
      const auto n = number(s.index);
      if (!n) return use_all(used);
      used[static_cast<std::size_t>(*n)] = true;
    } else if (s.kind == Step::Kind::store) {
      const auto kept = kept_lanes_.find(at);
      if (kept == kept_lanes_.end() || s.value != value) return use_all(used);
      for (std::size_t i = 0; i < kept->second.size(); ++i) {
        used[i] = used[i] || kept->second[i];
      }
    } else if (s.kind == Step::Kind::insert && s.value == value) {
      const auto n = number(s.index);
      const auto later = used_lanes(s.result, s.type.width);
      for (std::size_t i = 0; i < later.size(); ++i) {
        const bool replaced = n && static_cast<std::size_t>(*n) == i;
        used[i] = used[i] || (later[i] && !replaced);
      }
    } else if (s.kind == Step::Kind::shuffle) {
      const auto later = used_lanes(s.result, static_cast<int>(s.mask.size()));
      for (std::size_t i = 0; i < later.size(); ++i) {
        if (!later[i] || s.mask[i] < 0) continue;
        const auto from = static_cast<std::size_t>(s.mask[i]);
        const auto width = static_cast<std::size_t>(s.type.width);
        if (from < width && s.value == value) used[from] = true;
        if (from >= width && s.other == value) used[from - width] = true;
      }
    } else {
      use_all(used);
    }
  }

  /// Loads only the lanes that are used.
  void split_load(std::size_t at, const Step& s) {
    const auto used = used_lanes(s.result, s.type.width);
    bool all = true;
    for (std::size_t i = 0; i < used.size(); ++i) all = all && used[i];
    const std::string& line = lines_[at];
    if (all || line.find(" = load volatile ") != std::string::npos) return;
    const std::string type = "<" + std::to_string(s.type.width) + " x " + s.type.element + ">";
    std::string text, last = "poison";
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (!used[i]) continue;
      const std::string v = fresh(), p = fresh(), sum = fresh(), n = std::to_string(i);
      text += element(p, s, "i64 " + n);
      text += "  " + v + " = load " + s.type.element + ", " + s.memory.type + " " + p + ", align " +
              std::to_string(bytes(s)) + debug(line) + "\n";
      text += "  " + sum + " = insertelement " + type + " " + last + ", " + s.type.element + " " +
              v + ", i64 " + n + "\n";
      last = sum;
    }
    text += "  " + s.result + " = shufflevector " + type + " " + last + ", " + type + " poison, <" +
            std::to_string(s.type.width) + " x i32> <";
    for (int i = 0; i < s.type.width; ++i) {
      text += std::string(i == 0 ? "" : ", ") + "i32 " + std::to_string(i);
    }
    changed_[at] = text + ">\n";
  }

  const std::vector<std::string>& lines_;
  std::size_t begin_, end_;
  std::map<std::size_t, Step> steps_;        // by line
  std::map<std::string, std::size_t> made_;  // value, line
  std::set<std::string> allocas_;
  std::map<std::size_t, std::string> changed_;           // line, what replaces it
  std::map<std::size_t, std::vector<bool>> kept_lanes_;  // of split stores: the lanes written
  int next_ = 0;
};

/// Calls each(begin, end) with the lines of every function.
template <typename F>
void each_function(const IrModule& module, F each) {
  const auto& lines = module.lines();
  std::size_t begin = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].starts_with("define ")) begin = i;
    if (lines[i].starts_with("}") && begin != 0) {
      each(begin, i + 1);
      begin = 0;
    }
  }
}

}  // namespace

bool writes_components(const IrModule& module) {
  bool found = false;
  each_function(module, [&](std::size_t begin, std::size_t end) {
    found = found || Function(module.lines(), begin, end).writes_components();
  });
  return found;
}

std::string split_components(const IrModule& module) {
  std::string text;
  std::size_t next = 0;
  auto copy_until = [&](std::size_t end) {
    for (; next < end; ++next) text += module.lines()[next] + "\n";
  };
  each_function(module, [&](std::size_t begin, std::size_t end) {
    copy_until(begin);
    text += Function(module.lines(), begin, end).split();
    next = end;
  });
  copy_until(module.lines().size());
  return text;
}

}  // namespace softmetal::msl
