#include "collective_sites.hpp"

#include <charconv>

namespace softmetal::msl {

std::map<std::uint32_t, std::string> collective_files(const IrModule& module) {
  std::map<std::uint32_t, std::string> files;
  for (const std::string& line : module.lines()) {
    const std::size_t call = line.find("call ");
    if (call == std::string::npos || line.find("@llvm.") != std::string::npos) continue;
    const auto place = module.place(line);
    if (!place || place->file == "program_source") continue;
    for (std::size_t at = line.find("i32 ", call); at != std::string::npos;
         at = line.find("i32 ", at + 1)) {
      std::size_t begin = at + 4;
      if (line.compare(begin, 8, "noundef ") == 0) begin += 8;
      std::uint32_t site = 0;
      std::from_chars(line.data() + begin, line.data() + line.size(), site);
      if (static_cast<int>(site >> 10) == place->line) files[site] = place->file;
    }
  }
  return files;
}

}  // namespace softmetal::msl
