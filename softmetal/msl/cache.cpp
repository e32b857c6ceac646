#include "cache.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace softmetal::msl {
namespace {

namespace fs = std::filesystem;

std::string cache_root() {
  if (const char* chosen = std::getenv("SOFTMETAL_CACHE_DIR")) return chosen;
  const char* temporary = std::getenv("TMPDIR");
  return std::string(temporary != nullptr ? temporary : "/tmp") + "/softmetal-" +
         std::to_string(getuid());
}

/// Compiled code is loaded from here: it must be the user's own and closed to others.
void make_private(const std::string& root) {
  if (mkdir(root.c_str(), 0700) != 0 && errno != EEXIST) {
    throw std::runtime_error("cache directory " + root + ": " + std::strerror(errno));
  }
  struct stat info{};
  if (lstat(root.c_str(), &info) != 0 || !S_ISDIR(info.st_mode) || info.st_uid != getuid() ||
      (info.st_mode & 022) != 0) {
    throw std::runtime_error("cache directory " + root +
                             " must be a directory of the user that others cannot write to");
  }
}

}  // namespace

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

void write_file(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path);
}

std::string content_hash(std::string_view text) {
  std::array<std::uint64_t, 2> h{0xcbf29ce484222325u, 0x9e3779b97f4a7c15u};
  for (const char c : text) {
    h[0] = (h[0] ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    h[1] = (h[1] + static_cast<unsigned char>(c)) * 0xff51afd7ed558ccdu;
    h[1] ^= h[1] >> 29;
  }
  std::ostringstream out;
  out << std::hex << h[0] << h[1];
  return out.str();
}

Cache::Cache() : root_(cache_root()) { make_private(root_); }

Cache& Cache::instance() {
  static Cache cache;
  return cache;
}

std::string Cache::entry(std::string_view key,
                         const std::function<void(const std::string& dir)>& build) {
  const std::string place = root_ + "/" + content_hash(key);
  std::error_code error;
  // The whole key is kept, so that two contents of one hash are not confused.
  if (fs::exists(place + "/key", error) && read_file(place + "/key") == key) return place;
  std::string fresh = root_ + "/new.XXXXXX";
  if (mkdtemp(fresh.data()) == nullptr) throw std::runtime_error("cannot create " + fresh);
  try {
    build(fresh);
    write_file(fresh + "/key", key);
  } catch (...) {
    fs::remove_all(fresh, error);
    throw;
  }
  fs::rename(fresh, place, error);
  if (!error) return place;
  if (fs::exists(place + "/key") && read_file(place + "/key") == key) {
    fs::remove_all(fresh, error);  // another process was first
    return place;
  }
  return fresh;  // a hash collision or a damaged entry: used once from where it is
}

}  // namespace softmetal::msl
