// Collects what went wrong in one dispatch, from all workers.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "../msl/library.hpp"

namespace softmetal::exec {

class FindingSink {
 public:
  explicit FindingSink(std::size_t limit) : limit_(limit) {}

  /// Keeps one finding by kind, place and buffer and counts its repetitions.
  void add(msl::Finding finding);
  std::vector<msl::Finding> take();

 private:
  using Key = std::tuple<msl::FindingKind, std::string, int, int>;
  std::mutex mutex_;
  std::size_t limit_;
  std::map<Key, std::size_t> index_;
  std::vector<msl::Finding> findings_;
};

}  // namespace softmetal::exec
