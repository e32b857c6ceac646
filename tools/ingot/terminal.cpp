#include "terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string_view>

namespace ingot::cli {

namespace {

// A terminal that obeys escape sequences.
bool is_able_terminal(int descriptor) {
  const char* terminal = std::getenv("TERM");
  const bool able =
      terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
  return able && ::isatty(descriptor) != 0;
}

}  // namespace

bool colour_output() {
  const char* no_colour = std::getenv("NO_COLOR");
  const bool wanted = no_colour == nullptr || *no_colour == '\0';
  return wanted && is_able_terminal(STDOUT_FILENO);
}

std::size_t terminal_width() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

std::string fixed(double value, int digits) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
  return buffer;
}

std::size_t display_width(const std::string& text) {
  const auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts));
}

Progress::Progress(std::size_t total)
    : total_(total), on_terminal_(is_able_terminal(STDERR_FILENO)) {}

Progress::~Progress() { clear(); }

void Progress::show(std::size_t done, const std::string& what) {
  if (!on_terminal_) return;
  constexpr std::size_t width = 24;
  const std::size_t filled = total_ == 0 ? width : done * width / total_;
  std::string bar;
  for (std::size_t i = 0; i < width; ++i) bar += i < filled ? "█" : "░";
  std::cerr << '\r' << bar << ' ' << done << '/' << total_ << ' ' << what.substr(0, 44) << "\033[K"
            << std::flush;
  visible_ = true;
}

void Progress::clear() {
  if (visible_) std::cerr << "\r\033[K" << std::flush;
  visible_ = false;
}

std::string TextTable::text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], display_width(row[i]));
    }
  }
  std::string result;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      line += i == 0 ? row[i] + padding : "  " + padding + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    result += line + '\n';
  }
  return result;
}

}  // namespace ingot::cli
