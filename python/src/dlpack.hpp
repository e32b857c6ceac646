// What DLPack 1.3 says of memory (github.com/dmlc/dlpack, dlpack.h): declarations of its C ABI.
#pragma once

#include <cstdint>

namespace ingot_python::dlpack {

constexpr std::uint32_t major_version = 1;
constexpr std::uint64_t flag_read_only = 1, flag_copied = 2;

/// DLDataTypeCode
enum Code : std::uint8_t {
  code_int = 0,
  code_uint = 1,
  code_float = 2,
  code_bfloat = 4,
  code_bool = 6
};

struct Device {
  std::int32_t type, id;
};

struct Dtype {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  Dtype dtype;
  std::int64_t* shape;
  std::int64_t* strides;  ///< null: contiguous
  std::uint64_t byte_offset;
};

struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Version {
  std::uint32_t major, minor;
};

struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Tensor tensor;
};

/// The table of functions behind a type's `__dlpack_c_exchange_api__`.
struct ExchangeApi {
  Version version;
  void* earlier;
  void* allocate;
  void* managed_from_object;
  void* managed_to_object;
  int (*borrow)(void* object, Tensor* out);
  void* current_work_stream;
};

}  // namespace ingot_python::dlpack
