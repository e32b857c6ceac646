#include "jax_buffers.hpp"

#include <algorithm>
#include <iterator>
#include <type_traits>

#include "errors.hpp"

namespace ingot_python {
namespace {

/// Null where there is none of this name; throws where it is of another type.
template <class T>
const T* find(const xla::Attributes& attributes, std::string_view name) {
  constexpr bool is_real = std::is_floating_point_v<T>;
  for (std::int64_t i = 0; i < attributes.size; ++i) {
    const xla::Name& found = *attributes.names[i];
    if (std::string_view(found.text, found.length) != name) continue;
    const auto& scalar = *static_cast<const xla::Scalar*>(attributes.values[i]);
    if (attributes.types[i] == xla::attribute_is_scalar &&
        scalar.dtype == (is_real ? xla::DataType::f64 : xla::DataType::s64)) {
      return static_cast<const T*>(scalar.value);
    }
    invalid(std::string(name) + ": must be an attribute of type " +
            (is_real ? "float64" : "int64"));
  }
  return nullptr;
}

}  // namespace

Buffer buffer(const xla::Values& values, std::int64_t index, const char* name, Ranks ranks) {
  if (index >= values.size) {
    invalid(std::string(name) + ": must be among the buffers of the call, got " +
            std::to_string(values.size) + " buffers");
  }
  const auto& found = *static_cast<const xla::Buffer*>(values.values[index]);
  require_rank(ranks, found.rank, name);
  return {name, found};
}

template <class T>
T attribute(const xla::Attributes& attributes, std::string_view name) {
  const T* const found = find<T>(attributes, name);
  if (found != nullptr) return *found;
  invalid(std::string(name) + ": must be an attribute of type " +
          (std::is_floating_point_v<T> ? "float64" : "int64"));
}

template <class T>
T optional_attribute(const xla::Attributes& attributes, std::string_view name) {
  const T* const found = find<T>(attributes, name);
  return found == nullptr ? T{0} : *found;
}

template std::int64_t attribute(const xla::Attributes&, std::string_view);
template double attribute(const xla::Attributes&, std::string_view);
template std::int64_t optional_attribute(const xla::Attributes&, std::string_view);
template double optional_attribute(const xla::Attributes&, std::string_view);

std::string name_of(xla::DataType dtype) {
  constexpr const char* names[] = {"invalid",   "bool",     "int8",    "int16",     "int32",
                                   "int64",     "uint8",    "uint16",  "uint32",    "uint64",
                                   "float16",   "float32",  "float64", nullptr,     nullptr,
                                   "complex64", "bfloat16", nullptr,   "complex128"};
  const auto code = static_cast<std::size_t>(dtype);
  if (code < std::size(names) && names[code] != nullptr) return names[code];
  return "type " + std::to_string(code) + " of XLA";
}

ingot_dtype dtype_of(const Buffer& buffer) {
  switch (buffer.xla.dtype) {
    case xla::DataType::f32:
      return INGOT_F32;
    case xla::DataType::f16:
      return INGOT_F16;
    case xla::DataType::bf16:
      return INGOT_BF16;
    case xla::DataType::f64:
      return INGOT_F64;
    default:
      wrong_dtype(buffer.name, Element::number, name_of(buffer.xla.dtype));
  }
}

void require_shape(const Buffer& buffer, const std::array<std::int64_t, 4>& shape) {
  const std::int64_t* dims = buffer.xla.dims;
  const auto rank = static_cast<std::size_t>(buffer.xla.rank);
  if (std::equal(dims, dims + rank, shape.begin())) return;
  std::array<std::int64_t, 4> got{};
  std::copy(dims, dims + rank, got.begin());
  invalid(std::string(buffer.name) + ".shape: must be " + shape_text(shape, rank) + ", got " +
          shape_text(got, rank));
}

ingot_tensor contiguous(const Buffer& buffer) {
  ingot_tensor tensor{buffer.xla.data, {}};
  std::int64_t stride = 1;
  for (std::int64_t i = buffer.xla.rank; i-- > 0;) {
    tensor.stride[i] = stride;
    stride *= buffer.xla.dims[i];
  }
  return tensor;
}

View view_of(const Buffer& buffer, Element element, int device_type) {
  View view;
  view.tensor = contiguous(buffer);
  view.rank = static_cast<std::size_t>(buffer.xla.rank);
  std::copy_n(buffer.xla.dims, view.rank, view.shape.begin());
  view.device_type = device_type;
  if (element == Element::number) {
    view.dtype = dtype_of(buffer);
    return view;
  }
  view.dtype = element == Element::boolean ? dtype_bool : dtype_int32;
  const auto wanted = element == Element::boolean ? xla::DataType::pred : xla::DataType::s32;
  if (buffer.xla.dtype != wanted) wrong_dtype(buffer.name, element, name_of(buffer.xla.dtype));
  return view;
}

}  // namespace ingot_python
