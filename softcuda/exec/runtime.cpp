// What kernels call, by the table of include/softcuda/abi.h.
#include "exec/worker.hpp"

namespace softcuda {
namespace {

void fail(Thread* thread, const char* message, u64 value) {
  Fiber* const self = fiber_of(thread);
  self->worker->fail(self, std::string(message) + " (" + std::to_string(value) + ")");
}

void yield(Thread* thread) {
  Fiber* const self = fiber_of(thread);
  self->worker->yield(self);
}

/// Variables of a block lie behind its dynamic shared memory.
u32 shared_static(Thread* thread, const void* site, u32 bytes, u32 align) {
  Fiber* const self = fiber_of(thread);
  Block& block = *self->block;
  for (const auto& [known, at] : block.statics) {
    if (known == site) return at;
  }
  const u32 at = (block.static_end + align - 1) / align * align;
  if (bytes > 48u << 10) self->worker->fail(self, "__shared__: more than 48 KB of variables");
  block.static_end = at + bytes;
  block.statics.emplace_back(site, at);
  return at;
}

u8* shared_at(Thread* thread, u32 address, u32 bytes, u32 align) {
  Fiber* const self = fiber_of(thread);
  return self->worker->place(self, address, bytes, align).data();
}

void cluster_arrive(Thread* thread) {
  Fiber* const self = fiber_of(thread);
  self->worker->cluster_arrive(self);
}

void cluster_wait(Thread* thread) {
  Fiber* const self = fiber_of(thread);
  self->worker->cluster_wait(self);
}

}  // namespace

const Runtime runtime = {
    fail,          meet,           yield,        shared_static, shared_at,       barrier,
    barrier_or,    cluster_arrive, cluster_wait, mbarrier_init, mbarrier_arrive, mbarrier_try_wait,
    tensor_load,   tensor_store,   bulk_load,    bulk_commit,   bulk_wait,       copy,
    copy_commit,   copy_wait,      wgmma,        wgmma_commit,  wgmma_wait,      multiply_f16,
    multiply_bf16,
};

}  // namespace softcuda
