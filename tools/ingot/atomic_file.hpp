// Output files that appear complete or not at all.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "descriptor.hpp"
#include "output_target.hpp"
#include "process.hpp"

namespace ingot::cli {

/// A group of output files. Each is written beside its final place, without a name where the file
/// system has such files; commit() puts all of them in place, or none. Whatever was not committed
/// is removed by the destructor, and by every signal that ends the program.
class OutputFiles {
 public:
  OutputFiles() = default;
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;
  ~OutputFiles();

  /// Creates the new file now, so that what cannot be written fails before the work is done.
  /// `inputs` are files it must not be the same as. Returns a handle for write(). Throws Failure
  /// "PATH: reason".
  std::size_t add(const std::string& path, std::span<const std::string> inputs = {});

  /// Appends. Throws Failure "PATH: reason", for example when the disk is full.
  void write(std::size_t handle, std::span<const std::byte> bytes);
  void write(std::size_t handle, const std::string& text);

  /// Makes every file durable and visible under its final name. Throws Failure; then every name
  /// has the file that it had before.
  void commit();

 private:
  struct File {
    OutputTarget target;
    Descriptor descriptor;
    struct stat identity{};  ///< of the new file
    std::string spare;       ///< of the new file, and of the old one once the new one is in place
    std::unique_ptr<TemporaryName> removed_by_signals;  ///< while the new file has a name
    bool in_place = false;
  };

  static void put_in_place(File& file, bool is_last);
  static std::string take_back(File& file);
  std::string take_back_all();

  std::vector<File> files_;
};

}  // namespace ingot::cli
