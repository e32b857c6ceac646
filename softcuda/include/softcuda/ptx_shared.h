// The PTX instructions of shared memory, of barriers and of copies to and from it.
#pragma once

namespace softcuda::ptx {

// ---- loads and stores, checked ----

template <class T>
inline T* shared(u32 address, u32 bytes) {
  Thread* const t = self();
  if (address >= dynamic_begin && address + bytes <= t->window_end && address % bytes == 0) {
    return reinterpret_cast<T*>(t->shared + address);
  }
  return reinterpret_cast<T*>(t->runtime->shared_at(t, address, bytes, bytes));
}

template <class R>
inline void ld_shared_s32(R& x, u32 from) {
  put(x, *shared<u32>(from, 4));
}
inline void ld_shared_v2_f32(float& x, float& y, u32 from) {
  const float* const p = shared<float>(from, 8);
  x = p[0], y = p[1];
}
inline void ld_shared_v4_b32(u32& x, u32& y, u32& z, u32& w, u32 from) {
  const u32* const p = shared<u32>(from, 16);
  x = p[0], y = p[1], z = p[2], w = p[3];
}
inline void st_shared_s32(u32 to, u32 x) { *shared<u32>(to, 4) = x; }
inline void st_shared_v2_f32(u32 to, float x, float y) {
  float* const p = shared<float>(to, 8);
  p[0] = x, p[1] = y;
}
inline void st_shared_v4_b32(u32 to, u32 x, u32 y, u32 z, u32 w) {
  u32* const p = shared<u32>(to, 16);
  p[0] = x, p[1] = y, p[2] = z, p[3] = w;
}

// ---- mbarriers ----

inline void mbarrier_init_shared_cta_b64(u32 barrier, u32 arrivals) {
  Thread* const t = self();
  t->runtime->mbarrier_init(t, barrier, arrivals);
}
inline void fence_mbarrier_init_release_cluster() {}
inline void mbarrier_arrive_shared_cta_b64(u32 barrier) {
  Thread* const t = self();
  if (barrier >> window_shift != 0) {
    t->runtime->fail(t, "mbarrier.arrive.shared::cta: the barrier is another block's", barrier);
  }
  t->runtime->mbarrier_arrive(t, barrier, 0);
}
inline void mbarrier_arrive_shared_cluster_b64(u32 barrier) {
  Thread* const t = self();
  t->runtime->mbarrier_arrive(t, barrier, 0);
}
inline void mbarrier_arrive_expect_tx_shared_cta_b64(u32 barrier, u32 bytes) {
  Thread* const t = self();
  t->runtime->mbarrier_arrive(t, barrier, bytes);
}
inline void mbarrier_try_wait_parity_shared_cta_b64(bool& done, u32 barrier, u32 parity) {
  Thread* const t = self();
  done = t->runtime->mbarrier_try_wait(t, barrier, parity);
}
inline void mapa_shared_cluster_u32(u32& to, u32 address, u32 rank) {
  to = (address & ((1u << window_shift) - 1)) | (rank + 1) << window_shift;
}

// ---- barriers of a block and of a cluster ----

inline void bar_sync(u32 id, u32 threads) {
  Thread* const t = self();
  t->runtime->barrier(t, id, threads, true);
}
inline void bar_arrive(u32 id, u32 threads) {
  Thread* const t = self();
  t->runtime->barrier(t, id, threads, false);
}
inline void barrier_cluster_arrive() {
  Thread* const t = self();
  t->runtime->cluster_arrive(t);
}
inline void barrier_cluster_wait() {
  Thread* const t = self();
  t->runtime->cluster_wait(t);
}
inline void fence_proxy_async_shared_cta() {}

// ---- copies ----

inline void cp_async_bulk_tensor_5d_shared_cluster_global_mbarrier_complete_tx_bytes(
    u32 to, u64 map, u32 x0, u32 x1, u32 x2, u32 x3, u32 x4, u32 barrier) {
  Thread* const t = self();
  const BoxAt at{{int(x0), int(x1), int(x2), int(x3), int(x4)}};
  t->runtime->tensor_load(t, to, map, at, barrier, 0);
}
inline void
cp_async_bulk_tensor_5d_shared_cluster_global_mbarrier_complete_tx_bytes_multicast_cluster(
    u32 to, u64 map, u32 x0, u32 x1, u32 x2, u32 x3, u32 x4, u32 barrier, u16 mask) {
  Thread* const t = self();
  const BoxAt at{{int(x0), int(x1), int(x2), int(x3), int(x4)}};
  if (mask == 0) t->runtime->fail(t, "multicast: no block is chosen", mask);
  t->runtime->tensor_load(t, to, map, at, barrier, mask);
}
inline void cp_async_bulk_tensor_5d_global_shared_cta_bulk_group(u64 map, u32 x0, u32 x1, u32 x2,
                                                                 u32 x3, u32 x4, u32 from) {
  Thread* const t = self();
  const BoxAt at{{int(x0), int(x1), int(x2), int(x3), int(x4)}};
  t->runtime->tensor_store(t, map, at, from);
}
inline void cp_async_bulk_commit_group() {
  Thread* const t = self();
  t->runtime->bulk_commit(t);
}
inline void cp_async_bulk_wait_group_read(u32 groups) {
  Thread* const t = self();
  t->runtime->bulk_wait(t, groups, true);
}
inline void cp_async_bulk_wait_group(u32 groups) {
  Thread* const t = self();
  t->runtime->bulk_wait(t, groups, false);
}
inline void cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(u32 to, u64 from,
                                                                           u32 bytes, u32 barrier) {
  Thread* const t = self();
  t->runtime->bulk_load(t, to, from, bytes, barrier);
}
inline void cp_async_cg_shared_global(u32 to, u64 from, u32 size, u32 bytes) {
  Thread* const t = self();
  t->runtime->copy(t, to, from, size, bytes);
}
inline void cp_async_ca_shared_global(u32 to, u64 from, u32 size, u32 bytes) {
  Thread* const t = self();
  t->runtime->copy(t, to, from, size, bytes);
}
inline void cp_async_commit_group() {
  Thread* const t = self();
  t->runtime->copy_commit(t);
}
inline void cp_async_wait_group(u32 groups) {
  Thread* const t = self();
  t->runtime->copy_wait(t, groups);
}

}  // namespace softcuda::ptx
