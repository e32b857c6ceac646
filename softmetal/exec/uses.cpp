#include "uses.hpp"

namespace softmetal::exec {

msl::BufferUse TouchMap::summary() const {
  msl::BufferUse use;
  const auto collect = [this](Touch how, std::vector<msl::ByteRange>& ranges) {
    const auto bit = static_cast<std::uint8_t>(how);
    for (std::size_t i = 0; i < bytes_; ++i) {
      if ((marks_[i].load(std::memory_order_relaxed) & bit) == 0) continue;
      if (ranges.empty() || ranges.back().end != i) ranges.push_back({i, i});
      ranges.back().end = i + 1;
    }
  };
  collect(Touch::read, use.read);
  collect(Touch::write, use.written);
  collect(Touch::atomic, use.atomic);
  return use;
}

}  // namespace softmetal::exec
