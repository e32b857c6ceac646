#include "cuda/tickets.hpp"

#include <algorithm>

namespace ingot::cuda {
namespace {

constexpr std::int64_t chunk = 1 << 18;  // numbers allocated at a time, 1 MiB
constexpr std::size_t most_chunks = 64;
constexpr std::int64_t least_set = 256;  // of a stream, so that few calls need another

}  // namespace

unsigned* Tickets::take(StreamHandle stream, std::int64_t count) {
  if (device_.is_capturing(stream)) {
    const std::lock_guard lock(mutex_);
    return make(count).first;
  }
  const std::uint64_t number = device_.number_of(stream);
  const std::lock_guard lock(mutex_);
  Set& set = of_streams_[number];
  if (set.count < count) set = make(std::max(count, least_set));
  return set.first;
}

Tickets::Set Tickets::make(std::int64_t count) {
  if (count > chunk) return {};
  if (count > left_) {
    if (memory_.size() == most_chunks) return {};
    memory_.push_back(device_.zeros(chunk * static_cast<std::int64_t>(sizeof(unsigned))));
    next_ = reinterpret_cast<unsigned*>(memory_.back()->data());
    left_ = chunk;
  }
  const Set set{next_, count};
  next_ += count;
  left_ -= count;
  return set;
}

}  // namespace ingot::cuda
