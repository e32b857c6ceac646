#include "usage.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

namespace softmetal {
namespace {

struct Messages {
  std::mutex mutex;
  std::map<std::string, OsVersion> since;
};

Messages& messages() {
  static Messages* const instance = new Messages;
  return *instance;
}

std::string file_name() { return environment("SOFTMETAL_SELECTORS", ""); }

}  // namespace

bool lists_messages() {
  static const bool wanted = !file_name().empty();  // asked for every message
  return wanted;
}

void note_message(const std::string& name, OsVersion since) {
  const std::lock_guard lock(messages().mutex);
  messages().since.emplace(name, since);
}

std::string version_name(OsVersion version) {
  return version.major == 0 ? "always"
                            : std::to_string(version.major) + "." + std::to_string(version.minor);
}

void write_messages() {
  if (file_name().empty()) {
    return;
  }
  const std::lock_guard lock(messages().mutex);
  std::vector<std::pair<std::string, OsVersion>> rows(messages().since.begin(),
                                                      messages().since.end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  std::ofstream file(file_name());
  for (const auto& [name, since] : rows) {
    std::string version = version_name(since);
    version.resize(8, ' ');
    file << version << name << '\n';
  }
}

}  // namespace softmetal
