// What a compiled kernel and the executor share. Included by both sides, so it includes nothing.
#pragma once

namespace softmetal_abi {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long;

inline constexpr int kSlots = 31;

/// Where a kernel argument comes from.
enum ArgKind : u32 {
  arg_buffer,
  arg_threadgroup,
  arg_unsupported,
  arg_thread_position_in_grid,
  arg_thread_position_in_threadgroup,
  arg_thread_index_in_threadgroup,
  arg_thread_index_in_simdgroup,
  arg_simdgroup_index_in_threadgroup,
  arg_thread_index_in_quadgroup,
  arg_quadgroup_index_in_threadgroup,
  arg_group_values,  ///< from here on: the same for all threads of a threadgroup
  arg_threadgroup_position_in_grid = arg_group_values,
  arg_threads_per_threadgroup,
  arg_dispatch_threads_per_threadgroup,
  arg_threads_per_grid,
  arg_threadgroups_per_grid,
  arg_simdgroups_per_threadgroup,
  arg_dispatch_simdgroups_per_threadgroup,
  arg_threads_per_simdgroup,
  arg_quadgroups_per_threadgroup,
  arg_dispatch_quadgroups_per_threadgroup,
  arg_grid_origin,
  arg_kind_count
};

struct Triple {
  u32 v[3];
};

struct Args {
  u64 buffers[kSlots];
  u64 threadgroups[kSlots];
  u64 zero_page;  ///< what references of switched-off arguments are bound to
  Triple values[arg_kind_count - arg_group_values];
};

struct Frame {
  const Args* args;
  Triple in_grid;
  Triple in_group;
  u32 index_in_group;
};

/// Instrumented code passes its memory accesses through `access` in this form.
enum AccessBits : u32 {
  access_size_mask = 0xffff,
  access_align_shift = 16,  ///< log2 of the alignment, 4 bits
  access_write = 1u << 20,
  access_atomic = 1u << 21,
  access_space_shift = 24,  ///< LLVM address space: 0 generic, 1 device, 3 threadgroup, 5 constant
};

enum CollectiveKind : u32 {
  collective_any,      ///< reductions and shuffles: the threads that are there take part
  collective_full,     ///< matrix operations: every thread of the simdgroup must take part
  collective_barrier,  ///< simdgroup_barrier: as full, and orders memory by its mem_flags
  flags_shift = 8,     ///< where those stand
};

/// Runs once for all lanes of `mask`; lanes[i] is what lane i passed.
using CollectiveOp = void (*)(void* const* lanes, u32 mask);

struct Runtime {
  void (*collective)(void* lane, CollectiveOp op, u32 site, u32 kind);
  void (*barrier)(u32 flags, u32 site);
  void* (*access)(u64 address, u32 what, u32 site);
  void* (*range)(u64 address, u64 bytes, u32 what, u32 site);
  void (*count)(u32 float_ops, u32 integer_ops, u32 special_ops);
  void (*inactive_lane)(u32 site, u32 lane);
  void (*count_matrix)(u32 operations);
  void (*count_atomic)();
  u32 (*lane)();
  u32 (*active_mask)();
  u32 (*thread_index)();  ///< in the threadgroup
};

}  // namespace softmetal_abi
