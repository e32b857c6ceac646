#include "metal/device/view.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace ingot::metal {
namespace {

struct Dim {
  std::int64_t extent;
  std::int64_t step;  ///< bytes
};

/// Copies `run` bytes at every position of the dims.
void copy_runs(const Dim* dim, const Dim* end, std::size_t run, std::byte* to,
               const std::byte* from) {
  if (dim == end) {
    std::memcpy(to, from, run);
    return;
  }
  for (std::int64_t i = 0; i < dim->extent; ++i) {
    copy_runs(dim + 1, end, run, to + i * dim->step, from + i * dim->step);
  }
}

}  // namespace

bool View::empty() const {
  return std::ranges::any_of(extent, [](std::int64_t n) { return n == 0; });
}

Span span_of(const View& view) {
  if (view.empty()) return {};
  Span span{0, view.element_bytes};
  for (std::size_t i = 0; i < 4; ++i) {
    const std::int64_t reach = (view.extent[i] - 1) * view.stride[i] * view.element_bytes;
    (reach < 0 ? span.low : span.high) += reach;
  }
  return span;
}

void copy_elements(const View& view, std::byte* to, const std::byte* from) {
  if (view.empty()) return;
  std::vector<Dim> dims;
  for (std::size_t i = 0; i < 4; ++i) {
    const bool repeats = view.extent[i] == 1 || view.stride[i] == 0;
    if (!repeats) dims.push_back({view.extent[i], view.stride[i] * view.element_bytes});
  }
  std::ranges::sort(dims, {}, [](const Dim& dim) { return -std::abs(dim.step); });
  std::int64_t run = view.element_bytes;
  while (!dims.empty() && dims.back().step == run) {
    run *= dims.back().extent;
    dims.pop_back();
  }
  copy_runs(dims.data(), dims.data() + dims.size(), static_cast<std::size_t>(run), to, from);
}

}  // namespace ingot::metal
