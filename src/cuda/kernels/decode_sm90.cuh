// decode.cuh on Hopper: a warp more asks the copy engine for tiles of K and V ahead, the others
// take 16 keys of every tile each. Q stays in registers.
#include "cuda/kernels/barrier.cuh"
#include "cuda/kernels/forward_unit.cuh"
#include "cuda/kernels/merge_pieces.cuh"
#include "cuda/kernels/tma.cuh"

namespace ingot {

template <class Config>
struct DecodeShape {
  static constexpr int dim = ceil_div(Config::head_dim, 16) * 16;
  static constexpr int dim_v = Config::columns;
  static constexpr int panels = ceil_div(dim, 64), panels_v = ceil_div(dim_v, 64);
  static constexpr int keys = Config::block_n * Config::warps;  // of a tile
  static_assert(Config::block_m == 16 && Config::block_n == 16, "a warp's product of scores");
  // Bytes. A tile is panels of 64 columns, [keys][128 bytes], as the copy engine swizzles them.
  static constexpr int panel = keys * 128;
  static constexpr int stage = (panels + panels_v) * panel;
  static constexpr int q_at = Config::stages * stage;
  using QTile = SharedTile<typename Config::element, Config::block_m, dim>;
  static constexpr int full_at = q_at + QTile::elements * 2;
  static constexpr int empty_at = full_at + 8 * Config::stages;
};

template <class Config>
struct DecodeSteps {
  using Shape = DecodeShape<Config>;
  using T = typename Config::element;
  using Rows = WarpRows<Config, Config::block_m>;
  using Slot = Ring<Config::stages>;

  const MmaForwardParams& p;
  const u32 shared;
  const ForwardUnit unit;
  const typename BandOf<Config>::type band;
  const BlockRange range;
  const Index row;

  INGOT_FN u32 full(int slot) const { return shared + Shape::full_at + 8 * slot; }
  INGOT_FN u32 empty(int slot) const { return shared + Shape::empty_at + 8 * slot; }
  INGOT_FN int tiles() const { return ceil_div(range.count, Config::warps); }

  // One thread.
  INGOT_FN void load(const TensorMap& k, const TensorMap& v) const {
    const Index head = Config::packed ? unit.head : quotient(unit.head, p.group);
    Slot at;
    for (int tile = 0; tile < tiles(); ++tile, at.next()) {
      u32 to = shared + at.slot * Shape::stage;
      BoxAt box{{0, static_cast<int>(range.begin) * Config::block_n + tile * Shape::keys,
                 static_cast<int>(head), static_cast<int>(unit.batch), 0}};
      if (!mbarrier_await(empty(at.slot), at.phase ^ 1)) return;
      mbarrier_arrive_expect(full(at.slot), Shape::stage);
      for (int i = 0; i < Shape::panels; ++i, to += Shape::panel) {
        box.x[0] = 64 * i;
        tma_load(to, k, box, full(at.slot));
      }
      for (int i = 0; i < Shape::panels_v; ++i, to += Shape::panel) {
        box.x[0] = 64 * i;
        tma_load(to, v, box, full(at.slot));
      }
    }
  }

  // Address of 8 columns of one of this warp's keys.
  INGOT_FN static u32 address(u32 tile, int key, int column) {
    const int at = warp() * Config::block_n + key;
    return tile + column / 64 * Shape::panel + at * 128 + ((column % 64 / 8 ^ at % 8) << 4);
  }

  INGOT_FN void load_queries(T* memory, unsigned (&q)[Shape::dim / 16][4]) const {
    const Index group = Config::packed ? p.group : 1;
    const auto from = matrix_of<const T, Config::packed>(p.q, unit.batch, unit.head * group,
                                                         p.score.seqlen_q, Config::head_dim, group);
    load_tile<Team<Config::warps * 32>, Config::block_m, Shape::dim>(memory, from, row, 0);
    copy_commit();
    copy_wait<0>();
    sync_first<Config::warps * 32>();
    const T* const mine = memory + lane() % 16 * Shape::QTile::pitch + lane() / 16 * 8;
#pragma unroll
    for (int i = 0; i < Shape::dim / 16; ++i) load_matrices(q[i], shared_address(mine + 16 * i));
  }

  INGOT_FN static void multiply_qk(typename Rows::S& s, const unsigned (&q)[Shape::dim / 16][4],
                                   u32 k) {
    s.clear();
#pragma unroll
    for (int i = 0; i < Shape::dim / 16; ++i) {
      unsigned b[4];
      load_matrices(b, address(k, lane() % 8 + lane() / 16 * 8, 16 * i + lane() / 8 % 2 * 8));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        multiply_add(T{}, s.x[0][2 * h], s.x[0][2 * h + 1], s.x[1][2 * h], s.x[1][2 * h + 1], q[i],
                     b[2 * h], b[2 * h + 1]);
      }
    }
  }

