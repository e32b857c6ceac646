// Names of files within open folders, given and exchanged in single steps of the file system.
#pragma once

#include <sys/types.h>

#include <string>

#include "descriptor.hpp"

namespace ingot::cli {

/// A new file in the folder, for writing: without a name where the file system has such files, so
/// that not even SIGKILL leaves it. `name` becomes its name, or "" where it has none. Not open,
/// with errno, where it cannot be created.
Descriptor create_file(int folder, mode_t mode, std::string& name);

/// Gives a file without a name a spare one. "" with errno where it cannot be.
std::string name_file(int folder, int descriptor);

/// The two files change names. False with errno where that cannot be, also where the file system
/// has no such step.
bool exchange_names(int folder, const std::string& a, const std::string& b);

/// The file gets a second name, a spare one; where there are no second names, it loses the first.
/// "" with errno where neither can be.
std::string set_aside(int folder, const std::string& name);

}  // namespace ingot::cli
