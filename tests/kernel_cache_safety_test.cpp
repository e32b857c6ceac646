// What lies in the folder of compiled kernels besides them, and who may have put it there.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "core/kernel_cache.hpp"

namespace ingot {
namespace {

namespace fs = std::filesystem;

static_assert(noexcept(std::declval<const DiskCache>().find("")));
static_assert(noexcept(std::declval<const DiskCache>().store("", {})));

const std::vector<std::byte> kernel(1000, std::byte{7});

class CacheSafety : public ::testing::Test {
 protected:
  CacheSafety() {
    std::string name = (fs::temp_directory_path() / "ingot-cache-test-XXXXXX").string();
    base_ = fs::canonical(mkdtemp(name.data()));
    chmod(base_.c_str(), 0755);  // others may come here
    folder_ = base_ / "cache";
  }
  ~CacheSafety() override { fs::remove_all(base_); }

  /// The file that a kernel of this key is stored in.
  fs::path entry(const DiskCache& cache, const char* key) const {
    const std::set<fs::path> before = files();
    cache.store(key, kernel);
    for (const fs::path& file : files()) {
      if (!before.contains(file)) return file;
    }
    ADD_FAILURE() << "nothing was stored: " << cache.unusable();
    return {};
  }

  std::set<fs::path> files() const {
    std::set<fs::path> found;
    std::error_code none;
    for (const auto& file : fs::directory_iterator(folder_, none)) found.insert(file.path());
    return found;
  }

  static void make_old(const fs::path& file) {
    fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(2));
  }

  /// 4 TiB, where the file system can say so.
  static void make_huge(const fs::path& file) {
    std::error_code too_large;
    fs::resize_file(file, std::uintmax_t{4} << 40, too_large);
  }

  /// False where kernels are neither found nor stored, and the reason names `place`.
  bool is_used(const fs::path& place) const {
    const DiskCache cache(folder_);
    cache.store("used", kernel);
    const bool found = cache.find("used").has_value();
    if (!found) {
      EXPECT_NE(cache.unusable().find(place.string()), std::string::npos) << cache.unusable();
    } else {
      EXPECT_EQ(cache.unusable(), "");
    }
    return found;
  }

