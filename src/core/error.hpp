// The one exception type inside ingot. c_api.cpp turns it into a status and a text.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ingot {

/// Values equal ingot_status of ingot.h.
enum class Code : std::uint8_t {
  ok = 0,
  invalid_argument = 1,
  unsupported = 2,
  out_of_memory = 3,
  compile_failed = 4,
  device_error = 5,
  internal = 6,
  cancelled = 7,
};

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const noexcept { return code_; }

 private:
  Code code_;
};

}  // namespace ingot
