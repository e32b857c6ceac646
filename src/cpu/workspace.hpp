// Scratch memory of calls that bring none: buffers are kept and used again, so a call in steady
// state allocates nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <vector>

namespace ingot {

class WorkspacePool {
 public:
  struct Delete {
    void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{64}); }
  };
  struct Buffer {
    std::unique_ptr<std::byte[], Delete> data;
    std::size_t bytes = 0;
  };

  /// One call's buffer; gives it back at the end of its life.
  class Lease {
   public:
    Lease(WorkspacePool& pool, Buffer buffer) : pool_(pool), buffer_(std::move(buffer)) {}
    ~Lease() { pool_.give_back(std::move(buffer_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    std::span<std::byte> bytes() const { return {buffer_.data.get(), buffer_.bytes}; }

   private:
    WorkspacePool& pool_;
    Buffer buffer_;
  };

  /// 64-byte aligned, of at least `bytes`. Throws Error(out_of_memory) with the size.
  Lease take(std::size_t bytes);

 private:
  void give_back(Buffer buffer) noexcept;

  std::mutex mutex_;
  std::vector<Buffer> free_;  // guarded by mutex_
};

}  // namespace ingot
