#include "cuda/launch_product.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "cuda/kernels/product_params.h"
#include "cuda/tuning.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t l2_bytes = 32 << 20;  // of B that tiles in flight may share

Dtype dtype_of(const TypeName& type) {
  return type == TypeName{"float"} ? Dtype::f32
         : type == TypeName{"f16"} ? Dtype::f16
                                   : Dtype::bf16;
}

/// Heads whose tiles are mixed, the longest first: as many as find B in the L2 cache.
int heads_at_once(const ProductCall& call, std::int64_t heads) {
  const Problem& p = call.problem;
  const Config& c = call.product.step.config;
  if (!c.masked) return 1;
  const std::int64_t group = p.num_heads / p.num_heads_kv;
  const std::int64_t rows = c.by_keys ? p.seqlen_q * group : call.a.place.keys;
  const std::int64_t fit = l2_bytes / std::max<std::int64_t>(rows * call.product.dim * 2, 1);
  const std::int64_t sharing = c.by_keys ? 1 : group;  // heads of one B
  return static_cast<int>(std::clamp(fit * sharing, std::min(sharing, heads), heads));
}

ProductParams params_of(const ProductCall& call) {
  const Problem& p = call.problem;
  const Product& product = call.product;
  const Config& c = product.step.config;
  const StoredMatrices& place = call.a.place;
  const int group = static_cast<int>(p.num_heads / p.num_heads_kv);
  ProductParams params{};
  params.score = call.score;
  params.stored = place;
  params.out = call.out.data;
  std::copy_n(call.out.stride.begin(), 4, params.out_stride);
  if (call.sums != nullptr) {
    params.add = call.is_first ? nullptr : call.sums;
    params.partial = call.is_last ? nullptr : call.sums;
    params.partial_pitch = static_cast<int>(product.slices * c.columns);
    params.partial_head = sums_elements(product, place.rows_padded);
  }
  params.dim = static_cast<int>(product.dim);
  params.out_vector = store_width(call.out, dtype_of(c.output));
  params.factor = call.factor;
  params.num_heads = static_cast<int>(p.num_heads);
  params.group = group;
  const int matrices = static_cast<int>(call.a.matrices);
  params.sum_first = c.by_keys ? place.head_first % group : 0;
  params.sum_heads = c.by_keys ? std::min(group, matrices) : 1;
  params.head_first = place.head_first / (c.by_keys ? group : 1);
  params.heads = matrices / params.sum_heads;
  params.heads_at_once = heads_at_once(call, params.heads);
  const std::int64_t rows = c.by_keys ? place.keys : p.seqlen_q;
  params.tiles = static_cast<int>(ceil_div(rows, c.block_m));
  params.slices = static_cast<int>(product.slices);
  params.units = params.tiles * params.slices * params.heads;
  return params;
}

}  // namespace

TensorMap encode_stored(const Driver& driver, const StoredOperand& stored, Dtype element) {
  TensorMapSpec spec;
  spec.data = stored.data;
  spec.dtype = element;
  spec.rank = 5;
  const std::int64_t row = stored.place.rows_padded, plane = stored.plane_elements();
  spec.size = {row, stored.keys_padded, stored.planes, stored.matrices, 1};
  spec.stride = {1, row, plane, stored.planes * plane, 0};
  spec.box = {stored_tile, stored_tile, 1, 1, 1};
  const std::optional<TensorMap> map = encode(driver, spec);
  if (!map) throw Error(Code::internal, "stored matrices: must be addressable by the copy engine");
  return *map;
}

TensorMapSpec tensor_spec(const ConstTensor& t, Dtype element, std::int64_t batch,
                          std::int64_t heads, std::int64_t seqlen, std::int64_t dim,
                          std::int64_t rows, std::int64_t planes, std::int64_t plane) {
  TensorMapSpec spec;
  spec.data = t.data;
  spec.dtype = element;
  spec.rank = 5;
  spec.size = {dim, seqlen, heads, batch, planes};
  spec.stride = {t.stride[3], t.stride[2], t.stride[1], t.stride[0], plane};
  spec.box = {stored_tile, static_cast<std::uint32_t>(rows), 1, 1, 1};
  return spec;
}

std::int64_t sums_elements(const Product& product, std::int64_t rows) {
  return rows * product.slices * product.step.config.columns;
}

void launch_product(const Device& device, const ProductCall& call, StreamHandle stream,
                    const Loader& load) {
  const Step& step = call.product.step;
  ProductParams params = params_of(call);
  params.faults = device.faults().words();
  TensorMap a = encode_stored(device.driver(), call.a, dtype_of(step.config.element));
  TensorMap b = call.b;
  // A block a tile: the device hands them out, under a mask the longest first, and goes on with the
  // next product where this one has none left.
  Launch launch = step.launch;
  launch.grid[0] = params.units;
  launch.overlap_previous = call.overlaps_product;
  void* const arguments[] = {&params, &a, &b};
  device.launch(load(step), launch, stream, arguments);
}

}  // namespace ingot::cuda
