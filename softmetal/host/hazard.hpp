// Which memory a piece of GPU work touched, and which other work it is ordered behind.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

namespace softmetal {

// Addresses [begin, end).
struct Span {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

// What one dispatch or copy touched. Spans are sorted and do not overlap.
struct Uses {
  std::string what;  // for findings: the kernel or the copy
  std::vector<Span> read;
  std::vector<Span> written;
  std::vector<Span> atomic;  // atomic with atomic never conflicts
  bool empty() const { return read.empty() && written.empty() && atomic.empty(); }
};

struct Conflict {
  std::uint64_t address = 0;
  const char* kind = "";  // "read after write" and so on, seen from the later work
};
std::optional<Conflict> conflict(const Uses& earlier, const Uses& later);

// A moment in the life of the process; later moments have greater numbers.
std::uint64_t next_moment();

// An encoder's place in the partial order of GPU work: what a fence or an event vouches for.
struct EncoderOrder {
  std::uint64_t id = 0;
  std::uint64_t committed_at = 0;                            // of its command buffer
  std::shared_ptr<std::atomic<std::uint64_t>> completed_at;  // 0: not yet
  std::unordered_set<std::uint64_t> behind;  // encoders whose work is complete and visible
};

// Recent uses of one untracked resource.
class UseHistory {
 public:
  struct Clash {
    Conflict conflict;
    std::string earlier;
  };
  // Adds `uses` and returns the first clash with work that `encoder` is not ordered behind.
  std::optional<Clash> add(const Uses& uses, const EncoderOrder& encoder);

 private:
  struct Record {
    Uses uses;
    std::uint64_t encoder;
    std::shared_ptr<std::atomic<std::uint64_t>> completed_at;
  };
  static bool ordered(const Record& record, const EncoderOrder& encoder);
  std::mutex mutex_;
  std::vector<Record> records_;
};

}  // namespace softmetal
