// The process around a command: standard streams, and how signals end it.
#pragma once

#include <cstddef>
#include <string>

namespace ingot::cli {

/// Opens 0, 1 and 2 on /dev/null where the caller has closed them: the next file would get their
/// number, and what is printed would be written into it.
void open_standard_streams();

/// From now on every signal that ends the program removes its temporary files first. What the
/// caller ignores, as nohup does, stays ignored; a file over the size limit is an error of write().
void handle_signals();

/// While one lives, signals wait: for steps that leave files half done in between. One thread of
/// the program has them.
class SignalHold {
 public:
  SignalHold();
  SignalHold(const SignalHold&) = delete;
  SignalHold& operator=(const SignalHold&) = delete;
  ~SignalHold();
};

/// A file, or an empty folder, that a signal removes. Made and destroyed under a SignalHold.
class TemporaryName {
 public:
  /// `name` in the open folder `folder`, AT_FDCWD for a path. Throws Failure where there are more
  /// than 64.
  TemporaryName(int folder, std::string name);
  TemporaryName(const TemporaryName&) = delete;
  TemporaryName& operator=(const TemporaryName&) = delete;
  ~TemporaryName();

 private:
  std::size_t slot_;
  std::string name_;
};

/// Memory of a mapped file: where the file becomes shorter while it is read, the program ends with
/// a message that names it, and without temporary files.
class WatchedMapping {
 public:
  WatchedMapping(const void* begin, std::size_t bytes, const std::string& path);
  WatchedMapping(const WatchedMapping&) = delete;
  WatchedMapping& operator=(const WatchedMapping&) = delete;
  ~WatchedMapping();

 private:
  std::size_t slot_;
  std::string message_;
};

}  // namespace ingot::cli
