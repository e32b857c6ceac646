#include "instrument.hpp"

#include <bit>
#include <charconv>
#include <set>

#include "../stdlib/softmetal_abi.h"
#include "work.hpp"

namespace softmetal::msl {
namespace {

using namespace softmetal_abi;

// Positions of members in softmetal_abi::Runtime, in pointers.
constexpr int kAccessMember = 2, kRangeMember = 3, kCountMember = 4;

std::uint64_t number_after(std::string_view line, std::string_view what, std::uint64_t otherwise) {
  const std::size_t at = line.find(what);
  if (at == std::string_view::npos) return otherwise;
  std::uint64_t value = otherwise;
  std::from_chars(line.data() + at + what.size(), line.data() + line.size(), value);
  return value;
}

/// A pointer operand in a line: `ptr addrspace(1) %x`.
struct Operand {
  std::size_t begin = 0, end = 0;  // of the whole, type included
  u32 space = 0;
  std::string value;
};

Operand read_operand(std::string_view line, std::size_t at) {
  Operand op;
  op.begin = at;
  at += 3;
  if (line.substr(at).starts_with(" addrspace(")) {
    op.space = static_cast<u32>(number_after(line.substr(at), "addrspace(", 0));
    at = line.find(')', at) + 1;
  }
  // Attributes of call arguments.
  for (;;) {
    while (at < line.size() && line[at] == ' ') ++at;
    if (line[at] == '%' || line[at] == '@' || line.substr(at).starts_with("getelementptr") ||
        line.substr(at).starts_with("null") || line.substr(at).starts_with("undef") ||
        line.substr(at).starts_with("poison") || line.substr(at).starts_with("addrspacecast") ||
        line.substr(at).starts_with("inttoptr")) {
      break;
    }
    if (line.substr(at).starts_with("align ")) at += 6;
    while (at < line.size() && line[at] != ' ' && line[at] != '(') ++at;
    if (at < line.size() && line[at] == '(') at = line.find(')', at) + 1;
    if (at >= line.size()) return op;
  }
  std::size_t end = at;
  int depth = 0;
  bool text = false;
  for (; end < line.size(); ++end) {
    const char c = line[end];
    if (c == '"') text = !text;
    if (text) continue;
    if (c == '(') ++depth;
    if (c == ')' && depth-- == 0) break;
    const bool expression = line[at] != '%' && line[at] != '@';
    if (depth == 0 &&
        (c == ',' || (c == ' ' && !(expression && line.find('(', end) < line.find(',', end)))))
      break;
  }
  op.end = end;
  op.value = std::string(line.substr(at, end - at));
  return op;
}

class Instrumenter {
 public:
  explicit Instrumenter(const IrModule& module) : module_(module) {}

  Instrumented run() {
    for (const std::string& line : module_.lines()) {
      if (line.starts_with("define ")) {
        // What simdgroup operations compute for all lanes touches only their records.
        inside_ = line.find("PKPvj") == std::string::npos;
        private_.clear();
        origins_.clear();
        place_.reset();
        out_.text += line + "\n";
      } else if (line.starts_with("}")) {
        inside_ = false;
        out_.text += line + "\n";
      } else if (inside_ && line.starts_with("  ")) {
        instruction(line);
      } else {
        out_.text += line + "\n";
        work_ = {};
      }
    }
    declare("@llvm.memcpy.p0.p0.i64", "(ptr, ptr, i64, i1)");
    declare("@llvm.memmove.p0.p0.i64", "(ptr, ptr, i64, i1)");
    declare("@llvm.memset.p0.i64", "(ptr, i8, i64, i1)");
    return std::move(out_);
  }

 private:
  void declare(const std::string& name, const std::string& signature) {
    const bool used = out_.text.find(name + "(") != std::string::npos;
    if (used && out_.text.find("declare void " + name) == std::string::npos) {
      out_.text += "declare void " + name + signature + "\n";
    }
  }