  fs::path base_, folder_;
};

/// Another user while it lives; needs root.
class AsUser {
 public:
  explicit AsUser(uid_t user) { EXPECT_EQ(::seteuid(user), 0); }
  ~AsUser() { EXPECT_EQ(::seteuid(0), 0); }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
};
constexpr uid_t somebody = 12345;

#define INGOT_NEEDS_ROOT() \
  if (::geteuid() != 0) GTEST_SKIP() << "skipped: only root can be two users"

TEST_F(CacheSafety, DeletesOnlyWhatItWrote) {
  const DiskCache cache(folder_, 3000);
  cache.store("first", kernel);
  const fs::path outside = base_ / "outside.txt";
  std::ofstream(outside) << "not in the folder";
  std::set<fs::path> foreign;
  for (const char* name :
       {"thesis.txt", "0123456789abcdef.bin", "ingot-0123456789abcdef.bin",
        "ingot-0123456789abcdef.tmp", "write-1-1", "ingot-0123456789abcdef.bin.save",
        "ingot-0123456789abcde.bin", "ingot-0123456789abcdef.metalarchive"}) {
    foreign.insert(folder_ / name);
    std::ofstream(folder_ / name) << "a file of the user's, of a hundred characters or so, "
                                     "but without any header that this cache writes";
    fs::resize_file(folder_ / name, 300 << 20);  // sparse
    make_old(folder_ / name);
  }
  foreign.insert(folder_ / "ingot-1111111111111111.bin");
  fs::create_symlink(outside, folder_ / "ingot-1111111111111111.bin");
  fs::create_directory(folder_ / "ingot-2222222222222222.bin");
  foreign.insert(folder_ / "ingot-2222222222222222.bin");
  ASSERT_EQ(mkfifo((folder_ / "ingot-3333333333333333.bin").c_str(), 0600), 0);
  foreign.insert(folder_ / "ingot-3333333333333333.bin");
  fs::create_directory(folder_ / "tuning");
  foreign.insert(folder_ / "tuning");
  for (const char* key : {"a", "b", "c", "d", "e", "f"}) cache.store(key, kernel);
  const std::set<fs::path> left = files();
  for (const fs::path& file : foreign) EXPECT_TRUE(left.contains(file)) << file;
  EXPECT_TRUE(fs::exists(outside));
  EXPECT_LE(left.size() - foreign.size(), 2U);  // entries of 1.0 kB
  EXPECT_TRUE(cache.find("f"));
}

TEST_F(CacheSafety, EntriesOfAnEarlierVersionGoFirst) {
  const DiskCache cache(folder_, 3000);
  const fs::path old = folder_ / "0123456789abcdef.bin";
  const fs::path one = entry(cache, "one");
  fs::copy_file(one, old);
  for (const fs::path& file : {one, old}) make_old(file);
  cache.store("two", kernel);
  cache.store("three", kernel);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(cache.find("two") && cache.find("three"));
}

TEST_F(CacheSafety, TheFolderIsNotReadAtEveryStore) {
  const DiskCache cache(folder_, 50000);
  const fs::path one = entry(cache, "one"), old = folder_ / "write-1-2";
  std::ofstream{old};
  make_old(old);
  cache.store("two", kernel);
  EXPECT_TRUE(fs::exists(old));  // there is room for dozens
  for (int i = 0; i < 60 && fs::exists(old); ++i) cache.store("key", kernel);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_TRUE(fs::exists(one));
}

TEST_F(CacheSafety, SurvivesAnythingUnderAnEntrysName) {
  const DiskCache cache(folder_);
  const fs::path path = entry(cache, "key"), valid = base_ / "valid";
  fs::rename(path, valid);
  const std::map<const char*, std::function<void()>> things = {
      {"a folder", [&] { fs::create_directory(path); }},
      {"a full folder", [&] { fs::create_directories(path / "below"); }},
      {"a FIFO", [&] { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); }},
      {"4 TiB", [&] { std::ofstream{path}, make_huge(path); }},
      {"4 TiB after a header", [&] { fs::copy_file(valid, path), make_huge(path); }},
      {"nothing", [&] { std::ofstream{path}; }},
      {"a dangling link", [&] { fs::create_symlink(base_ / "nowhere", path); }},
      {"a link to itself", [&] { fs::create_symlink(path, path); }},
      {"a link to a valid entry", [&] { fs::create_symlink(valid, path); }},
      {"a device", [&] { fs::create_symlink("/dev/zero", path); }},
      {"no permission", [&] { fs::copy_file(valid, path), chmod(path.c_str(), 0); }},
      {"a socket",
       [&] {
         const int file = socket(AF_UNIX, SOCK_STREAM, 0);
         sockaddr_un address{AF_UNIX, {}};
         std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
         EXPECT_EQ(bind(file, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
         close(file);
       }},
  };
  for (const auto& [what, put] : things) {
    put();
    const bool may_be_read = what == std::string("no permission") && ::geteuid() == 0;
    EXPECT_TRUE(may_be_read || !cache.find("key")) << what;
    cache.store("key", kernel);
    EXPECT_EQ(cache.find("key").has_value(), !fs::is_directory(path)) << what;
    EXPECT_EQ(files().size(), 1U) << what << ": a temporary file is left";
    fs::remove_all(path);
  }
  EXPECT_TRUE(fs::exists(valid));
}

TEST_F(CacheSafety, TemporaryFilesOfDeadProcessesBlockNothingAndGo) {
  fs::create_directory(folder_);
  const std::string mine = "write-" + std::to_string(getpid()) + "-";
  std::set<fs::path> old, young;
  for (int i = 0; i < 20; ++i) young.insert(folder_ / (mine + std::to_string(i)));
  for (const char* name : {"write-1-0", "ingot-00000000000000aa.tmp"}) old.insert(folder_ / name);
  for (const std::set<fs::path>& some : {old, young}) {
    for (const fs::path& file : some) std::ofstream{file};
  }
  for (const fs::path& file : old) make_old(file);
  const DiskCache cache(folder_);
  const fs::path stored = entry(cache, "key");
  EXPECT_TRUE(cache.find("key"));
  for (const fs::path& file : old) EXPECT_FALSE(fs::exists(file)) << file;
  for (const fs::path& file : young) EXPECT_TRUE(fs::exists(file)) << file;  // may be at work
}

TEST_F(CacheSafety, WhatOthersMayWriteIsNotUsed) {
  EXPECT_TRUE(is_used({}));
  const DiskCache cache(folder_);
  const fs::path file = entry(cache, "key");
  for (const mode_t mode : {0620, 0602}) {
    chmod(file.c_str(), mode);
    EXPECT_FALSE(cache.find("key"));
  }
  chmod(file.c_str(), 0644);
  EXPECT_TRUE(cache.find("key"));
  for (const mode_t mode : {0770, 0777, 01777}) {
    chmod(folder_.c_str(), mode);
    EXPECT_FALSE(is_used(folder_)) << mode;
  }
  chmod(folder_.c_str(), 0755);
  EXPECT_TRUE(is_used({}));
}

TEST_F(CacheSafety, AFolderThatOthersMayExchangeIsNotUsed) {
  const fs::path shared = base_ / "shared";
  fs::create_directory(shared);
  folder_ = shared / "mine" / "cache";
  chmod(shared.c_str(), 0777);
  EXPECT_FALSE(is_used(shared));
  EXPECT_FALSE(fs::exists(shared / "mine"));
  chmod(shared.c_str(), 0775);
  EXPECT_FALSE(is_used(shared));
  chmod(shared.c_str(), 01777);  // sticky: only the owner may rename
  EXPECT_TRUE(is_used({}));
  chmod(shared.c_str(), 0777);
  EXPECT_FALSE(is_used(shared));
  fs::create_directory_symlink(shared / "mine", base_ / "link");
  folder_ = base_ / "link" / "cache";
  EXPECT_FALSE(is_used(shared));  // the way up is that of the folder, not of its name
  chmod(base_.c_str(), 0700);     // others cannot come here
  EXPECT_TRUE(is_used({}));
  chmod(base_.c_str(), 0755);
}

TEST_F(CacheSafety, WhatIsAnotherUsersIsNotUsed) {
  INGOT_NEEDS_ROOT();
  const DiskCache cache(folder_);
  const fs::path file = entry(cache, "key");
  ASSERT_EQ(chown(file.c_str(), somebody, 0), 0);
  EXPECT_FALSE(cache.find("key"));
  ASSERT_EQ(chown(file.c_str(), 0, 0), 0);
  EXPECT_TRUE(cache.find("key"));
  ASSERT_EQ(chown(folder_.c_str(), somebody, 0), 0);
  EXPECT_FALSE(is_used(folder_));
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(CacheSafety, RootLeavesNothingInAUsersHome) {
  INGOT_NEEDS_ROOT();
  const fs::path home = base_ / "home";
  fs::create_directory(home);
  ASSERT_EQ(chown(home.c_str(), somebody, 0), 0);
  folder_ = home / ".cache" / "ingot";
  EXPECT_FALSE(is_used(home));
  EXPECT_TRUE(fs::is_empty(home));
  const AsUser user(somebody);
  EXPECT_TRUE(is_used({}));
}

TEST_F(CacheSafety, AFolderOfRootsIsRead) {
  INGOT_NEEDS_ROOT();
  const DiskCache cache(folder_);
  const fs::path file = entry(cache, "key");
  for (const fs::path& path : {file, folder_}) chmod(path.c_str(), 0755);
  const AsUser user(somebody);
  EXPECT_TRUE(cache.find("key"));
  cache.store("other", kernel);
  EXPECT_FALSE(cache.find("other"));
  EXPECT_NE(cache.unusable().find("is only read"), std::string::npos) << cache.unusable();
  EXPECT_EQ(files().size(), 1U);
}

TEST_F(CacheSafety, FoldersAreMadePrivateWhateverTheUmask) {
  const mode_t before = ::umask(0);
  folder_ = base_ / "a" / "b" / "cache";
  EXPECT_TRUE(is_used({}));
  ::umask(before);
  for (fs::path path = folder_; path != base_; path = path.parent_path()) {
    EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_all) << path;
  }
}

/// Variables of the environment, set to these while it lives.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::optional<std::string>>& variables) {
    for (const auto& [name, value] : variables) {
      const char* before = std::getenv(name.c_str());
      before_[name] = before == nullptr ? std::nullopt : std::optional<std::string>(before);
      set(name, value);
    }
  }
  ~Environment() {
    for (const auto& [name, value] : before_) set(name, value);
  }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  static void set(const std::string& name, const std::optional<std::string>& value) {
    value ? setenv(name.c_str(), value->c_str(), 1) : unsetenv(name.c_str());
  }
  std::map<std::string, std::optional<std::string>> before_;
};

