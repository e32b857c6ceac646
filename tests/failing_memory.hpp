// Replaces malloc, operator new and pthread_create of the one program that includes it: they fail
// when they are asked to. A thread that cannot be started is a request for memory, too.
#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INGOT_OTHER_MALLOC
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INGOT_OTHER_MALLOC
#endif

namespace {

std::atomic<long> left{-1};  ///< requests until one fails; negative: none does
std::atomic<bool> all_fail{false};
std::atomic<bool> has_failed{false};

/// Whether this request is to fail.
bool fails() {
  const long now = left.load();
  if (now < 0) return false;
  if (now > 0) {
    left.store(now - 1);
    return false;
  }
  has_failed.store(true);
  errno = ENOMEM;
  if (!all_fail) left.store(-1);
  return true;
}

}  // namespace

// What fails: malloc and its kin where the system's library has them under other names as well,
// operator new where a sanitizer brings a malloc of its own.
#if defined(__GLIBC__) && !defined(INGOT_OTHER_MALLOC)
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t n) { return fails() ? nullptr : __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return fails() ? nullptr : __libc_calloc(n, size); }
void* realloc(void* p, std::size_t n) { return fails() ? nullptr : __libc_realloc(p, n); }
void* memalign(std::size_t a, std::size_t n) { return fails() ? nullptr : __libc_memalign(a, n); }
void* aligned_alloc(std::size_t a, std::size_t n) { return memalign(a, n); }
int posix_memalign(void** p, std::size_t a, std::size_t n) {
  *p = memalign(a, n);
  return *p == nullptr ? ENOMEM : 0;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attr, void* (*f)(void*), void* arg) {
  using Create = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static auto* const create = reinterpret_cast<Create*>(dlsym(RTLD_NEXT, "pthread_create"));
  return fails() ? EAGAIN : create(thread, attr, f, arg);
}
}
#else
namespace {

void* memory_or_null(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  if (fails()) return nullptr;
  void* data = nullptr;
  return posix_memalign(&data, alignment, bytes) == 0 ? data : nullptr;
}

void* memory(std::size_t bytes, std::size_t alignment = alignof(std::max_align_t)) {
  void* const data = memory_or_null(bytes, alignment);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

}  // namespace

// What is not replaced (arrays, sizes) ends in these.
void* operator new(std::size_t n) { return memory(n); }
void* operator new(std::size_t n, std::align_val_t a) {
  return memory(n, static_cast<std::size_t>(a));
}
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return memory_or_null(n); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return memory_or_null(n, static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif
