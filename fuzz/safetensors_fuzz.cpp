// Any bytes are either refused with Failure or describe tensors that lie within them, without
// overlap.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "failure.hpp"
#include "safetensors.hpp"

namespace {

void check(const ingot::cli::SafetensorsInfo& info, std::size_t file_bytes) {
  std::size_t total = 0;
  for (const auto& [name, tensor] : info.tensors) {
    if (tensor.begin > tensor.end || tensor.end > file_bytes) std::abort();
    total += tensor.end - tensor.begin;
  }
  if (total > file_bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    check(ingot::cli::parse_safetensors(std::as_bytes(std::span(data, size))), size);
  } catch (const ingot::cli::Failure&) {
    return 0;  // refused, as it may be
  }
  return 0;
}
