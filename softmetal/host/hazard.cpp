#include "hazard.hpp"

#include <algorithm>

namespace softmetal {
namespace {

std::optional<std::uint64_t> overlap(const std::vector<Span>& a, const std::vector<Span>& b) {
  for (std::size_t i = 0, k = 0; i < a.size() && k < b.size();) {
    const std::uint64_t begin = std::max(a[i].begin, b[k].begin);
    if (begin < std::min(a[i].end, b[k].end)) {
      return begin;
    }
    if (a[i].end < b[k].end) {
      ++i;
    } else {
      ++k;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<Conflict> conflict(const Uses& earlier, const Uses& later) {
  const struct {
    const std::vector<Span>& earlier;
    const std::vector<Span>& later;
    const char* kind;
  } pairs[] = {{earlier.written, later.read, "reads what the other writes"},
               {earlier.written, later.written, "writes what the other writes"},
               {earlier.read, later.written, "writes what the other reads"},
               {earlier.atomic, later.read, "reads what the other changes atomically"},
               {earlier.atomic, later.written, "writes what the other changes atomically"},
               {earlier.read, later.atomic, "changes atomically what the other reads"},
               {earlier.written, later.atomic, "changes atomically what the other writes"}};
  for (const auto& pair : pairs) {
    if (const auto at = overlap(pair.earlier, pair.later)) {
      return Conflict{*at, pair.kind};
    }
  }
  return std::nullopt;
}

std::uint64_t next_moment() {
  static std::atomic<std::uint64_t> moment{1};
  return moment++;
}

bool UseHistory::ordered(const Record& record, const EncoderOrder& encoder) {
  const std::uint64_t completed = record.completed_at->load();
  const bool host_waited = completed != 0 && completed < encoder.committed_at;
  return host_waited || record.encoder == encoder.id || encoder.behind.contains(record.encoder);
}

std::optional<UseHistory::Clash> UseHistory::add(const Uses& uses, const EncoderOrder& encoder) {
  const std::lock_guard lock(mutex_);
  std::optional<Clash> clash;
  for (const Record& record : records_) {
    if (ordered(record, encoder)) {
      continue;
    }
    if (const auto found = conflict(record.uses, uses)) {
      clash = Clash{*found, record.uses.what};
      break;
    }
  }
  std::erase_if(records_, [&](const Record& record) {
    const std::uint64_t completed = record.completed_at->load();
    return completed != 0 && completed < encoder.committed_at;
  });
  records_.push_back({uses, encoder.id, encoder.completed_at});
  return clash;
}

}  // namespace softmetal
