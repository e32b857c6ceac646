// Output files that appear complete or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace ingot::cli {

/// A group of output files. Each is written under a temporary name beside its final one; commit()
/// renames all of them. Whatever was not committed is removed by the destructor, and by SIGINT,
/// SIGTERM and SIGHUP.
class OutputFiles {
 public:
  OutputFiles() = default;
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;
  ~OutputFiles();

  /// Creates the temporary file now, so that what cannot be written fails before the work is done.
  /// `inputs` are files it must not be the same as. Returns a handle for write(). Throws Failure
  /// "PATH: reason".
  std::size_t add(const std::string& path, std::span<const std::string> inputs = {});

  /// Appends. Throws Failure "PATH: reason", for example when the disk is full.
  void write(std::size_t handle, std::span<const std::byte> bytes);
  void write(std::size_t handle, const std::string& text);

  /// Makes every file visible under its final name. Throws Failure; then none of them is left.
  void commit();

 private:
  struct File {
    std::string path;    ///< as the user wrote it, for messages
    std::string target;  ///< behind symbolic links
    std::string temporary;
    int descriptor = -1;
    std::size_t slot = 0;  ///< in the table of the signal handler
    bool renamed = false;
  };

  void remove_all() noexcept;

  std::vector<File> files_;
};

}  // namespace ingot::cli
