// Blocks (closures of Apple's C dialect) that the program hands to softmetal.
#pragma once

#include <utility>

#include "method.hpp"

extern "C" {
void* _Block_copy(const void* block);
void _Block_release(const void* block);
}

namespace softmetal {

// What every block starts with.
struct BlockHeader {
  void* type;
  int flags;
  int reserved;
  void (*invoke)();
};

// An owned copy of a block that takes `Args` and returns nothing; may be empty.
template <class... Args>
class Block {
 public:
  Block() = default;
  explicit Block(void* block) : block_(block == nullptr ? nullptr : _Block_copy(block)) {}
  Block(const Block& other) : Block(other.block_) {}
  Block(Block&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  Block& operator=(Block other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~Block() {
    if (block_ != nullptr) {
      _Block_release(block_);
    }
  }
  explicit operator bool() const { return block_ != nullptr; }
  [[clang::no_sanitize("function")]] void operator()(Args... args) const {
    auto* header = static_cast<BlockHeader*>(block_);
    reinterpret_cast<void (*)(void*, Args...)>(header->invoke)(block_, args...);
  }

 private:
  void* block_ = nullptr;
};

template <class... Args>
struct Adapt<Block<Args...>> {
  using Abi = void*;
  static bool accepts(void*, int) { return true; }
  static Block<Args...> in(void* value) { return Block<Args...>(value); }
};

}  // namespace softmetal
