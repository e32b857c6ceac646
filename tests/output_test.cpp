// The program's outputs: they appear together or not at all, and what was there is not harmed.
#if __has_include("atomic_file.hpp")  // with the program
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "atomic_file.hpp"
#include "files.hpp"
#include "rename.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

class Outputs : public Files {
 protected:
  mode_t mode(const std::string& name) const {
    struct stat status{};
    ::stat(path(name).c_str(), &status);
    return status.st_mode & 07777;
  }
  void output(const std::string& name, const std::string& text) const {
    OutputFiles files;
    files.write(files.add(path(name)), text);
    files.commit();
  }
  std::string add_fails(const std::string& name) const {
    return failure_of([&] { OutputFiles().add(path(name)); });
  }
  // Two outputs whose second finds a folder where it was to go.
  std::string second_fails() const {
    OutputFiles files;
    files.write(files.add(path("a")), "new");
    files.write(files.add(path("b")), "new");
    fs::create_directory(path("b"));
    return failure_of([&] { files.commit(); });
  }
};

TEST_F(Outputs, AppearTogether) {
  OutputFiles files;
  const std::size_t a = files.add(path("a")), b = files.add(path("b"));
  files.write(a, "one");
  files.write(b, "two");
  EXPECT_FALSE(fs::exists(path("a")) || fs::exists(path("b")));
  files.commit();
  EXPECT_EQ(read("a") + read("b"), "onetwo");
  EXPECT_EQ(count(), 2U);
}

TEST_F(Outputs, LeaveNothingWithoutCommit) {
  write("a", "old");
  {
    OutputFiles files;
    files.write(files.add(path("a")), "new");
    files.add(path("b"));
    EXPECT_LE(count(), 3U);  // the new files may have no names yet
  }
  EXPECT_EQ(count(), 1U);
  EXPECT_EQ(read("a"), "old");
}

TEST_F(Outputs, LeaveNothingWhenOneCannotBeRenamed) {
  OutputFiles files;
  files.write(files.add(path("a")), "one");
  files.write(files.add(path("b")), "two");
  fs::create_directory(path("b"));  // appeared in the meantime
  EXPECT_NE(failure_of([&] { files.commit(); }).find("/b: "), std::string::npos);
  EXPECT_EQ(count(), 1U);
}

TEST_F(Outputs, GiveTheOldFileBackWhenAnotherCannotBeRenamed) {
  write("a", "old");
  EXPECT_EQ(second_fails(), path("b") + ": is a directory");
  EXPECT_EQ(read("a"), "old");
  EXPECT_EQ(count(), 2U);
}

TEST_F(Outputs, ReplaceOldFiles) {
  write("a", "old");
  write("b", "old");
  OutputFiles files;
  files.write(files.add(path("a")), "one");
  files.write(files.add(path("b")), "two");
  files.commit();
  EXPECT_EQ(read("a") + read("b"), "onetwo");
  EXPECT_EQ(count(), 2U);
}

TEST_F(Outputs, KeepThePermissionsOfTheUsersOwnFileButNotWhomItRunsAs) {
  write("a", "old");
  ASSERT_EQ(::chmod(path("a").c_str(), 06750), 0);
  output("a", "new");
  EXPECT_EQ(mode("a"), 0750U);
}

TEST_F(Outputs, KeepNoPermissionsOfAnotherUsersFile) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files to others";
  write("a", "old");
  ASSERT_EQ(::chown(path("a").c_str(), 65534, 65534), 0);
  ASSERT_EQ(::chmod(path("a").c_str(), 06777), 0);
  const mode_t mask = ::umask(022);
  output("a", "new");
  ::umask(mask);
  EXPECT_EQ(mode("a"), 0644U);
}

TEST_F(Outputs, DoNotReplaceWhatIsReadOnly) {
  write("a", "old");
  ASSERT_EQ(::chmod(path("a").c_str(), 0444), 0);
  EXPECT_EQ(add_fails("a"), path("a") + ": exists and is read-only");
  EXPECT_EQ(read("a"), "old");
}

TEST_F(Outputs, CreateTheTargetOfADanglingLink) {
  fs::create_directory(path("folder"));
  fs::create_symlink("folder/b", path("a"));
  output("a", "new");
  EXPECT_TRUE(fs::is_symlink(path("a")));
  EXPECT_EQ(read("folder/b"), "new");
  fs::create_symlink("d", path("c"));
  fs::create_symlink("c", path("d"));
  EXPECT_EQ(add_fails("c"), path("c") + ": too many levels of symbolic links");
  fs::create_symlink("none/b", path("e"));
  EXPECT_EQ(add_fails("e"), path("e") + ": No such file or directory");
}