  void instruction(const std::string& line) {
    if (auto p = module_.place(line)) place_ = p;
    work_ += work_of(line);
    track_origin(line);
    const std::size_t equals = line.find(" = ");
    const std::string_view rest = std::string_view(line).substr(
        equals != std::string::npos && line[2] == '%' ? equals + 3 : 2);
    if (rest.starts_with("load ")) return memory(line, access_of(line, false));
    if (rest.starts_with("store ")) return memory(line, access_of(line, true));
    if (rest.starts_with("atomicrmw ") || rest.starts_with("cmpxchg ")) {
      return memory(line, access_of(line, true));
    }
    if (line.find("call void @llvm.mem") != std::string::npos) return block_move(line);
    const bool terminator = rest.starts_with("br ") || rest.starts_with("ret ") ||
                            rest.starts_with("switch ") || rest.starts_with("unreachable");
    if (terminator) flush_work();
    out_.text += line + "\n";
  }

  struct Access {
    Operand pointer;
    u32 what = 0;
    bool atomic = false;
    bool understood = false;
  };

  /// The type that a load, store, atomicrmw or cmpxchg moves, and its pointer.
  Access access_of(const std::string& line, bool write) {
    Access a;
    const std::size_t equals = line.find(" = ");
    const std::size_t verb = equals != std::string::npos && line[2] == '%' ? equals + 3 : 2;
    std::size_t at = line.find(' ', verb) + 1;
    const bool exchange = line.compare(verb, 7, "cmpxchg") == 0;
    const bool update = line.compare(verb, 9, "atomicrmw") == 0;
    auto skip = [&](std::string_view word) {
      if (std::string_view(line).substr(at).starts_with(word)) at += word.size();
    };
    a.atomic = exchange || update || line.compare(at, 7, "atomic ") == 0;
    skip("atomic ");
    skip("weak ");
    skip("volatile ");
    if (update) at = line.find(' ', at) + 1;  // the operation
    std::string_view type;
    if (exchange || update) {
      a.pointer = read_operand(line, at);
      at = a.pointer.end + 2;
      type = module_.read_type(line, at);
    } else {
      type = module_.read_type(line, at);
      const std::size_t pointer = write ? find_store_pointer(line, at) : line.find(", ptr", at) + 2;
      a.pointer = read_operand(line, pointer);
    }
    const std::uint64_t bytes = module_.moved_bytes(type);
    const std::uint64_t align = number_after(line, ", align ", 1);
    a.what = static_cast<u32>(bytes) & access_size_mask;
    a.what |= static_cast<u32>(std::countr_zero(align)) << access_align_shift;
    a.what |= (write ? u32{access_write} : 0u) | (a.atomic ? u32{access_atomic} : 0u);
    a.what |= space_of(a.pointer) << access_space_shift;
    a.understood = a.pointer.end != 0;
    return a;
  }

  /// The stored value may be a constant with commas; the pointer is the last ", ptr" outside
  /// brackets.
  static std::size_t find_store_pointer(const std::string& line, std::size_t from) {
    int depth = 0;
    for (std::size_t i = from; i < line.size(); ++i) {
      const char c = line[i];
      if (c == '(' || c == '<' || c == '[' || c == '{') ++depth;
      if (c == ')' || c == '>' || c == ']' || c == '}') --depth;
      if (depth == 0 && line.compare(i, 5, ", ptr") == 0) return i + 2;
    }
    return line.size();
  }

