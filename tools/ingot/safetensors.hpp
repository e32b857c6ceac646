// The safetensors format: 8 bytes of header length, a JSON header, then the tensors without gaps.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "array.hpp"
#include "mapped_file.hpp"

namespace ingot::cli {

struct TensorInfo {
  std::string dtype;  ///< the format's name: "F32", "BF16", "I64", ...
  Shape shape;
  std::size_t begin = 0;  ///< bytes from the start of the file
  std::size_t end = 0;
};

struct SafetensorsInfo {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads and checks the header of a whole file in memory: sizes, offsets, no gap, no overlap,
/// nothing after the last tensor. Throws Failure, whose text does not name the file.
SafetensorsInfo parse_safetensors(std::span<const std::byte> file);

/// Length and header for C-contiguous tensors that follow in the order given, padded to a multiple
/// of 8 bytes.
std::string safetensors_header(const std::vector<std::pair<std::string, Array>>& tensors,
                               const std::map<std::string, std::string>& metadata);

/// A mapped file. Tensors are taken out by name.
class SafetensorsFile {
 public:
  /// Throws Failure "PATH: reason".
  explicit SafetensorsFile(std::string path);

  bool contains(const std::string& name) const { return info_.tensors.contains(name); }
  /// Throws Failure where the tensor is missing or not F16, BF16, F32 or F64.
  Array tensor(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return info_.metadata; }
  const MappedFile& mapped() const { return file_; }

 private:
  std::string path_;
  MappedFile file_;
  SafetensorsInfo info_;
};

}  // namespace ingot::cli
