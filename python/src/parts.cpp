#include "parts.hpp"

#include <algorithm>
#include <string>
#include <utility>

#include "errors.hpp"

namespace ingot_python {
namespace {

std::int64_t bytes_of(ingot_dtype dtype) {
  return dtype == INGOT_F64 ? 8 : dtype == INGOT_F32 ? 4 : 2;
}

Range range(std::int64_t first, std::int64_t end, const char* what, std::int64_t most) {
  if (first < 0 || end < first || end > most) {
    invalid(std::string("blocks: ") + what + " must be from 0 to " + std::to_string(most) +
            ", ascending, got " + std::to_string(first) + " to " + std::to_string(end));
  }
  return {first, end};
}

std::uint64_t magnitude(std::int64_t x) {
  return x < 0 ? 0 - static_cast<std::uint64_t>(x) : static_cast<std::uint64_t>(x);
}

bool is_empty(const View& view) {
  return std::any_of(view.shape.begin(), view.shape.begin() + view.rank,
                     [](std::int64_t extent) { return extent <= 0; });
}

/// Whether no query and no key of `b` is one of `a`, and b comes after.
bool follows(const Part& a, const Part& b) {
  if (b.entries.first >= a.entries.end) return true;
  return b.entries.first == a.entries.first && b.entries.end == a.entries.end &&
         b.queries.first >= a.queries.end && b.keys.first >= a.keys.end;
}

}  // namespace

std::vector<Part> parts_of(const std::vector<std::int64_t>& numbers, const View& q, const View& k) {
  if (numbers.size() % 6 != 0) {
    invalid("blocks: must be six integers a part, got " + std::to_string(numbers.size()));
  }
  std::vector<Part> parts;
  for (std::size_t i = 0; i < numbers.size(); i += 6) {
    const std::int64_t* const n = numbers.data() + i;
    parts.push_back({range(n[0], n[1], "entries", q.shape[0]),
                     range(n[2], n[3], "queries", q.shape[2]),
                     range(n[4], n[5], "keys", k.shape[2])});
    if (i > 0 && !follows(parts[parts.size() - 2], parts.back())) {
      const auto text = [](const Range& r) {
        return std::to_string(r.first) + " to " + std::to_string(r.end);
      };
      const Part& part = parts.back();
      invalid("blocks: part " + std::to_string(i / 6) +
              " must have later entries than the part before, or the same with later queries and "
              "later keys, got entries " +
              text(part.entries) + ", queries " + text(part.queries) + ", keys " + text(part.keys));
    }
  }
  return parts;
}

void require_offsets(const View& whole, const char* argument) {
  if (is_empty(whole)) return;
  std::uint64_t reach = 0;
  bool fits = true;
  for (std::size_t i = 0; i < whole.rank; ++i) {
    std::uint64_t bytes = magnitude(whole.shape[i] - 1);
    const std::uint64_t stride = magnitude(whole.tensor.stride[i]);
    fits &= !__builtin_mul_overflow(bytes, stride, &bytes) &&
            !__builtin_mul_overflow(bytes, std::uint64_t{8}, &bytes) &&
            !__builtin_add_overflow(reach, bytes, &reach);
  }
  if (fits && reach <= std::uint64_t{1} << 62) return;
  std::array<std::int64_t, 4> strides{};
  std::copy_n(whole.tensor.stride, 4, strides.begin());
  invalid(std::string(argument) + ".strides: offsets must stay below 2^62 bytes, got strides " +
          shape_text(strides, whole.rank));
}

void require_no_overlap(const View& whole, const char* argument) {
  if (is_empty(whole)) return;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> dims;  // |stride|, extent
  for (std::size_t i = 0; i < whole.rank; ++i) {
    if (whole.shape[i] > 1) {
      dims.emplace_back(magnitude(whole.tensor.stride[i]), magnitude(whole.shape[i]));
    }
  }
  std::sort(dims.begin(), dims.end());
  std::uint64_t span = 0;
  for (const auto& [stride, extent] : dims) {
    if (stride <= span) {
      invalid(std::string(argument) +
              ".strides: elements of an output must not overlap: a stride of " +
              std::to_string(stride) + " must exceed the span " + std::to_string(span) +
              " of the dimensions with smaller strides");
    }
    span += (extent - 1) * stride;
  }
}

View part_of(const View& whole, Range entries, Range positions) {
  View part = whole;
  part.shape[0] = entries.end - entries.first;
  part.shape[2] = positions.end - positions.first;
  if (is_empty(part)) return part;  // an offset may then lie beyond the tensor
  const std::int64_t elements =
      entries.first * whole.tensor.stride[0] + positions.first * whole.tensor.stride[2];
  const std::int64_t bytes = elements * bytes_of(whole.dtype);
  if (part.tensor.data != nullptr) part.tensor.data = static_cast<char*>(part.tensor.data) + bytes;
  if (part.slice.buffer != nullptr) part.slice.offset += static_cast<std::size_t>(bytes);
  return part;
}

std::optional<View> part_of(const std::optional<View>& whole, Range entries, Range positions) {
  if (!whole) return std::nullopt;
  return part_of(*whole, entries, positions);
}

}  // namespace ingot_python
