#include "ptx/translate.hpp"

#include <algorithm>
#include <cctype>
#include <map>
#include <stdexcept>
#include <vector>

namespace softcuda {
namespace {

struct Operand {
  std::vector<std::string> parts;  // C++; several of a group in braces or brackets
};

struct Instruction {
  std::string mnemonic;
  std::vector<Operand> operands;
};

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(" \t\n");
  if (begin == std::string::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\n") - begin + 1);
}

std::string function_of(const std::string& mnemonic) {
  std::string name;
  for (const char c : mnemonic) {
    if (is_word(c))
      name += c;
    else if (name.back() != '_')
      name += '_';
  }
  return name;
}

/// The text of one asm statement, with the registers that it declares.
class Translation {
 public:
  Translation(const AsmStatement& statement, const IsKnown& is_known)
      : statement_(statement), is_known_(is_known) {}

  std::string block() {
    std::string body;
    if (trimmed(statement_.text).empty()) {
      for (const AsmOperand& operand : statement_.operands) {
        if (operand.constraint[0] == '=') body += "::softcuda::forget(" + operand.expression + ");";
      }
      return "{" + body + "}";
    }
    for (const std::string& line : lines()) body += line_of(line);
    return "{" + body + "}";
  }

 private:
  /// Instructions: between semicolons, without the braces of a block of their own.
  std::vector<std::string> lines() const {
    std::vector<std::string> all;
    std::string line;
    for (const char c : statement_.text) {
      const bool starts = trimmed(line).empty();
      if (starts && (c == '{' || c == '}')) continue;
      if (c != ';') {
        line += c;
        continue;
      }
      all.push_back(trimmed(line));
      line.clear();
    }
    if (!trimmed(line).empty()) {
      throw std::runtime_error("PTX \"" + trimmed(line) + "\": must end with a semicolon");
    }
    return all;
  }

  std::string line_of(const std::string& line) {
    if (line.starts_with(".reg")) return declarations(line);
    const Instruction instruction = parse(line);
    if (instruction.mnemonic.starts_with("wgmma.mma_async.")) return wgmma(instruction);
    const std::string function = function_of(instruction.mnemonic);
    if (!is_known_(function)) {
      throw std::runtime_error("PTX instruction \"" + instruction.mnemonic +
                               "\": is not one that softcuda has");
    }
    return "::softcuda::ptx::" + function + "(" + joined(instruction.operands, 0) + ");";
  }

  static std::string joined(const std::vector<Operand>& operands, std::size_t from) {
    std::string text;
    for (std::size_t i = from; i < operands.size(); ++i) {
      for (const std::string& part : operands[i].parts) text += (text.empty() ? "" : ", ") + part;
    }
    return text;
  }

  // ".reg .b16 low, high"
  std::string declarations(const std::string& line) {
    static const std::map<std::string, std::string> types = {{".pred", "bool"},
                                                             {".b16", "unsigned short"},
                                                             {".b32", "unsigned"},
                                                             {".u32", "unsigned"},
                                                             {".s32", "unsigned"},
                                                             {".f32", "float"},
                                                             {".b64", "unsigned long long"},
                                                             {".u64", "unsigned long long"}};
    const std::string rest = trimmed(line.substr(4));
    const std::size_t end = rest.find_first_of(" \t\n");
    const auto type = types.find(rest.substr(0, end));
    if (end == std::string::npos || type == types.end()) {
      throw std::runtime_error("PTX \"" + line + "\": registers of this type are not modelled");
    }
    std::string code;
    for (const std::string& name : split(rest.substr(end))) {
      registers_.push_back(name);
      code += type->second + " softcuda_" + name + ";";
    }
    return code;
  }

  /// At commas that no brace or bracket surrounds.
  static std::vector<std::string> split(const std::string& text) {
    std::vector<std::string> parts(1);
    int depth = 0;
    for (const char c : text) {
      if (c == '{' || c == '[') ++depth;
      if (c == '}' || c == ']') --depth;
      if (c == ',' && depth == 0) {
        parts.emplace_back();
      } else {
        parts.back() += c;
      }
    }
    for (std::string& part : parts) part = trimmed(part);
    if (parts.size() == 1 && parts[0].empty()) parts.clear();
    return parts;
  }

