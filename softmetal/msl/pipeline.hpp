// What dispatch needs of a pipeline beyond the public face.
#pragma once

#include <utility>
#include <vector>

#include "../exec/runner.hpp"
#include "library.hpp"

namespace softmetal::msl {

class LoadedPipeline : public Pipeline {
 public:
  using Entry = void (*)(const softmetal_abi::Frame*);
  using Regions = exec::u32 (*)(void** begins, exec::u64* sizes, exec::u32 capacity);

  virtual Entry entry() const = 0;
  virtual Regions regions() const = 0;
  virtual const std::vector<exec::Site>& sites() const = 0;
  /// The files of barriers and simdgroup operations outside of the main text, by their site.
  virtual const std::map<std::uint32_t, std::string>& collective_files() const = 0;
  /// Where the kernel library lies in memory.
  virtual std::pair<const std::byte*, const std::byte*> image() const = 0;
};

}  // namespace softmetal::msl