  void memory(const std::string& line, const Access& a) {
    if (!a.understood || (a.pointer.space == 0 && is_private(a.pointer.value))) {
      out_.text += line + "\n";
      return;
    }
    const std::string real = checked(a.pointer, a.what, "");
    std::string changed =
        line.substr(0, a.pointer.begin) + "ptr " + real + line.substr(a.pointer.end);
    if (!a.atomic) {
      // A misaligned access is a finding, and must not also be a fault.
      const std::size_t align = changed.find(", align ");
      if (align != std::string::npos) {
        std::size_t end = align + 8;
        while (end < changed.size() && std::isdigit(static_cast<unsigned char>(changed[end])) != 0)
          ++end;
        changed.replace(align, end - align, ", align 1");
      }
    }
    out_.text += changed + "\n";
  }

  /// llvm.memcpy, memmove and memset: both ends are checked as one access of the whole length.
  void block_move(const std::string& line) {
    const std::size_t open = line.find('(', line.find("@llvm.mem"));
    const std::string name = line.substr(line.find("@llvm.mem"), 12);
    const bool set = name.starts_with("@llvm.memset");
    const Operand to = read_operand(line, open + 1);
    std::size_t at = to.end + 2;
    Operand from;
    std::string fill;
    if (set) {
      const std::size_t end = line.find(", ", at);
      fill = line.substr(at, end - at);
      at = end + 2;
    } else {
      from = read_operand(line, at);
      at = from.end + 2;
    }
    const std::string length = line.substr(at, line.find(", ", at) - at);
    const std::string debug =
        line.find(", !dbg") != std::string::npos ? line.substr(line.find(", !dbg")) : "";
    auto real = [&](const Operand& op, u32 bits) {
      if (op.space == 0 && is_private(op.value)) return op.value;
      return checked(op, bits | space_of(op) << access_space_shift, length);
    };
    const std::string target = real(to, access_write);
    if (set) {
      out_.text += "  call void @llvm.memset.p0.i64(ptr " + target + ", " + fill + ", " + length +
                   ", i1 false)" + debug + "\n";
      return;
    }
    const std::string source = real(from, 0);
    const char* verb = name.starts_with("@llvm.memmov") ? "memmove" : "memcpy";
    out_.text += std::string("  call void @llvm.") + verb + ".p0.p0.i64(ptr " + target + ", ptr " +
                 source + ", " + length + ", i1 false)" + debug + "\n";
  }

  /// Emits the call that turns an address into the real one; `length` for whole ranges.
  std::string checked(const Operand& pointer, u32 what, const std::string& length) {
    const std::string n = "%softmetal." + std::to_string(next_++);
    const std::string space =
        pointer.space == 0 ? "" : " addrspace(" + std::to_string(pointer.space) + ")";
    const int member = length.empty() ? kAccessMember : kRangeMember;
    std::string& t = out_.text;
    t += "  " + n + ".a = ptrtoint ptr" + space + " " + pointer.value + " to i64\n";
    load_member(n, member);
    t += "  " + n + ".r = call ptr " + n + ".f(i64 " + n + ".a, " +
         (length.empty() ? "" : length + ", ") + "i32 " + std::to_string(what) + ", i32 " +
         std::to_string(site()) + ")" + debug_of() + "\n";
    return n + ".r";
  }

  void load_member(const std::string& n, int member) {
    out_.text += "  " + n + ".t = load ptr, ptr addrspace(1) @softmetal_runtime, align 8\n";
    out_.text +=
        "  " + n + ".p = getelementptr ptr, ptr " + n + ".t, i64 " + std::to_string(member) + "\n";
    out_.text += "  " + n + ".f = load ptr, ptr " + n + ".p, align 8\n";
  }

  static std::string debug_of() { return ""; }

  u32 site() {
    const SourcePlace place = place_.value_or(SourcePlace{});
    const auto [found, fresh] = numbers_.try_emplace(place, static_cast<u32>(out_.sites.size()));
    if (fresh) out_.sites.push_back(place);
    return found->second;
  }

  bool is_private(const std::string& value) const {
    return private_.count(value) != 0 || value.starts_with("@");
  }

