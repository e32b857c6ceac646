// A large array of cells that costs time and memory only where it is touched.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace softmetal::exec {

/// `Cell` is zero when value-initialised. Chunks appear on first use, from any thread, and are kept
/// for the next array.
template <typename Cell, std::size_t kChunkCells>
class LazyArray {
 public:
  explicit LazyArray(std::size_t cells)
      : chunks_(std::make_unique<std::atomic<Chunk*>[]>(cells / kChunkCells + 1)),
        count_(cells / kChunkCells + 1) {}
  ~LazyArray() {
    const std::lock_guard lock(spare().mutex);
    for (std::size_t i = 0; i < count_; ++i) {
      std::unique_ptr<Chunk> chunk(chunks_[i].load(std::memory_order_acquire));
      auto& kept = spare().chunks;
      if (chunk && kept.size() < kMostSpare) kept.push_back(std::move(chunk));
    }
  }
  LazyArray(const LazyArray&) = delete;
  LazyArray& operator=(const LazyArray&) = delete;

  Cell& operator[](std::size_t i) {
    std::atomic<Chunk*>& slot = chunks_[i / kChunkCells];
    Chunk* chunk = slot.load(std::memory_order_acquire);
    if (chunk == nullptr) chunk = fill(slot);
    return chunk->cells[i % kChunkCells];
  }

  /// Calls visit(index of the first cell, the cells, their number) for every chunk there is.
  template <typename Visit>
  void for_each_chunk(Visit visit) const {
    for (std::size_t i = 0; i < count_; ++i) {
      const Chunk* chunk = chunks_[i].load(std::memory_order_acquire);
      if (chunk != nullptr) visit(i * kChunkCells, chunk->cells, kChunkCells);
    }
  }

 private:
  struct Chunk {
    Cell cells[kChunkCells] = {};
  };
  struct Spare {
    std::mutex mutex;
    std::vector<std::unique_ptr<Chunk>> chunks;
  };
  static constexpr std::size_t kMostSpare = (std::size_t{64} << 20) / sizeof(Chunk);

  static Spare& spare() {
    static Spare* const instance = new Spare;
    return *instance;
  }

  static std::unique_ptr<Chunk> take() {
    std::unique_ptr<Chunk> chunk;
    {
      const std::lock_guard lock(spare().mutex);
      auto& kept = spare().chunks;
      if (kept.empty()) return std::make_unique<Chunk>();
      chunk = std::move(kept.back());
      kept.pop_back();
    }
    chunk->~Chunk();
    Chunk* const place = chunk.release();
    return std::unique_ptr<Chunk>(new (place) Chunk);
  }

  static Chunk* fill(std::atomic<Chunk*>& slot) {
    std::unique_ptr<Chunk> fresh = take();
    Chunk* present = nullptr;
    if (slot.compare_exchange_strong(present, fresh.get(), std::memory_order_acq_rel)) {
      return fresh.release();
    }
    return present;  // another thread was first
  }

  std::unique_ptr<std::atomic<Chunk*>[]> chunks_;
  std::size_t count_;
};

}  // namespace softmetal::exec
