// Any bytes are either refused with Failure or describe an array that lies within them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "failure.hpp"
#include "npy.hpp"

namespace {

// The parser promises that data, whatever its order, ends exactly where the file does.
void check(const ingot::cli::NpyInfo& info, std::size_t file_bytes) {
  std::size_t count = 1;
  for (const std::int64_t size : info.shape) {
    if (size < 0) std::abort();
    count *= static_cast<std::size_t>(size);
  }
  if (info.data_offset + count * ingot::cli::dtype_bytes(info.dtype) != file_bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using ingot::cli::NpyElements;
  for (const NpyElements elements :
       {NpyElements::numbers, NpyElements::bytes, NpyElements::lengths}) {
    try {
      check(ingot::cli::parse_npy(std::as_bytes(std::span(data, size)), elements), size);
    } catch (const ingot::cli::Failure&) {
      continue;  // refused, as it may be
    }
  }
  return 0;
}
