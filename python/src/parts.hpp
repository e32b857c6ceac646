// Parts of a batch: sequences with padding, or one after the other.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arrays.hpp"

namespace ingot_python {

/// From the first to before the second.
struct Range {
  std::int64_t first = 0, end = 0;
};

struct Part {
  Range entries, queries, keys;
};

/// Six of `numbers` for each; raises InvalidArgument where one is not within q (batch, heads,
/// seqlen_q, head_dim) and k, or shares a query or a key with another. The shapes of all other
/// tensors must have been found to agree with q and k.
std::vector<Part> parts_of(const std::vector<std::int64_t>& numbers, const View& q, const View& k);

/// Throws InvalidArgument where the offset of an element overflows; before parts are made.
void require_offsets(const View& whole, const char* argument);

/// Throws InvalidArgument where two elements of an output have one address. The library sees this
/// within each part only.
void require_no_overlap(const View& whole, const char* argument);

/// These entries and positions (queries or keys) of a tensor of rank 3 or 4.
View part_of(const View& whole, Range entries, Range positions);
std::optional<View> part_of(const std::optional<View>& whole, Range entries, Range positions);

}  // namespace ingot_python
