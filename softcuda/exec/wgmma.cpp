// wgmma: each warp of a warpgroup makes 16 of the 64 rows. Threads note their products; these are
// made when the group is committed or, in lazy mode, when it is waited for.
#include <cstring>

#include "exec/product.hpp"
#include "exec/worker.hpp"

namespace softcuda {
namespace {

/// A tile in shared memory with 128-byte swizzle, as its descriptor says.
class Tile {
 public:
  Tile(Fiber* self, u64 descriptor) : self_(self) {
    const auto field = [&](int at) { return static_cast<u32>(descriptor >> at & 0x3FFF) << 4; };
    start_ = field(0);
    leading_ = field(16);
    stride_ = field(32);
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
      self->worker->fail(self, "wgmma: descriptors with 128-byte swizzle and base offset 0 only");
    }
  }

  /// Eight numbers from column `column` on, a multiple of 8, of row `row`: rows of 128 bytes,
  /// groups of eight rows `stride` apart.
  const u16* eight(u32 row, u32 column) const {
    return at(start_ + row / 8 * stride_ + row % 8 * 128 + column * 2);
  }
  /// The same of a tile that lies transposed: row `k`, columns in panels of 64.
  const u16* eight_across(u32 k, u32 column) const {
    return at(start_ + column / 64 * leading_ + k / 8 * stride_ + k % 8 * 128 + column % 64 * 2);
  }

 private:
  const u16* at(u32 address) const {
    address ^= (address >> 7 & 7) << 4;
    return reinterpret_cast<const u16*>(self_->worker->place(self_, address, 16, 16).data());
  }

