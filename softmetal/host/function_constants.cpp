// Values of function constants, and Metal's numbering of scalar and vector types.
#include <cstring>
#include <optional>

#include "runtime.hpp"
#include "shader_library.hpp"

namespace softmetal {
namespace {

// MTLDataType of the scalar; the vectors of 2, 3 and 4 follow it.
struct DataTypeRow {
  std::uint64_t first;
  msl::ScalarType type;
};
constexpr DataTypeRow data_types[] = {
    {3, msl::ScalarType::float_}, {16, msl::ScalarType::half},   {29, msl::ScalarType::int_},
    {33, msl::ScalarType::uint},  {37, msl::ScalarType::short_}, {41, msl::ScalarType::ushort},
    {45, msl::ScalarType::char_}, {49, msl::ScalarType::uchar},  {53, msl::ScalarType::bool_},
    {81, msl::ScalarType::long_}, {85, msl::ScalarType::ulong},  {121, msl::ScalarType::bfloat},
};

std::optional<msl::ConstantValue> read_value(const void* value, std::uint64_t type) {
  const auto shape = from_data_type(type);
  if (!shape) {
    return std::nullopt;
  }
  if (value == nullptr) {
    error("null-argument", text(current_message(), ": the value must not be null"));
    return std::nullopt;
  }
  msl::ConstantValue result;
  result.type = shape->type;
  result.bytes.resize(shape->bytes());
  std::memcpy(result.bytes.data(), value, result.bytes.size());
  return result;
}

}  // namespace

std::uint64_t data_type(msl::ScalarType type, int width) {
  for (const DataTypeRow& row : data_types) {
    if (row.type == type) {
      return row.first + static_cast<std::uint64_t>(width - 1);
    }
  }
  return 0;
}

std::size_t ScalarOrVector::bytes() const {
  const int stored = width == 3 ? 4 : width;  // a vector of 3 takes the space of 4
  return msl::scalar_type_size(type) * static_cast<std::size_t>(stored);
}

std::optional<ScalarOrVector> from_data_type(std::uint64_t type) {
  for (const DataTypeRow& row : data_types) {
    if (type >= row.first && type < row.first + 4) {
      return ScalarOrVector{row.type, static_cast<int>(type - row.first) + 1};
    }
  }
  error("data-type",
        text(current_message(), ": type ", type, " is not the MTLDataType of a scalar or vector"));
  return std::nullopt;
}

Ref<Object> FunctionConstantValues::copy() {
  Ref<FunctionConstantValues> twin = make<FunctionConstantValues>();
  twin->values_ = values_;
  return twin;
}

void FunctionConstantValues::set_at_index(const void* value, std::uint64_t type,
                                          std::uint64_t index) {
  if (auto read = read_value(value, type)) {
    values_.by_index[static_cast<std::uint32_t>(index)] = std::move(*read);
  }
}

void FunctionConstantValues::set_with_name(const void* value, std::uint64_t type, String* name) {
  if (auto read = read_value(value, type)) {
    values_.by_name[value_of(name)] = std::move(*read);
  }
}

void FunctionConstantValues::set_range(const void* values, std::uint64_t type, Range range) {
  const auto shape = from_data_type(type);
  for (std::uint64_t i = 0; shape && i < range.length; ++i) {
    set_at_index(static_cast<const std::byte*>(values) + i * shape->bytes(), type,
                 range.location + i);
  }
}

}  // namespace softmetal
