// Tiles that `ingot tune` found for a GPU: rows that take precedence over the built-in tables.
//
// A text file, one row a line:
//   NVIDIA H200 | forward_sm90 arch=sm_90a element=bf16 ... | block_n=160 stages=2 | free text
// The second part says which kernels a row is for, by fields of their Config; the third what to
// set.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda/config.hpp"

namespace ingot::cuda {

class TunedTable {
 public:
  TunedTable() = default;

  /// The rows for one GPU, by its name. A line that cannot be understood makes the table empty and
  /// complaint() say why.
  static TunedTable parse(std::string_view text, std::string_view gpu);

  /// The file that INGOT_CUDA_TUNING names ("off": none), else tuning/cuda.txt in the folder of the
  /// kernel cache where there is one. The table is empty and complaint() says why where the file
  /// cannot be read, is no regular file (it is not waited for) or is larger than 1 MiB.
  static TunedTable load(std::string_view gpu);

  /// Sets what the last matching row says, but for a row whose values the kernel cannot have.
  /// False where none matches.
  bool apply(Config& config) const;

  const std::string& file() const { return file_; }
  const std::string& complaint() const { return complaint_; }

 private:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Row {
    std::string kernel;
    Fields matches, sets;
  };

  static Row parse_row(std::string_view line, std::string_view gpu, bool& is_for_gpu);

  std::vector<Row> rows_;
  std::string file_, complaint_;
};

}  // namespace ingot::cuda