  Fiber* self_;
  u32 start_, leading_, stride_;
};

void read_shared_a(Operands& x, Fiber* self, const WgmmaOp& op, u32 first_row) {
  const Tile tile(self, op.a);
  for (u32 i = 0; i < 16; ++i) {
    for (u32 j = 0; j < 16; j += 8) {
      if (!op.transpose_a) {
        std::memcpy(&x.a[i][j], tile.eight(first_row + i, j), 16);
        continue;
      }
      const u16* const from = tile.eight_across(i, first_row + j);
      for (u32 c = 0; c < 8; ++c) x.a[j + c][i] = from[c];
    }
  }
}

void read_register_a(Operands& x, const Warp& warp, std::size_t number) {
  for (u32 lane = 0; lane < 32; ++lane) {
    const WgmmaOp& op = warp.lanes[lane]->products.operations[number];
    for (u32 i = 0; i < 4; ++i) {
      std::memcpy(&x.a[lane / 4 + i % 2 * 8][lane % 4 * 2 + i / 2 * 8], op.a_registers + i, 4);
    }
  }
}

void read_b(Operands& x, Fiber* self, const WgmmaOp& op) {
  const Tile tile(self, op.b);
  if (op.transpose_b) {
    for (u32 k = 0; k < 16; ++k) {
      for (u32 n = 0; n < op.columns; n += 8) std::memcpy(&x.b[k][n], tile.eight_across(k, n), 16);
    }
    return;
  }
  for (u32 n = 0; n < op.columns; ++n) {
    for (u32 k = 0; k < 16; k += 8) {
      const u16* const from = tile.eight(n, k);
      for (u32 c = 0; c < 8; ++c) x.b[k + c][n] = from[c];
    }
  }
}

/// f(number in the sums' array of the lane, the sum of the tile).
template <class F>
void each_sum(u32 lane, u32 columns, Sums& sums, F&& f) {
  for (u32 i = 0; i < columns / 8; ++i) {
    for (u32 h = 0; h < 2; ++h) {
      float* const pair = &sums.x[lane / 4 + 8 * h][8 * i + lane % 4 * 2];
      f(4 * i + 2 * h, pair[0]);
      f(4 * i + 2 * h + 1, pair[1]);
    }
  }
}

void restore(Fiber& fiber, float* place) {
  for (std::size_t i = 0; i < fiber.saved.size(); ++i) {
    if (fiber.saved[i].place != place) continue;
    std::memcpy(place, fiber.saved[i].values.data(), fiber.saved[i].values.size() * sizeof(float));
    fiber.saved.erase(fiber.saved.begin() + static_cast<std::ptrdiff_t>(i));
    return;
  }
}

bool is_same(const WgmmaOp& x, const WgmmaOp& y) {
  return x.b == y.b && x.columns == y.columns && x.is_bf16 == y.is_bf16 &&
         x.from_registers == y.from_registers && x.accumulate == y.accumulate &&
         x.transpose_a == y.transpose_a && x.transpose_b == y.transpose_b &&
         (x.from_registers || x.a == y.a);
}

void check_lanes(const Warp& warp, Fiber* self, std::size_t number) {
  const WgmmaOp& first = warp.lanes[0]->products.operations[number];
  for (const Fiber* lane : warp.lanes) {
    if (is_same(first, lane->products.operations[number])) continue;
    self->worker->fail(self, "wgmma: operands must be the same in all lanes of a warp");
  }
}

/// Products [begin, end) into the same sums.
void multiply_chain(const Warp& warp, Fiber* self, std::size_t begin, std::size_t end) {
  static thread_local Sums sums;
  static thread_local Operands operands;
  const u32 columns = warp.lanes[0]->products.operations[begin].columns;
  for (u32 lane = 0; lane < 32; ++lane) {
    Fiber& fiber = *warp.lanes[lane];
    float* const place = fiber.products.operations[begin].sums;
    restore(fiber, place);
    each_sum(lane, columns, sums, [&](u32 i, float& x) { x = place[i]; });
  }
  for (std::size_t i = begin; i < end; ++i) {
    check_lanes(warp, self, i);
    const WgmmaOp& op = warp.lanes[0]->products.operations[i];
    if (op.from_registers) {
      read_register_a(operands, warp, i);
    } else {
      read_shared_a(operands, self, op, warp.lanes[0]->index / 32 % 4 * 16);
    }
    read_b(operands, self, op);
    if (!op.accumulate) std::memset(&sums, 0, sizeof sums);
    multiply_add(sums, operands, op.columns, op.is_bf16);
  }
  for (u32 lane = 0; lane < 32; ++lane) {
    float* const place = warp.lanes[lane]->products.operations[begin].sums;
    each_sum(lane, columns, sums, [&](u32 i, float& x) { place[i] = x; });
  }
}

/// All products of the warp but those of the latest groups.
void multiply(Exchange*, Thread* caller) {
  Fiber* const self = fiber_of(caller);
  const Warp& warp = *self->warp_state;
  const Groups<WgmmaOp>& first = warp.lanes[0]->products;
  const u32 left = warp.lanes[0]->products_left;
  for (const Fiber* lane : warp.lanes) {
    if (lane->products.ends == first.ends && lane->products_left == left) continue;
    self->worker->fail(self, "wgmma: lanes of a warp have other products");
  }
  const std::size_t due = first.due(left);
  for (std::size_t begin = 0; begin < due;) {
    std::size_t end = begin + 1;
    while (end < due && first.operations[end].sums == first.operations[begin].sums &&
           first.operations[end].columns == first.operations[begin].columns) {
      ++end;
    }
    multiply_chain(warp, self, begin, end);
    begin = end;
  }
  for (Fiber* lane : warp.lanes) lane->products.drop(due);
}

void finish(Fiber* self, u32 groups) {
  self->products_left = groups;
  if (self->products.ends.size() <= groups) return;
  meet(self, Meeting::wgmma, ~0u, multiply);
}

/// What a thread reads of sums that are under way is poison.
void poison(Fiber* self, const WgmmaOp& op) {
  for (const SavedSums& saved : self->saved) {
    if (saved.place == op.sums) return;
  }
  const std::size_t count = op.columns / 2;
  self->saved.push_back({op.sums, std::vector<float>(op.sums, op.sums + count)});
  std::memset(op.sums, 0xFF, count * sizeof(float));
}

}  // namespace

void wgmma(Thread* thread, const WgmmaOp& op) {
  Fiber* const self = fiber_of(thread);
  if (self->worker->launch().lazy_products) poison(self, op);
  self->products.operations.push_back(op);
}

void wgmma_commit(Thread* thread) {
  Fiber* const self = fiber_of(thread);
  self->products.commit();
  if (!self->worker->launch().lazy_products) finish(self, 0);
}

void wgmma_wait(Thread* thread, u32 groups) { finish(fiber_of(thread), groups); }

}  // namespace softcuda
