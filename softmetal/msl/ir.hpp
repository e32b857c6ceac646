// LLVM IR as text, read line by line: what a module defines, what refers to what, sizes, places.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace softmetal::msl {

struct SourcePlace {
  std::string file;
  int line = 0;
  friend auto operator<=>(const SourcePlace&, const SourcePlace&) = default;
};

/// As SourcePlace, but with the column in the text that clang read.
struct TextPlace {
  std::string file;
  int line = 0;
  int column = 0;
  friend auto operator<=>(const TextPlace&, const TextPlace&) = default;
};

struct ThreadgroupVariable {
  std::string symbol;  ///< with the @
  std::string type;
  std::uint64_t bytes = 0;
  std::uint64_t alignment = 1;
};

class IrModule {
 public:
  explicit IrModule(std::string text);

  const std::vector<std::string>& lines() const { return lines_; }
  /// Symbols (with @) that can be reached from one, itself included.
  std::set<std::string> reachable(const std::string& symbol) const;
  /// The i32 words of a constant global; empty when there is none.
  std::vector<int> words(const std::string& symbol) const;
  std::vector<ThreadgroupVariable> threadgroup_variables() const;
  /// Size of a type in memory, as x86-64 and arm64 lay it out; a vector of 3 has the size of 4.
  std::uint64_t size_of(std::string_view type) const;
  /// The bytes that a load or store of the type moves.
  std::uint64_t moved_bytes(std::string_view type) const;
  /// Reads one type at `at` and moves behind it.
  std::string_view read_type(std::string_view line, std::size_t& at) const;
  /// The user's place behind `!dbg !n`: out of the standard library to where it was inlined.
  std::optional<SourcePlace> place(std::string_view line) const;
  /// The place behind `!dbg !n` itself.
  std::optional<TextPlace> text_place(std::string_view line) const;

 private:
  struct Layout {
    std::uint64_t bytes, alignment;
  };
  struct Location {
    int line, column;
    std::string scope, inlined_at;
  };

  void read_metadata(const std::string& line);
  void read_references();
  Layout layout(std::string_view type) const;
  std::string file_of(std::string scope) const;

  std::vector<std::string> lines_;
  std::map<std::string, std::string> globals_;               // symbol, its whole line
  std::map<std::string, std::set<std::string>> references_;  // symbol, symbols
  std::map<std::string, std::string, std::less<>> types_;    // %struct.x, { ... }
  std::map<std::string, Location> locations_;                // !12
  std::map<std::string, std::string> scopes_;                // !9, its line
  std::map<std::string, std::string> files_;                 // !1, file name
};

/// The symbols (with @) that occur in a line.
std::vector<std::string> symbols_in(std::string_view line);

}  // namespace softmetal::msl
