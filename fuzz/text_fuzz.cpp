// Whatever bytes a text has, what is shown of it is UTF-8, has no control character, and is shown
// as it is.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "text.hpp"

namespace {

bool is_control(char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; }

void check(const std::string& shown) {
  if (std::any_of(shown.begin(), shown.end(), is_control)) std::abort();
  if (ingot::cli::printable(shown) != shown) std::abort();
  if (ingot::cli::valid_utf8(shown) != shown) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  check(ingot::cli::printable(text));
  if (!nlohmann::json::accept(ingot::cli::json_text(nlohmann::json{{"text", text}}))) std::abort();
  const std::string whole = ingot::cli::valid_utf8(text);
  if (ingot::cli::valid_utf8(whole) != whole) std::abort();
  return 0;
}