  /// What is known of a generic pointer: that it is the thread's own, or which space it came from.
  void track_origin(const std::string& line) {
    const std::size_t equals = line.find(" = ");
    if (equals == std::string::npos || line[2] != '%') return;
    const std::string name = line.substr(2, equals - 2);
    const std::string_view rest = std::string_view(line).substr(equals + 3);
    if (rest.starts_with("alloca ")) private_.insert(name);
    if (rest.starts_with("addrspacecast ptr addrspace(")) {
      origins_[name] = read_operand(rest, 14).space;
    }
    if (!rest.starts_with("getelementptr ")) return;
    const std::size_t pointer = rest.find(", ptr ");
    if (pointer == std::string_view::npos) return;
    const Operand base = read_operand(rest, pointer + 2);
    if (base.space != 0) return;
    if (private_.count(base.value) != 0) private_.insert(name);
    if (const u32 space = space_of(base); space != 0) origins_[name] = space;
  }

  /// The address space that an operand names, or that its pointer was cast from.
  u32 space_of(const Operand& op) const {
    if (op.space != 0) return op.space;
    if (op.value.starts_with("addrspacecast (ptr addrspace(3)")) return 3;
    const auto known = origins_.find(op.value);
    return known == origins_.end() ? 0 : known->second;
  }

  void flush_work() {
    if (work_.empty()) return;
    const std::string n = "%softmetal." + std::to_string(next_++);
    load_member(n, kCountMember);
    out_.text += "  call void " + n + ".f(i32 " + std::to_string(work_.floats) + ", i32 " +
                 std::to_string(work_.integers) + ", i32 " + std::to_string(work_.special) + ")\n";
    work_ = {};
  }

  const IrModule& module_;
  Instrumented out_;
  bool inside_ = false;
  std::set<std::string> private_;
  std::map<std::string, u32> origins_;
  std::optional<SourcePlace> place_;
  std::map<SourcePlace, u32> numbers_;
  Work work_;
  std::uint64_t next_ = 0;
};

}  // namespace

Instrumented instrument(const IrModule& module) { return Instrumenter(module).run(); }

std::string with_region_table(std::string text, const std::vector<ThreadgroupVariable>& variables) {
  constexpr std::string_view kIntrinsic = "@llvm.threadlocal.address.p3";
  std::string body;
  for (std::size_t i = 0; i < variables.size(); ++i) {
    const ThreadgroupVariable& v = variables[i];
    const std::size_t line = text.find("\n" + v.symbol + " = ");
    const std::size_t type = text.find("global " + v.type, line);
    const std::size_t end = text.find_first_of(",\n", type + 7 + v.type.size());
    text.replace(type, end - type, "global <{ " + v.type + ", [64 x i8] }> zeroinitializer");
    const std::string n = std::to_string(i);
    body += "  %t" + n + " = call ptr addrspace(3) " + std::string(kIntrinsic) +
            "(ptr addrspace(3) " + v.symbol + ")\n  %g" + n +
            " = addrspacecast ptr addrspace(3) %t" + n + " to ptr\n  %b" + n +
            " = getelementptr ptr, ptr %begins, i64 " + n + "\n  store ptr %g" + n + ", ptr %b" +
            n + ", align 8\n  %s" + n + " = getelementptr i64, ptr %sizes, i64 " + n +
            "\n  store i64 " + std::to_string(v.bytes) + ", ptr %s" + n + ", align 8\n";
  }
  const bool declared =
      text.find("declare nonnull ptr addrspace(3) @llvm.threadlocal") != std::string::npos;
  if (!variables.empty() && !declared) {
    text +=
        "declare nonnull ptr addrspace(3) @llvm.threadlocal.address.p3(ptr addrspace(3) nonnull)\n";
  }
  return text + "\ndefine i32 @softmetal_regions(ptr %begins, ptr %sizes, i32 %capacity) {\n" +
         body + "  ret i32 " + std::to_string(variables.size()) + "\n}\n";
}

}  // namespace softmetal::msl
