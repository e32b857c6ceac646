// Where an output file goes, and what it may replace there.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <span>
#include <string>

#include "descriptor.hpp"

namespace ingot::cli {

/// A name in an open folder: what happens to the path meanwhile makes no difference.
struct OutputTarget {
  std::string path;     ///< as the user wrote it, for messages
  Descriptor folder;    ///< for the ...at() functions
  struct stat place{};  ///< of the folder
  std::string name;
  std::optional<struct stat> old;  ///< the file that is there now

  bool is_same_place(const OutputTarget& other) const;
  /// The permissions of the old file are the user's own choice, and not another user's.
  bool keeps_permissions() const;
};

/// Follows symbolic links, those whose target is not there yet included. Throws Failure "PATH:
/// reason" for what is no regular file, for a file that the user may not write, and for one of
/// `inputs`.
OutputTarget find_target(const std::string& path, std::span<const std::string> inputs);

/// What is under the name now; nothing where there is no file. Throws Failure "PATH: reason" for
/// what is no regular file.
std::optional<struct stat> look(const OutputTarget& target);

/// Gives the new file the permissions of the old one, if that keeps them: never set-user-id and
/// set-group-id, and those of a group for that group only.
void keep_permissions(int descriptor, const OutputTarget& target);

}  // namespace ingot::cli
