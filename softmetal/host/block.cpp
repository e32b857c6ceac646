// The Blocks runtime: what code compiled with -fblocks calls to move blocks and their captured
// variables from the stack to the heap. The layouts are those of clang's Block ABI.
#include "block.hpp"

#include <atomic>
#include <cstdlib>
#include <cstring>

extern "C" {
void* _NSConcreteStackBlock[32];
void* _NSConcreteGlobalBlock[32];
void* _NSConcreteMallocBlock[32];
void _Block_object_assign(void* destination, const void* object, int kind);
void _Block_object_dispose(const void* object, int kind);
}

namespace {

constexpr int has_helpers = 1 << 25;
constexpr int is_global = 1 << 28;
constexpr int is_on_heap = 1 << 24;
constexpr int count_mask = 0xFFFF;

constexpr int kind_block = 7;
constexpr int kind_byref = 8;
constexpr int kind_of_field = 0x0F;

struct Descriptor {
  unsigned long reserved;
  unsigned long size;
  void (*copy)(void* to, const void* from);
  void (*dispose)(const void* block);
};

struct BlockLayout {
  softmetal::BlockHeader header;
  const Descriptor* descriptor;
};

// A __block variable.
struct Byref {
  void* type;
  Byref* forwarding;
  int flags;
  unsigned size;
  void (*keep)(Byref* to, Byref* from);
  void (*destroy)(Byref* variable);
};

// Flags hold the count of references: they change while other threads look at them.
int change(int& flags, int by) { return std::atomic_ref(flags).fetch_add(by) + by; }
bool has(int& flags, int bit) { return (std::atomic_ref(flags).load() & bit) != 0; }

Byref* copy_byref(Byref* from) {
  Byref* shared = from->forwarding;
  if (has(shared->flags, is_on_heap)) {
    change(shared->flags, 1);
    return shared;
  }
  auto* to = static_cast<Byref*>(std::malloc(from->size));
  std::memcpy(static_cast<void*>(to), from, from->size);
  to->flags = (from->flags & ~count_mask) | is_on_heap | 2;  // the heap's and the stack's use
  to->forwarding = to;
  from->forwarding = to;
  if (has(from->flags, has_helpers)) {
    from->keep(to, from);
  }
  return to;
}

void release_byref(Byref* variable) {
  Byref* shared = variable->forwarding;
  if (!has(shared->flags, is_on_heap) || (change(shared->flags, -1) & count_mask) != 0) {
    return;
  }
  if (has(shared->flags, has_helpers)) {
    shared->destroy(shared);
  }
  std::free(shared);
}

}  // namespace

void* _Block_copy(const void* pointer) {
  auto* block = static_cast<BlockLayout*>(const_cast<void*>(pointer));
  if (block == nullptr || has(block->header.flags, is_global)) {
    return block;
  }
  if (has(block->header.flags, is_on_heap)) {
    change(block->header.flags, 1);
    return block;
  }
  auto* copy = static_cast<BlockLayout*>(std::malloc(block->descriptor->size));
  std::memcpy(static_cast<void*>(copy), block, block->descriptor->size);
  copy->header.type = _NSConcreteMallocBlock;
  copy->header.flags = (block->header.flags & ~count_mask) | is_on_heap | 1;
  if (has(block->header.flags, has_helpers)) {
    block->descriptor->copy(copy, block);
  }
  return copy;
}

void _Block_release(const void* pointer) {
  auto* block = static_cast<BlockLayout*>(const_cast<void*>(pointer));
  if (block == nullptr || !has(block->header.flags, is_on_heap) ||
      (change(block->header.flags, -1) & count_mask) != 0) {
    return;
  }
  if (has(block->header.flags, has_helpers)) {
    block->descriptor->dispose(block);
  }
  std::free(block);
}

void _Block_object_assign(void* destination, const void* object, int kind) {
  auto* slot = static_cast<void**>(destination);
  switch (kind & kind_of_field) {
    case kind_block:
      *slot = _Block_copy(object);
      break;
    case kind_byref:
      *slot = copy_byref(static_cast<Byref*>(const_cast<void*>(object)));
      break;
    default:
      *slot = const_cast<void*>(object);
  }
}

void _Block_object_dispose(const void* object, int kind) {
  switch (kind & kind_of_field) {
    case kind_block:
      _Block_release(object);
      break;
    case kind_byref:
      release_byref(static_cast<Byref*>(const_cast<void*>(object)));
      break;
    default:
      break;
  }
}
