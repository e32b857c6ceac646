// The two caches of compiled kernels, and the text that is compiled.
#include "core/kernel_cache.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "core/error.hpp"
#include "core/source.hpp"

namespace ingot {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> bytes(std::string_view text) {
  const auto span = std::as_bytes(std::span(text.data(), text.size()));
  return {span.begin(), span.end()};
}

class DiskCacheTest : public ::testing::Test {
 protected:
  DiskCacheTest() {
    std::string name = (fs::temp_directory_path() / "ingot-cache-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~DiskCacheTest() override { fs::remove_all(folder_); }

  fs::path only_file() const {
    for (const auto& file : fs::directory_iterator(folder_)) return file.path();
    return {};
  }

  fs::path folder_;
};

TEST_F(DiskCacheTest, FindsWhatWasStoredByTheWholeKey) {
  const DiskCache cache(folder_ / "new");
  EXPECT_FALSE(cache.find("key"));
  cache.store("key", bytes("value"));
  cache.store("other", bytes(""));
  EXPECT_EQ(cache.find("key"), bytes("value"));
  EXPECT_EQ(cache.find("other"), bytes(""));
  EXPECT_FALSE(cache.find("ke"));
  cache.store("key", bytes("newer"));
  EXPECT_EQ(cache.find("key"), bytes("newer"));
  EXPECT_EQ(DiskCache(folder_ / "new").find("key"), bytes("newer"));
  EXPECT_EQ(fs::status(folder_ / "new").permissions(), fs::perms::owner_all);
}

TEST_F(DiskCacheTest, DamageIsAMiss) {
  const DiskCache cache(folder_);
  cache.store("key", bytes("a value of some length"));
  const fs::path path = only_file();
  for (const std::uintmax_t at : {fs::file_size(path) - 1, std::uintmax_t{0}, std::uintmax_t{33}}) {
    cache.store("key", bytes("a value of some length"));
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(at));
      file.put('\x7f');
    }
    EXPECT_FALSE(cache.find("key")) << at;
  }
  cache.store("key", bytes("a value of some length"));
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_FALSE(cache.find("key"));
  fs::resize_file(path, 3);
  EXPECT_FALSE(cache.find("key"));
}

TEST_F(DiskCacheTest, AFileOfAnotherKeyIsAMiss) {
  const DiskCache cache(folder_);
  cache.store("one", bytes("1"));
  const fs::path one = only_file();
  const fs::path kept = folder_ / "kept";
  fs::rename(one, kept);
  cache.store("two", bytes("2"));
  for (const auto& file : fs::directory_iterator(folder_)) {
    if (file.path() != kept) fs::copy_file(kept, file, fs::copy_options::overwrite_existing);
  }
  EXPECT_FALSE(cache.find("two"));  // as if both had one hash
}

TEST_F(DiskCacheTest, OldFilesGoAboveTheBound) {
  const DiskCache cache(folder_, 3000);
  const std::vector<std::byte> kilobyte(1000, std::byte{1});
  for (const char* key : {"a", "b"}) cache.store(key, kilobyte);
  for (const auto& file : fs::directory_iterator(folder_)) {
    fs::last_write_time(file, fs::file_time_type::clock::now() - std::chrono::hours(1));
  }
  EXPECT_TRUE(cache.find("a"));  // used now
  cache.store("c", kilobyte);
  EXPECT_TRUE(cache.find("a"));
  EXPECT_FALSE(cache.find("b"));
  EXPECT_TRUE(cache.find("c"));
}

TEST_F(DiskCacheTest, AFolderThatOthersMayWriteIsNotUsed) {
  ASSERT_EQ(chmod(folder_.c_str(), 0777), 0);
  const DiskCache cache(folder_);
  cache.store("key", bytes("value"));
  EXPECT_FALSE(cache.find("key"));
  EXPECT_NE(cache.unusable().find(folder_.string()), std::string::npos);
  ASSERT_EQ(chmod(folder_.c_str(), 0700), 0);
  EXPECT_EQ(cache.unusable(), "");
}

TEST(KernelCache, MakesEachKernelOnce) {
  KernelCache<int> cache;
  std::atomic<int> made{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto kernel = cache.get("key", [&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        return std::make_shared<const int>(++made);
      });
      EXPECT_EQ(*kernel, 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
}

TEST(KernelCache, AFailureIsNotKept) {
  KernelCache<int> cache;
  EXPECT_THROW(
      cache.get("key",
                []() -> std::shared_ptr<const int> { throw Error(Code::compile_failed, "no"); }),
      Error);
  EXPECT_EQ(*cache.get("key", [] { return std::make_shared<const int>(7); }), 7);
}

struct SomeConfig {
  std::string_view kernel = "forward";
  std::int64_t block_m = 32;
  bool causal = true;
  TypeName q_type{"half"};

  template <class F>
  void visit(F&& f) const {
    f("kernel", kernel);
    f("block_m", block_m);
    f("causal", causal);
    f("q_type", q_type);
  }
};

TEST(Source, ConfigIsLiterals) {
  EXPECT_EQ(emit_config(literals_of(SomeConfig{}), "static constexpr"),
            "struct Config {\n"
            "  // kernel: forward\n"
            "  static constexpr int block_m = 32;\n"
            "  static constexpr bool causal = true;\n"
            "  using q_type = half;\n"
            "};\n");
}

TEST(Source, IncludesAreInlinedOnceWithTheirLines) {
  const std::string text = assemble_source("algorithm/score.h", {}, "constexpr", "// prologue\n");
  EXPECT_EQ(text.rfind("// prologue\nstruct Config {\n};\n#line 1 \"algorithm/score.h\"\n", 0), 0U);
  EXPECT_EQ(text.find("#include \""), std::string::npos);
  const std::string params = "#line 1 \"algorithm/params.h\"\n";
  ASSERT_NE(text.find(params), std::string::npos);
  EXPECT_EQ(text.find(params), text.rfind(params));
  EXPECT_NE(text.find("derivative("), std::string::npos);
  EXPECT_THROW(kernel_file("algorithm/none.h"), Error);
}

}  // namespace
}  // namespace ingot