#if !defined(__APPLE__)
TEST(CacheFolder, IsWhatTheEnvironmentSays) {
  using Text = std::optional<std::string>;
  struct Case {
    Text chosen, caches, home;
    const char* folder;
  };
  const Case cases[] = {
      {"/c", "/x", "/h", "/c"},
      {"relative/c", "/x", "/h", "relative/c"},
      {"off", "/x", "/h", ""},
      {"", "/x", "/h", "/x/ingot"},
      {{}, "/x", "/h", "/x/ingot"},
      {{}, "", "/h", "/h/.cache/ingot"},
      {{}, {}, "/h", "/h/.cache/ingot"},
      {{}, "relative", "/h", "/h/.cache/ingot"},
      {{}, {}, "relative", ""},
      {{}, {}, "", ""},
      {{}, {}, {}, ""},
      {{}, "/x", {}, "/x/ingot"},
  };
  for (const Case& c : cases) {
    const Environment environment(
        {{"INGOT_CACHE_DIR", c.chosen}, {"XDG_CACHE_HOME", c.caches}, {"HOME", c.home}});
    EXPECT_EQ(DiskCache::default_folder(), c.folder);
    const DiskCache cache;
    EXPECT_EQ(cache.folder().empty(), *c.folder == '\0');
    EXPECT_TRUE(cache.folder().empty() || cache.folder().is_absolute());
    if (cache.folder().empty()) {
      cache.store("key", kernel);
      EXPECT_FALSE(cache.find("key"));
      EXPECT_NE(cache.unusable().find("INGOT_CACHE_DIR"), std::string::npos);
    }
  }
}
#endif

}  // namespace
}  // namespace ingot