TEST_F(Outputs, DoNotFollowALinkThatAnotherUserPutIntoASharedFolder) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give files to others";
  fs::create_symlink("b", path("a"));
  ASSERT_EQ(::chmod(folder_.c_str(), 01777), 0);
  ASSERT_EQ(::lchown(path("a").c_str(), 65534, 65534), 0);
  EXPECT_NE(add_fails("a").find("symbolic link of another user"), std::string::npos);
  EXPECT_EQ(count(), 1U);
}

TEST_F(Outputs, HaveNamesAsLongAsNamesCanBe) {
  for (const std::size_t length : {248, 249, 254, 255}) {
    const std::string name(length, 'n');
    for (int i = 0; i < 2; ++i) output(name, "new");
    EXPECT_EQ(read(name), "new") << length;
  }
  const std::string name(256, 'n');
  EXPECT_EQ(add_fails(name), path(name) + ": File name too long");
  EXPECT_EQ(count(), 4U);
}

TEST_F(Outputs, LeaveOtherNamesOfTheOldFileAlone) {
  write("a", "old");
  fs::create_hard_link(path("a"), path("b"));
  output("a", "new");
  EXPECT_EQ(read("a") + read("b"), "newold");
}

TEST_F(Outputs, AreNoFolders) {
  fs::create_directory(path("a"));
  EXPECT_EQ(add_fails("a"), path("a") + ": is a directory");
  EXPECT_EQ(add_fails("b/"), path("b/") + ": names a folder, not a file");
  EXPECT_EQ(failure_of([] { OutputFiles().add("/dev/null"); }),
            "/dev/null: exists and is not a regular file");
}

TEST_F(Outputs, OfAFileSystemWithoutExchangeAreSetAside) {
  const Descriptor folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  write("a", "old");
  const std::string aside = set_aside(folder.get(), "a");
  EXPECT_EQ(read(aside), "old");
  EXPECT_EQ(aside.rfind("ingot-", 0), 0U);
  EXPECT_EQ(set_aside(folder.get(), "none"), "");
  EXPECT_FALSE(exchange_names(folder.get(), "a", "none"));
  EXPECT_EQ(read("a"), "old");
}

TEST(Text, OfAFileDoesNothingToATerminal) {
  EXPECT_EQ(printable("plain, na\xC3\xAFve \xE4\xB8\xAD \xF0\x9F\x99\x82"),
            "plain, na\xC3\xAFve \xE4\xB8\xAD \xF0\x9F\x99\x82");
  EXPECT_EQ(printable("\x1b]52;c;eA==\x07"), "\\x1b]52;c;eA==\\x07");
  EXPECT_EQ(printable("a\nb\r\t\x7f"), "a\\nb\\r\\t\\x7f");
  EXPECT_EQ(printable("\xC2\x9B"
                      "2J"),
            "\\u009b2J");  // C1: a CSI of one character
  EXPECT_EQ(printable("\xE2\x80\xAE"
                      "x"),
            "\\u202ex");  // right to left
  EXPECT_EQ(printable("\xE2\x81\xA6\xE2\x80\x8B"), "\\u2066\\u200b");
  EXPECT_EQ(printable("\xF3\xA0\x81\x81"), "\\U000e0041");  // a tag
  EXPECT_EQ(printable("\x9B\xC0\x80\xED\xA0\x80\xF5\xE2\x82"),
            "\\x9b\\xc0\\x80\\xed\\xa0\\x80\\xf5\\xe2\\x82");  // no UTF-8
  EXPECT_EQ(printable(std::string("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable_lines("a\n\x1b\n"), "a\n\\x1b\n");
  EXPECT_EQ(valid_utf8("o\xFE\x1b"), "o\\xfe\x1b");
  EXPECT_EQ(json_text(nlohmann::json{{"a", "\xC2\x9B\xFE"}}),
            "{\n  \"a\": \"\\u009b\\ufffd\"\n}\n");
}

TEST(Text, IsEscapedOnce) {
  std::string all;
  for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
  EXPECT_EQ(printable(printable(all)), printable(all));
}

}  // namespace
}  // namespace ingot::cli
#endif
