#include "arrays.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "errors.hpp"

namespace ingot_python {
namespace {

/// DLPack's table of functions behind a type's `__dlpack_c_exchange_api__` (DLPack 1.3).
struct ExchangeApi {
  struct {
    std::uint32_t major, minor;
    void* earlier;
  } header;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*borrow)(void* object, nb::dlpack::dltensor* out);
  void* current_work_stream;
};

/// Null where the type has none, or one of another major version. Types are few and long-lived.
const ExchangeApi* exchange_of(PyTypeObject* type) {
  static auto* const known = new std::unordered_map<PyTypeObject*, const ExchangeApi*>;
  const auto [entry, inserted] = known->try_emplace(type, nullptr);
  if (!inserted) return entry->second;
  Py_INCREF(reinterpret_cast<PyObject*>(type));  // its address must not be used again
  const nb::object capsule = nb::getattr(nb::handle(reinterpret_cast<PyObject*>(type)),
                                         "__dlpack_c_exchange_api__", nb::none());
  if (!PyCapsule_CheckExact(capsule.ptr())) return nullptr;
  const void* pointer = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
  if (pointer == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  const auto* api = static_cast<const ExchangeApi*>(pointer);
  if (api->header.major != 1 || api->borrow == nullptr) return nullptr;
  return entry->second = api;
}

/// 16-bit unsigned numbers are the bits of bfloat16: NumPy has no such type, and the Python side
/// has looked at the array's own dtype.
ingot_dtype dtype_of(nb::dlpack::dtype dtype, const char* argument) {
  const auto code = static_cast<nb::dlpack::dtype_code>(dtype.code);
  if (dtype.lanes == 1 && code == nb::dlpack::dtype_code::Float) {
    if (dtype.bits == 32) return INGOT_F32;
    if (dtype.bits == 16) return INGOT_F16;
    if (dtype.bits == 64) return INGOT_F64;
  }
  const bool bits_16 = dtype.lanes == 1 && dtype.bits == 16;
  if (bits_16 && (code == nb::dlpack::dtype_code::Bfloat || code == nb::dlpack::dtype_code::UInt)) {
    return INGOT_BF16;
  }
  invalid(std::string(argument) +
          ".dtype: must be float32, float16, bfloat16 or float64, got DLPack code " +
          std::to_string(dtype.code) + " with " + std::to_string(dtype.bits) + " bits");
}

void require_rank(std::size_t rank, std::size_t got, const char* argument) {
  if (got == rank) return;
  invalid(std::string(argument) + ": must have " + std::to_string(rank) +
          (rank == 4 ? " dimensions (batch, heads, seqlen, head_dim), got "
                     : " dimensions (batch, heads, seqlen), got ") +
          std::to_string(got));
}

/// In Metal's memory DLPack's data is a buffer, and not every package says where in it.
void require_addresses(int device_type, const char* argument) {
  if (device_type != device_metal) return;
  raise(INGOT_UNSUPPORTED, std::string(argument) +
                               ": is in Metal's memory, which DLPack does not lead to; PyTorch's "
                               "tensors are taken by ingot.torch.attention");
}

View borrowed_view(const ExchangeApi& api, nb::handle array, const char* argument,
                   std::size_t rank) {
  nb::dlpack::dltensor source{};
  if (api.borrow(array.ptr(), &source) != 0) throw nb::python_error();
  require_rank(rank, static_cast<std::size_t>(source.ndim), argument);
  require_addresses(source.device.device_type, argument);
  View view;
  view.dtype = dtype_of(source.dtype, argument);
  view.device_type = source.device.device_type;
  view.device_id = source.device.device_id;
  view.tensor.data = static_cast<char*>(source.data) + source.byte_offset;
  std::int64_t packed = 1;  // stride of a dimension where the array is contiguous and names none
  for (std::size_t i = rank; i-- > 0;) {
    view.shape[i] = source.shape[i];
    view.tensor.stride[i] = source.strides != nullptr ? source.strides[i] : packed;
    packed *= source.shape[i];
  }
  return view;
}

}  // namespace

std::string shape_text(const std::array<std::int64_t, 4>& shape, std::size_t rank) {
  std::string text = "(";
  for (std::size_t i = 0; i < rank; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + ")";
}

MetalTensor::MetalTensor(std::uintptr_t buffer, std::size_t offset, const std::string& dtype,
                         const std::vector<std::int64_t>& shape,
                         const std::vector<std::int64_t>& strides)
    : rank(shape.size()) {
  if (buffer == 0) invalid("buffer: must be an MTLBuffer, got 0");
  if (rank > view.shape.size() || strides.size() != rank) {
    invalid("shape, strides: must have the same number of dimensions, at most 4, got " +
            std::to_string(rank) + " and " + std::to_string(strides.size()));
  }
  view.slice = {reinterpret_cast<void*>(buffer), offset};
  view.dtype = dtype_named(dtype, "dtype");
  view.device_type = device_metal;
  std::copy(shape.begin(), shape.end(), view.shape.begin());
  std::copy(strides.begin(), strides.end(), view.tensor.stride);
}

ingot_dtype dtype_named(const std::string& name, const char* argument) {
  constexpr std::pair<const char*, ingot_dtype> types[] = {{"float32", INGOT_F32},
                                                           {"float16", INGOT_F16},
                                                           {"bfloat16", INGOT_BF16},
                                                           {"float64", INGOT_F64}};
  for (const auto& [text, dtype] : types) {
    if (name == text) return dtype;
  }
  invalid(std::string(argument) + ": must be float32, float16, bfloat16 or float64, got " + name);
}

View view_of(nb::handle array, const char* argument, std::size_t rank, Access access) {
  if (const ExchangeApi* api = exchange_of(Py_TYPE(array.ptr()))) {
    return borrowed_view(*api, array, argument, rank);
  }
  if (nb::isinstance<MetalTensor>(array)) {
    const auto& tensor = *nb::inst_ptr<MetalTensor>(array);
    require_rank(rank, tensor.rank, argument);
    return tensor.view;
  }
  View view;
  if (!nb::try_cast(array, view.owner)) {
    invalid(std::string(argument) + ": must be an array that speaks DLPack, got " +
            nb::cast<std::string>(nb::str(array.type())));
  }
  if (nb::ndarray<> writable; access == Access::write && !nb::try_cast(array, writable)) {
    invalid(std::string(argument) + ": must be writable, got a read-only array");
  }
  require_rank(rank, view.owner.ndim(), argument);
  require_addresses(view.owner.device_type(), argument);
  view.dtype = dtype_of(view.owner.dtype(), argument);
  view.device_type = view.owner.device_type();
  view.device_id = view.owner.device_id();
  view.tensor.data = const_cast<void*>(static_cast<const void*>(view.owner.data()));
  for (std::size_t i = 0; i < rank; ++i) {
    view.shape[i] = static_cast<std::int64_t>(view.owner.shape(i));
    view.tensor.stride[i] = view.owner.stride(i);
  }
  return view;
}

}  // namespace ingot_python
