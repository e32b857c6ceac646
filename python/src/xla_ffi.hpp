// The part of XLA's foreign function interface that a handler needs: declarations of its stable C
// ABI (openxla/xla, xla/ffi/api/c_api.h, version 0.x), so that building needs no JAX.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ingot_python::xla {

struct Error;             // made by XLA
struct ExecutionContext;  // of one call

enum class DataType : int {
  pred = 1,
  s32 = 4,
  s64 = 5,
  u32 = 8,
  f16 = 10,
  f32 = 11,
  f64 = 12,
  bf16 = 16
};
enum class ErrorCode : int { invalid_argument = 3, unimplemented = 12, internal = 13 };
enum class Stage : int { execute = 3 };
constexpr int attribute_is_scalar = 3;
constexpr int extension_is_metadata = 1;
constexpr std::uint32_t trait_command_buffer_compatible = 1;

struct Extension {
  std::size_t struct_size;
  int type;
  Extension* next;
};

struct ApiVersion {
  std::size_t struct_size;
  Extension* extensions;
  int major, minor;
};

struct Metadata {
  std::size_t struct_size;
  ApiVersion api_version;
  std::uint32_t traits;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

struct ErrorCreateArgs {
  std::size_t struct_size;
  Extension* extensions;
  const char* message;
  ErrorCode code;
};

struct StreamGetArgs {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  void* stream;  ///< out
};

struct DeviceOrdinalGetArgs {
  std::size_t struct_size;
  Extension* extensions;
  ExecutionContext* context;
  std::int32_t device_ordinal;  ///< out
};

struct Api {
  std::size_t struct_size;
  Extension* extensions;
  ApiVersion version;
  const void* internal;
  Error* (*error_create)(ErrorCreateArgs*);
  void* error_get_message;
  void* error_destroy;
  void* handler_register;
  Error* (*stream_get)(StreamGetArgs*);
  void* unused[12];  ///< types, state, memory, threads, futures, run identifiers
  Error* (*device_ordinal_get)(DeviceOrdinalGetArgs*);
};

struct Buffer {
  std::size_t struct_size;
  Extension* extensions;
  DataType dtype;
  void* data;
  std::int64_t rank;
  std::int64_t* dims;
};

struct Scalar {
  DataType dtype;
  void* value;
};

struct Name {
  const char* text;
  std::size_t length;
};

/// Arguments and results alike.
struct Values {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  int* types;
  void** values;
};

struct Attributes {
  std::size_t struct_size;
  Extension* extensions;
  std::int64_t size;
  int* types;
  Name** names;
  void** values;
};

struct CallFrame {
  std::size_t struct_size;
  Extension* extensions;
  const Api* api;
  ExecutionContext* context;
  Stage stage;
  Values arguments;
  Values results;
  Attributes attributes;
  void* future;
};

}  // namespace ingot_python::xla
