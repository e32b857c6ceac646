// Loads, stores and rearrangements of vectors in IR text.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace softmetal::msl {

struct VectorType {
  int width = 0;
  std::string element;
};

/// `ptr addrspace(1) %p`: the type and the value.
struct Pointer {
  std::string type, value;
};
/// A vector load, store, or step between them.
struct Step {
  enum class Kind { load, insert, shuffle, extract, store };
  Kind kind;
  VectorType type;
  std::string result, value;  // what it makes, the vector that it takes
  std::string other;          // insert: the element; shuffle: the second vector
  std::string index;          // insert, extract: a number or a name
  std::vector<int> mask;      // shuffle; -1: nothing
  Pointer memory;
};

/// None when the line is no such step.
std::optional<Step> read_step(const std::string& line);
/// The whole text as a number.
std::optional<int> number(const std::string& text);

}  // namespace softmetal::msl
