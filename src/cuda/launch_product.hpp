// The host's part of kernels/product_sm90.cuh.
#pragma once

#include "cuda/kernels/product_params.h"
#include "cuda/kernels/stored.h"
#include "cuda/launch.hpp"
#include "cuda/tensor_map.hpp"

namespace ingot::cuda {

/// Matrices in the workspace (kernels/stored.h).
struct StoredOperand {
  const std::byte* data = nullptr;
  StoredMatrices place{};
  std::int64_t matrices = 0;     ///< query heads
  std::int64_t keys_padded = 0;  ///< place.keys rounded up to 128
  std::int64_t planes = 1;

  std::int64_t plane_elements() const { return keys_padded * place.rows_padded; }
  std::size_t bytes() const {
    return static_cast<std::size_t>(matrices * planes * plane_elements()) * 2;
  }
};

/// The maps of both matrices and kernels' boxes of 64 by 64: (query, key, plane, matrix, 1).
TensorMap encode_stored(const Driver& driver, const StoredOperand& stored, Dtype element);

/// A tensor of the caller, or its terms, as the kernels of the stored forms load it: in boxes of 64
/// columns by `rows` rows. Planes are `plane` elements apart.
TensorMapSpec tensor_spec(const ConstTensor& tensor, Dtype element, std::int64_t batch,
                          std::int64_t heads, std::int64_t seqlen, std::int64_t dim,
                          std::int64_t rows, std::int64_t planes = 1, std::int64_t plane = 0);

/// out = factor * A B for the heads whose matrices are stored. Rows are what the Config of the plan
/// says: queries, then heads are those of q, or keys of the chunk, then they are those of k.
struct ProductCall {
  const Product& product;
  const Problem& problem;
  const ScoreParams& score;
  const StoredOperand& a;
  const TensorMap& b;  ///< of tensor_spec, in boxes of 64 rows
  Tensor out;
  float factor = 1.0F;
  /// Sums over several chunks of keys, f32, [head of q, within the group][rows_padded][the columns
  /// of all slices]: read unless this is the first chunk, written unless it is the last. Null where
  /// one chunk holds all keys, and where rows are keys.
  float* sums = nullptr;
  bool is_first = true, is_last = true;
  /// The launch before is a product too: this one takes multiprocessors that it leaves idle.
  bool overlaps_product = false;
};

/// Elements of `sums` for one head.
std::int64_t sums_elements(const Product& product, std::int64_t rows_padded);

/// Arguments of the kernel.
ProductParams product_params(const ProductCall& call);

void launch_product(const Device& device, const ProductCall& call, StreamHandle stream,
                    const Loader& load);

}  // namespace ingot::cuda
