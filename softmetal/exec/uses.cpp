#include "uses.hpp"

namespace softmetal::exec {

msl::BufferUse TouchMap::summary() const {
  msl::BufferUse use;
  const std::pair<Touch, std::vector<msl::ByteRange>*> kinds[] = {
      {Touch::read, &use.read}, {Touch::write, &use.written}, {Touch::atomic, &use.atomic}};
  marks_.for_each_chunk([&](std::size_t first, const auto* marks, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint8_t mark = marks[i].load(std::memory_order_relaxed);
      if (mark == 0) continue;
      const std::size_t at = first + i;
      for (const auto& [how, ranges] : kinds) {
        if ((mark & static_cast<std::uint8_t>(how)) == 0) continue;
        if (ranges->empty() || ranges->back().end != at) ranges->push_back({at, at});
        ranges->back().end = at + 1;
      }
    }
  });
  return use;
}

}  // namespace softmetal::exec
