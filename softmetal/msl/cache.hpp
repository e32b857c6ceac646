// A directory of results by content. Entries are built aside and moved into place, so processes may
// share it.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace softmetal::msl {

/// SOFTMETAL_CACHE_DIR, else a directory of the user's own under TMPDIR.
class Cache {
 public:
  static Cache& instance();

  /// The directory of the entry for `key`; `build` fills a fresh one if there is none yet. Whatever
  /// build throws leaves no entry.
  std::string entry(std::string_view key, const std::function<void(const std::string& dir)>& build);
  const std::string& root() const { return root_; }

 private:
  Cache();
  std::string root_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, std::string_view text);
std::string content_hash(std::string_view text);

}  // namespace softmetal::msl
