#include "arrays.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "errors.hpp"

namespace ingot_python {
namespace {

constexpr const char* dtypes = "float32, float16, bfloat16 or float64";

/// "int32", or the code where it has no common name.
std::string name_of(dlpack::Dtype dtype) {
  constexpr const char* names[] = {"int",
                                   "uint",
                                   "float",
                                   "opaque",
                                   "bfloat",
                                   "complex",
                                   "bool",
                                   "float8_e3m4",
                                   "float8_e4m3",
                                   "float8_e4m3b11fnuz",
                                   "float8_e4m3fn",
                                   "float8_e4m3fnuz",
                                   "float8_e5m2",
                                   "float8_e5m2fnuz",
                                   "float8_e8m0fnu",
                                   "float6_e2m3fn",
                                   "float6_e3m2fn",
                                   "float4_e2m1fn",
                                   "bcomplex"};
  const bool known = dtype.code < std::size(names);
  std::string text = known ? names[dtype.code] : "DLPack's type " + std::to_string(dtype.code);
  const bool sized = dtype.code < 6 || dtype.code == 18;
  if (sized) text += std::to_string(dtype.bits);
  if (dtype.lanes != 1) text += " in vectors of " + std::to_string(dtype.lanes);
  return text;
}

/// bits_of_bfloat16: the array is a Bfloat16's.
ingot_dtype dtype_of(dlpack::Dtype dtype, const char* argument, Element element,
                     bool bits_of_bfloat16) {
  if (element == Element::boolean) {
    if (dtype.lanes == 1 && dtype.code == dlpack::code_bool && dtype.bits == 8) return dtype_bool;
    wrong_dtype(argument, element, name_of(dtype));
  }
  if (element == Element::int32) {
    if (dtype.lanes == 1 && dtype.code == dlpack::code_int && dtype.bits == 32) return dtype_int32;
    wrong_dtype(argument, element, name_of(dtype));
  }
  if (dtype.lanes == 1 && dtype.code == dlpack::code_float && !bits_of_bfloat16) {
    if (dtype.bits == 32) return INGOT_F32;
    if (dtype.bits == 16) return INGOT_F16;
    if (dtype.bits == 64) return INGOT_F64;
  }
  const auto bfloat16 = bits_of_bfloat16 ? dlpack::code_uint : dlpack::code_bfloat;
  if (dtype.lanes == 1 && dtype.code == bfloat16 && dtype.bits == 16) return INGOT_BF16;
  if (!bits_of_bfloat16) wrong_dtype(argument, element, name_of(dtype));
  invalid(std::string(argument) + ".dtype: must be uint16, the bits of bfloat16, got " +
          name_of(dtype));
}

/// In Metal's memory DLPack's data is a buffer, and not every package says where in it.
void require_addresses(int device_type, const char* argument) {
  if (device_type != device_metal) return;
  raise(INGOT_UNSUPPORTED, std::string(argument) +
                               ": is in Metal's memory, which DLPack does not lead to; PyTorch's "
                               "tensors are taken by ingot.torch.attention");
}

View view_of(const dlpack::Tensor& tensor, const char* argument, Ranks ranks, Element element,
             bool bits_of_bfloat16) {
  require_rank(ranks, tensor.ndim, argument);
  View view;
  view.rank = static_cast<std::size_t>(tensor.ndim);
  require_addresses(tensor.device.type, argument);
  view.dtype = dtype_of(tensor.dtype, argument, element, bits_of_bfloat16);
  view.device_type = tensor.device.type;
  view.device_id = tensor.device.id;
  if (tensor.data != nullptr) {
    view.tensor.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  }
  std::uint64_t packed = 1;  // stride of a dimension where the array is contiguous and names none;
                             // wraps only for shapes that no problem may have
  for (std::size_t i = view.rank; i-- > 0;) {
    view.shape[i] = tensor.shape[i];
    view.tensor.stride[i] =
        tensor.strides != nullptr ? tensor.strides[i] : static_cast<std::int64_t>(packed);
    packed *= static_cast<std::uint64_t>(tensor.shape[i]);
  }
  return view;
}

}  // namespace

void wrong_dtype(const char* argument, Element element, const std::string& got) {
  const char* const rule = element == Element::boolean ? "bool (bias adds numbers)"
                           : element == Element::int32 ? "int32"
                                                       : dtypes;
  invalid(std::string(argument) + ".dtype: must be " + rule + ", got " + got);
}

void require_rank(Ranks ranks, std::int64_t got, const char* argument) {
  const auto [least, most] = ranks;
  if (got >= least && got <= most) return;
  const std::string number = std::to_string(most);
  const std::string rule = least < most ? "from " + std::to_string(least) + " to " + number
                           : least == 1 ? "1 dimension"
                           : least == 3 ? "3 dimensions (batch, heads, seqlen)"
                                        : "4 dimensions (batch, heads, seqlen, head_dim)";
  invalid(std::string(argument) + ": must have " + rule + (least < most ? " dimensions" : "") +
          ", got " + std::to_string(got));
}

std::string shape_text(const std::array<std::int64_t, 4>& shape, std::size_t rank) {
  std::string text = "(";
  for (std::size_t i = 0; i < rank; ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + ")";
}

std::string device_text(const View& view) {
  const std::string id = ":" + std::to_string(view.device_id);
  if (view.device_type == device_cpu) return "cpu";
  if (view.device_type == device_cuda) return "cuda" + id;
  if (view.device_type == device_cuda_host) return "cpu (pinned for CUDA)";
  if (view.device_type == device_metal) return "metal" + id;
  return "DLPack device type " + std::to_string(view.device_type) + id;
}

MetalTensor::MetalTensor(std::uintptr_t buffer, std::size_t offset, const std::string& dtype,
                         const std::vector<std::int64_t>& shape,
                         const std::vector<std::int64_t>& strides) {
  const std::size_t rank = shape.size();
  if (buffer == 0) invalid("buffer: must be an MTLBuffer, got 0");
  if (rank > view.shape.size() || strides.size() != rank) {
    invalid("shape, strides: must have the same number of dimensions, at most 4, got " +
            std::to_string(rank) + " and " + std::to_string(strides.size()));
  }
  view.slice = {reinterpret_cast<void*>(buffer), offset};
  view.rank = rank;
  view.dtype = dtype == "bool"    ? dtype_bool
               : dtype == "int32" ? dtype_int32
                                  : dtype_named(dtype, "dtype");
  view.device_type = device_metal;
  std::copy(shape.begin(), shape.end(), view.shape.begin());
  std::copy(strides.begin(), strides.end(), view.tensor.stride);
}

ingot_dtype dtype_named(const std::string& name, const char* argument) {
  for (const ingot_dtype dtype : {INGOT_F32, INGOT_F16, INGOT_BF16, INGOT_F64}) {
    if (name == dtype_text(dtype)) return dtype;
  }
  invalid(std::string(argument) + ": must be " + dtypes + ", got " + name);
}

const char* dtype_text(ingot_dtype dtype) {
  if (dtype == dtype_bool) return "bool";
  if (dtype == dtype_int32) return "int32";
  constexpr const char* names[] = {"none", "float32", "float16", "bfloat16", "float64"};
  return names[dtype];
}

View Arrays::any(nb::handle array, const char* argument, Ranks ranks, Element element,
                 Access access) {
  if (nb::isinstance<MetalTensor>(array)) {
    const View& view = nb::inst_ptr<MetalTensor>(array)->view;
    require_rank(ranks, static_cast<std::int64_t>(view.rank), argument);
    const bool fits = element == Element::boolean ? view.dtype == dtype_bool
                      : element == Element::int32 ? view.dtype == dtype_int32
                                                  : view.dtype < dtype_bool;
    if (fits) return view;
    wrong_dtype(argument, element, dtype_text(view.dtype));
  }
  const bool is_bfloat16 = nb::isinstance<Bfloat16>(array);
  Lent lent = borrow(is_bfloat16 ? nb::inst_ptr<Bfloat16>(array)->bits : array, argument, access);
  const View found = view_of(lent.tensor, argument, ranks, element, is_bfloat16);
  if (lent.loan != nullptr) loans_.push_back(std::move(lent.loan));
  return found;
}

View Arrays::view(nb::handle array, const char* argument, int rank, Access access) {
  return any(array, argument, {rank, rank}, Element::number, access);
}

std::optional<View> Arrays::output(nb::handle array, const char* argument, int rank) {
  if (array.is_none()) return std::nullopt;
  return view(array, argument, rank, Access::write);
}

std::optional<View> Arrays::optional(nb::handle array, const char* argument, Ranks ranks,
                                     Element element, Access access) {
  if (array.is_none()) return std::nullopt;
  return any(array, argument, ranks, element, access);
}

}  // namespace ingot_python
