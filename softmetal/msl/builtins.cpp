#include "builtins.hpp"

#include <algorithm>
#include <map>

namespace softmetal::msl {
namespace {

struct Group {
  std::string_view version;
  std::string_view names;
};

constexpr Group kFunctions[] = {
    // math and common
    {"1.0",
     "acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh cospi divide exp exp2 exp10 "
     "fabs abs fdim floor fma fmax max fmin min fmod fract frexp ilogb ldexp log log2 log10 modf "
     "pow powr rint round rsqrt sin sincos sinh sinpi sqrt tan tanh tanpi trunc clamp mix saturate "
     "sign smoothstep step"},
    {"2.1", "fmax3 fmin3 fmedian3 max3 min3 median3"},
    {"3.1", "nextafter"},
    // integer
    {"1.0", "absdiff addsat clz ctz hadd madhi madsat mulhi popcount rhadd rotate subsat"},
    {"1.2", "extract_bits insert_bits is_function_constant_defined"},
    {"2.1", "mad24 mul24 reverse_bits"},
    // relational
    {"1.0", "all any isfinite isinf isnan isnormal isordered isunordered not select signbit"},
    // geometric and matrix
    {"1.0",
     "cross distance distance_squared dot faceforward length length_squared normalize reflect "
     "refract determinant transpose"},
    // conversions and packing
    {"1.0",
     "as_type unpack_unorm4x8_to_float unpack_unorm4x8_srgb_to_float unpack_unorm4x8_to_half "
     "unpack_unorm4x8_srgb_to_half unpack_snorm4x8_to_float unpack_snorm4x8_to_half "
     "unpack_unorm2x16_to_float unpack_unorm2x16_to_half unpack_snorm2x16_to_float "
     "unpack_snorm2x16_to_half unpack_unorm10a2_to_float unpack_unorm10a2_to_half "
     "unpack_unorm565_to_float unpack_unorm565_to_half pack_float_to_unorm4x8 "
     "pack_float_to_srgb_unorm4x8 pack_float_to_snorm4x8 pack_float_to_unorm2x16 "
     "pack_float_to_snorm2x16 pack_float_to_unorm10a2 pack_float_to_unorm565 "
     "pack_half_to_unorm4x8 pack_half_to_srgb_unorm4x8 pack_half_to_snorm4x8 "
     "pack_half_to_unorm2x16 pack_half_to_snorm2x16 pack_half_to_unorm10a2 pack_half_to_unorm565"},
    // synchronisation
    {"1.0", "threadgroup_barrier"},
    {"2.0", "simdgroup_barrier"},
    {"3.2", "atomic_thread_fence"},
    // simdgroups
    {"2.0",
     "simd_all simd_any simd_broadcast simd_shuffle simd_shuffle_up simd_shuffle_down "
     "simd_shuffle_xor quad_broadcast quad_shuffle quad_shuffle_up quad_shuffle_down "
     "quad_shuffle_xor"},
    {"2.1",
     "simd_ballot simd_active_threads_mask simd_is_first simd_broadcast_first "
     "simd_shuffle_rotate_up simd_shuffle_rotate_down simd_and simd_or simd_xor simd_sum "
     "simd_product "
     "simd_min simd_max simd_prefix_inclusive_sum simd_prefix_exclusive_sum "
     "simd_prefix_inclusive_product simd_prefix_exclusive_product quad_all quad_any quad_ballot "
     "quad_active_threads_mask quad_is_first quad_broadcast_first quad_shuffle_rotate_up "
     "quad_shuffle_rotate_down quad_and quad_or quad_xor quad_sum quad_product quad_min quad_max "
     "quad_prefix_inclusive_sum quad_prefix_exclusive_sum quad_prefix_inclusive_product "
     "quad_prefix_exclusive_product"},
    {"2.3", "simd_is_helper_thread quad_is_helper_thread"},
    {"2.4",
     "simd_shuffle_and_fill_up simd_shuffle_and_fill_down quad_shuffle_and_fill_up "
     "quad_shuffle_and_fill_down"},
    {"2.3",
     "simdgroup_load simdgroup_store simdgroup_multiply simdgroup_multiply_accumulate "
     "make_filled_simdgroup_matrix make_diagonal_simdgroup_matrix"},
    // atomics
    {"1.0",
     "atomic_store_explicit atomic_load_explicit atomic_exchange_explicit "
     "atomic_compare_exchange_weak_explicit atomic_fetch_add_explicit atomic_fetch_sub_explicit "
     "atomic_fetch_and_explicit atomic_fetch_or_explicit atomic_fetch_xor_explicit "
     "atomic_fetch_min_explicit atomic_fetch_max_explicit"},
    {"2.4", "atomic_min_explicit atomic_max_explicit"},
    // language support
    {"1.0", "declval move swap"},
    {"2.0", "make_uniform"},
};

constexpr Group kNames[] = {
    {"2.3", "simdgroup_matrix simdgroup_float8x8 simdgroup_half8x8"},
    {"2.4", "atomic_ulong atomic_bool atomic"},
    {"3.0", "atomic_float"},
    {"3.1",
     "bfloat bfloat2 bfloat3 bfloat4 packed_bfloat2 packed_bfloat3 packed_bfloat4 "
     "simdgroup_bfloat8x8"},
    {"3.2",
     "os_log memory_order_acquire memory_order_release memory_order_acq_rel memory_order_seq_cst "
     "thread_scope_thread thread_scope_simdgroup thread_scope_threadgroup thread_scope_device "
     "coherent"},
    {"4.0",
     "tensor tensor_handle tensor_inline tensor_offset cooperative_tensor tensor_ops dextents "
     "extents "
     "matmul2d matmul2d_descriptor execution_simdgroup execution_simdgroups execution_thread"},
};

template <std::size_t n>
std::map<std::string_view, std::string_view> table(const Group (&groups)[n]) {
  std::map<std::string_view, std::string_view> out;
  for (const Group& group : groups) {
    for (std::string_view rest = group.names; !rest.empty();) {
      const std::size_t end = std::min(rest.find(' '), rest.size());
      if (end > 0) out.emplace(rest.substr(0, end), group.version);
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  return out;
}

std::string_view find(const std::map<std::string_view, std::string_view>& names,
                      std::string_view name) {
  const auto found = names.find(name);
  return found == names.end() ? std::string_view() : found->second;
}

}  // namespace

std::string_view function_since(std::string_view name) {
  static const auto functions = table(kFunctions);
  return find(functions, name);
}

std::string_view name_since(std::string_view name) {
  static const auto names = table(kNames);
  return find(names, name);
}

}  // namespace softmetal::msl
