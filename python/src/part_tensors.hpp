// The parts of the score and of the softmax (ingot_part_tensors) as Python hands them over.
#pragma once

#include <ingot/ingot.h>

#include <cstdint>
#include <optional>

#include "arrays.hpp"

namespace ingot_python {

struct PartViews {
  std::optional<View> alibi_slopes, bias, mask, sinks, prefix_len;
  double dropout = 0;
  std::uint64_t seed = 0, offset = 0;
  std::uintptr_t state = 0;  ///< an address in a GPU's memory, or 0

  template <class F>
  void for_each(F&& f) const {
    f(alibi_slopes, "alibi_slopes");
    f(bias, "bias");
    f(mask, "mask");
    f(sinks, "sinks");
    f(prefix_len, "prefix_len");
  }
};

/// parts: None, or the tuple (alibi_slopes, bias, mask, sinks, prefix_len, dropout, seed, offset,
/// state), of which arrays may be None.
PartViews part_views(Arrays& arrays, nb::handle parts);

/// What the problem says of the parts. Throws InvalidArgument where one does not fit q's problem or
/// is not on q's device.
void add_parts(ingot_problem& problem, const PartViews& parts, const View& q);

/// Points into `parts` where they are slices, so these must outlive the call.
ingot_part_tensors part_tensors(PartViews& parts);

/// Points into `view` where it is a slice, so `view` must outlive the call.
ingot_tensor tensor_of(View& view);

/// `view` must be on the device of q.
void require_device(const View& view, const char* argument, const View& q);

/// A gradient must have the shape of what it is the gradient of.
void require_shape(const View& view, const char* argument, const View& like);

/// A tensor of two to four dimensions laid over (batch, heads, queries, keys), and one of (heads)
/// or (batch, heads). They point into `view` as tensor_of does.
ingot_tensor over_pairs(View& view);
ingot_tensor over_heads(View& view);

}  // namespace ingot_python