  Instruction parse(const std::string& line) const {
    if (line.starts_with("@")) throw std::runtime_error("PTX \"" + line + "\": no predicates here");
    const std::size_t end = std::min(line.find_first_of(" \t\n"), line.size());
    Instruction instruction{line.substr(0, end), {}};
    for (const std::string& part : split(line.substr(end))) {
      Operand operand;
      std::string flat;
      for (const char c : part) flat += c == '{' || c == '}' || c == '[' || c == ']' ? ' ' : c;
      for (const std::string& item : split(flat)) {
        if (item != "_") operand.parts.push_back(item_of(item, line));
      }
      instruction.operands.push_back(std::move(operand));
    }
    return instruction;
  }

  std::string item_of(const std::string& item, const std::string& line) const {
    if (item.starts_with("%%")) {
      const std::string function = "register_" + function_of(item.substr(2));
      if (!is_known_(function)) {
        throw std::runtime_error("PTX register \"" + item.substr(1) + "\": is not modelled");
      }
      return "::softcuda::" + function + "()";
    }
    if (item[0] == '%' && item.find_first_not_of("0123456789", 1) == std::string::npos) {
      return value_of(std::stoul(item.substr(1)), line);
    }
    if (item.find_first_not_of("0123456789") == std::string::npos) return item;
    if (std::ranges::find(registers_, item) != registers_.end()) return "softcuda_" + item;
    throw std::runtime_error("PTX \"" + line + "\": what is " + item + "?");
  }

  std::string value_of(std::size_t number, const std::string& line) const {
    if (number >= statement_.operands.size()) {
      throw std::runtime_error("PTX \"" + line + "\": there is no operand " +
                               std::to_string(number));
    }
    const AsmOperand& operand = statement_.operands[number];
    const std::string expression = "(" + operand.expression + ")";
    if (operand.is_output()) return expression;
    if (operand.constraint == "f") return "static_cast<float>" + expression;
    const std::string kind = operand.constraint == "n" ? "r" : operand.constraint;
    if (kind != "r" && kind != "l" && kind != "h") {
      throw std::runtime_error("asm: operands \"" + kind + "\" are not modelled");
    }
    return "::softcuda::operand_" + kind + expression;
  }

  // wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {sums}, a, b, p, 1, 1, ...
  static std::string wgmma(const Instruction& instruction) {
    const std::string start = "wgmma.mma_async.sync.aligned.m64n";
    const std::string& name = instruction.mnemonic;
    const std::size_t k = name.find("k16.f32.");
    const std::string types = k == std::string::npos ? "" : name.substr(k + 8);
    const bool is_bf16 = types == "bf16.bf16";
    if (!name.starts_with(start) || (!is_bf16 && types != "f16.f16") ||
        instruction.operands.size() < 3) {
      throw std::runtime_error("PTX instruction \"" + name + "\": is not one that softcuda has");
    }
    const std::string columns = name.substr(start.size(), k - start.size());
    const std::vector<std::string>& sums = instruction.operands[0].parts;
    if (2 * sums.size() != std::stoul(columns)) {
      throw std::runtime_error("PTX instruction \"" + name + "\": takes N / 2 accumulators");
    }
    std::string code = "float* const softcuda_sums = &" + sums[0] + ";";
    code += "::softcuda::check_place(true";
    for (std::size_t i = 1; i < sums.size(); ++i) {
      code += " && &" + sums[i] + " == softcuda_sums + " + std::to_string(i);
    }
    code += ");::softcuda::wgmma_";
    code += instruction.operands[1].parts.size() == 4 ? "registers" : "shared";
    return code + "<" + columns + ", " + (is_bf16 ? "true" : "false") + ">(softcuda_sums, " +
           joined(instruction.operands, 1) + ");";
  }

  const AsmStatement& statement_;
  const IsKnown& is_known_;
  std::vector<std::string> registers_;
};

}  // namespace

std::string translate(const AsmStatement& statement, const IsKnown& is_known) {
  return Translation(statement, is_known).block();
}

}  // namespace softcuda
