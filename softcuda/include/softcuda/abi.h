// What a compiled kernel and the device know of each other: the state of a thread, and the
// functions of the device. Read by both; includes nothing, as the kernels' text includes nothing.
#pragma once

namespace softcuda {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

/// A fiber's memory is aligned to its size: the state of its thread lies at its start.
inline constexpr u64 fiber_bytes = 128 << 10;
/// Where dynamic shared memory starts in a block's window; what lies before is the system's.
inline constexpr u32 dynamic_begin = 1024;
/// Address of a block's window in its cluster: (rank + 1) << window_shift. Without a rank an
/// address is one of the own block.
inline constexpr u32 window_shift = 24;

struct Dim3 {
  u32 x, y, z;
};

/// What a lane gives to a collective operation of its warp, and what it gets.
struct Exchange {
  u32 in[12], out[4];
};

/// Two sets of exchanges in turn: a lane may give for the next operation while others still read.
struct WarpLink {
  Exchange exchange[2][32];
  u32 parity;
};

/// The kinds of collective operation of a warp: all lanes must come to the same one.
enum class Meeting : u32 { none, sync, shuffle, vote, matrix, load_matrix, store_matrix, wgmma };

/// One lane's part of a wgmma.mma_async.
struct WgmmaOp {
  float* sums;
  u64 a, b;  // descriptors
  u32 a_registers[4];
  u16 columns;
  bool is_bf16, from_registers, transpose_a, transpose_b, accumulate;
};

struct BoxAt {
  int x[5];
};

struct Thread;

/// Functions of the device. The thread is the calling one.
struct Runtime {
  void (*fail)(Thread*, const char* message, u64 value);  // does not return
  void (*meet)(Thread*, Meeting kind, u32 mask, void (*last)(Exchange* lanes, Thread* caller));
  void (*yield)(Thread*);
  u32 (*shared_static)(Thread*, const void* site, u32 bytes, u32 align);
  u8* (*shared_at)(Thread*, u32 address, u32 bytes, u32 align);  // checked
  void (*barrier)(Thread*, u32 id, u32 threads, bool waits);     // threads 0: all
  int (*barrier_or)(Thread*, int value);
  void (*cluster_arrive)(Thread*);
  void (*cluster_wait)(Thread*);
  void (*mbarrier_init)(Thread*, u32 address, u32 arrivals);
  void (*mbarrier_arrive)(Thread*, u32 address, u32 bytes);
  bool (*mbarrier_try_wait)(Thread*, u32 address, u32 parity);
  void (*tensor_load)(Thread*, u32 to, u64 map, const BoxAt&, u32 barrier, u32 mask);
  void (*tensor_store)(Thread*, u64 map, const BoxAt&, u32 from);
  void (*bulk_load)(Thread*, u32 to, u64 from, u32 bytes, u32 barrier);
  void (*bulk_commit)(Thread*);
  void (*bulk_wait)(Thread*, u32 groups, bool read);
  void (*copy)(Thread*, u32 to, u64 from, u32 size, u32 bytes);  // cp.async
  void (*copy_commit)(Thread*);
  void (*copy_wait)(Thread*, u32 groups);
  void (*wgmma)(Thread*, const WgmmaOp&);
  void (*wgmma_commit)(Thread*);
  void (*wgmma_wait)(Thread*, u32 groups);
  void (*multiply_f16)(Exchange* lanes, Thread*);  // operations of a meeting
  void (*multiply_bf16)(Exchange* lanes, Thread*);
};

struct Thread {
  Dim3 thread_index, block_index, block_size, grid_size;
  u32 lane, cluster_rank, dynamic_bytes;
  u32 window_end;  // of the block's dynamic shared memory
  u8* shared;      // the block's window
  WarpLink* warp;
  const Runtime* runtime;
};

}  // namespace softcuda
