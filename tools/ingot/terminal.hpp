// What is printed for people: colour and progress only where a terminal shows them, and tables.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace ingot::cli {

/// Standard output is a terminal that shows colour (and NO_COLOR is not set).
bool colour_output();

/// Columns of the terminal on standard output; 80 where it is none.
std::size_t terminal_width();

/// "12.3", with `digits` after the point.
std::string fixed(double value, int digits);

/// Columns a UTF-8 text takes, every code point counted as one.
std::size_t display_width(const std::string& text);

/// A bar on standard error that replaces itself. Shows nothing where standard error is not a
/// terminal that can (TERM=dumb).
class Progress {
 public:
  explicit Progress(std::size_t total);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  /// `done` of the total; `what` is worked on now.
  void show(std::size_t done, const std::string& what);
  /// Takes the bar away, for a line to be printed.
  void clear();

 private:
  std::size_t total_;
  bool visible_ = false;
  bool on_terminal_;
};

/// Columns as wide as their widest cell; the first is aligned left, the others right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace ingot::cli