  INGOT_FN static void multiply_pv(typename Rows::O& o, const typename Rows::S& weights, u32 v) {
    unsigned a[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      a[r] = pack<T>(weights.x[r % 2][r / 2 * 2], weights.x[r % 2][r / 2 * 2 + 1]);
    }
#pragma unroll
    for (int i = 0; i < Shape::dim_v / 16; ++i) {
      unsigned b[4];
      load_matrices_transposed(b, address(v, lane() % 16, 16 * i + lane() / 16 * 8));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int j = 4 * i + 2 * h;
        multiply_add(T{}, o.x[0][j], o.x[0][j + 1], o.x[1][j], o.x[1][j + 1], a, b[2 * h],
                     b[2 * h + 1]);
      }
    }
  }

  // Attends to this warp's keys of every tile.
  INGOT_FN void attend(Rows& rows, T* q_memory) const {
    unsigned q[Shape::dim / 16][4];
    load_queries(q_memory, q);
    const Parts<Config> parts = parts_of<Config>(p.parts);
    const FragmentQueries queries = queries_of<Config>(p, unit, row);
    rows.start(parts, queries, unit.split == 0 && warp() == 0);
    const ScoreFactors factors = make_score_factors(p.score);
    const float factor_log2 = outer_factor<Config>(p.score) * log2_e;
    Slot at;
    for (int tile = 0; tile < tiles(); ++tile, at.next()) {
      const int block = tile * Config::warps + warp();
      const u32 k = shared + at.slot * Shape::stage;
      mbarrier_wait(full(at.slot), at.phase);
      if (block < range.count) {
        typename Rows::S s;
        multiply_qk(s, q, k);
        const Index col = (range.begin + block) * Config::block_n;
        weigh<Config>(rows, s, p, parts, band, queries, factors, factor_log2, col);
        multiply_pv(rows.o, s, k + Shape::panels * Shape::panel);
      }
      __syncwarp();
      if (lane() == 0) mbarrier_arrive(empty(at.slot));
    }
    rows.finish();
  }
};

// Whether the other pieces of this unit are all stored: true in one of its blocks, the last. Called
// by all warps but the loader, of which the first stored its own. `flag` is in shared memory.
template <class Config>
INGOT_FN bool is_last_piece(unsigned* ticket, int splits, int* flag) {
  if (warp() == 0) {
    __threadfence();
    __syncwarp();
    if (lane() == 0) {
      *flag = atomicAdd(ticket, 1u) + 1 == static_cast<unsigned>(splits);
      if (*flag != 0) *ticket = 0;
      __threadfence();
    }
  }
  sync_first<Config::warps * 32>();
  return *flag != 0;
}

// The rows of a unit from the pieces of all its blocks.
template <class Config>
INGOT_FN void merge_unit(const MmaForwardParams& p, const ForwardUnit& unit, Index first) {
  const Index group = Config::packed ? p.group : 1, heads = p.heads * group;
  CombineParams combine{
      p.partial_o, p.partial_sums,   p.o,      p.lse,  outer_factor<Config>(p.score), 0,
      heads,       p.score.seqlen_q, p.splits, nullptr};
  for (int i = warp(); i < Config::block_m; i += Config::warps) {
    const Index row = first + i, query = quotient(row, group);
    if (query >= p.score.seqlen_q) return;
    const Index head = unit.head * group + (row - query * group);
    merge_pieces<typename Config::output, Config::head_dim_v>(
        combine, (unit.batch * heads + head) * p.score.seqlen_q + query);
  }
}

}  // namespace ingot

extern "C" __global__ void __launch_bounds__(Config::warps * 32 + 32, 2)
    ingot_kernel(const __grid_constant__ ingot::MmaForwardParams p,
                 const __grid_constant__ ingot::TensorMap k,
                 const __grid_constant__ ingot::TensorMap v) {
  using namespace ingot;
  using Steps = DecodeSteps<Config>;
  using Shape = DecodeShape<Config>;
  extern __shared__ unsigned char memory[];
  const u32 shared = (shared_address(memory) + 1023) & ~1023u;
  unsigned char* const aligned = memory + (shared - shared_address(memory));
  const ForwardUnit unit = forward_unit(p, false);
  const Index row = unit.tile * Config::block_m;
  const Index query = Config::packed ? quotient(row, p.group) : row;
  const auto band = parts_of<Config>(p.parts).band(p.score, unit.batch);
  const Steps steps{
      p, shared, unit, band, block_range<Config>(p, band, query, Config::block_m, unit.split), row};
  if (threadIdx.x == 0) {
    clear_mark();
    for (int i = 0; i < Config::stages; ++i) {
      mbarrier_init(steps.full(i), 1);
      mbarrier_init(steps.empty(i), Config::warps);
    }
    mbarrier_init_done();
  }
  __syncthreads();
  if constexpr (Config::split) let_next_start();
  if (warp() == Config::warps) {
    if (lane() == 0) steps.load(k, v);
    tell_fault(p.faults);
    return;
  }
  typename Steps::Rows rows;
  steps.attend(rows, reinterpret_cast<typename Steps::T*>(aligned + Shape::q_at));
  tell_fault(p.faults);
  if (is_marked()) {
#pragma unroll
    for (ScaledSoftmax<float>& softmax : rows.softmax) softmax.row_sum = unless_marked(0.0f);
  }
  merge_warps<Config>(rows, aligned, p.score);
  if (warp() == 0) store_forward<Config, Config::block_m>(p, unit, row, rows.o, rows.softmax);
  if constexpr (Config::split) {
    if (p.tickets == nullptr) return;
    unsigned* const ticket =
        p.tickets + (unit.batch * p.heads + unit.head) * p.row_tiles + unit.tile;
    int* const flag = reinterpret_cast<int*>(aligned + Shape::q_at);
    if (is_last_piece<Config>(ticket, p.splits, flag)) merge_unit<Config>(p, unit, row);
  }
}
