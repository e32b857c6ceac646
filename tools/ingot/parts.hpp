// The parts of attention that have tensors of their own (ingot_problem), as the command line has
// them: arrays in files, or, for commands that make up their tensors, what these are to be.
#pragma once

#include <CLI/CLI.hpp>
#include <ingot/ingot.hpp>
#include <optional>
#include <string>

#include "array.hpp"

namespace ingot::cli {

/// --dropout and --seed, which every command has.
struct DropoutOptions {
  std::optional<float> probability;
  std::optional<std::uint64_t> seed;

  /// Throws UsageError for a seed without dropout.
  void apply(Problem& problem) const;
};
void add_dropout_options(CLI::App& app, DropoutOptions& options);

/// Parts whose tensors are made up.
struct PartOptions {
  bool alibi = false, mask = false, prefix = false;
  std::string bias, bias_shape, sinks;  ///< dtypes; "BATCH,HEADS,ROWS,COLS"
  DropoutOptions dropout;

  /// Turns the parts on. Throws UsageError where an option is not what it is to be.
  void apply(Problem& problem) const;
};
void add_part_options(CLI::App& app, PartOptions& options);

/// "alibi bias mask", the parts that are on.
std::string part_names(const Problem& problem);

/// Parts as arrays, of the sizes of the problem or of axes that it repeats: axes of size 1, and
/// those that are missing in front.
struct PartArrays {
  std::optional<Array> alibi, bias, mask, sinks, prefix_len;
  std::uint64_t seed = 0;

  /// Turns on what is there. Converts to the dtypes that the library takes; names of what has lost
  /// digits are added to `narrowed`.
  void turn_on(Problem& problem, std::string& narrowed);

  /// Throws Failure where a shape does not fit the problem.
  PartTensors tensors(const Problem& problem) const;
};

/// Gradients of bias, of its shape, and of sinks, [heads].
Array make_dbias(const PartArrays& parts);
Array make_dsinks(const PartArrays& parts, const Problem& problem);
Tensor bias_tensor(const Array& array, const Problem& problem);
Tensor sinks_tensor(const Array& array, const Problem& problem);

}  // namespace ingot::cli
