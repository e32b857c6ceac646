// The seam between the host objects of softmetal and its MSL side: text in, reflected functions and
// runnable pipelines out. Nothing here knows of Objective-C; nothing behind it knows of the host.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace softmetal::msl {

inline constexpr int kMaxBuffers = 31;           ///< indices 0..30 of [[buffer(n)]]
inline constexpr int kMaxThreadgroupSlots = 31;  ///< indices 0..30 of [[threadgroup(n)]]
inline constexpr std::uint32_t kSimdWidth = 32;  ///< threads of a simdgroup

struct Size3 {
  std::uint32_t x = 1, y = 1, z = 1;
  friend bool operator==(const Size3&, const Size3&) = default;
  std::uint64_t count() const { return std::uint64_t{x} * y * z; }
};

struct CompileOptions {
  std::string language_version = "3.2";  ///< "3.0", "3.1", "3.2" or "4.0"; sets __METAL_VERSION__
  bool fast_math = false;                ///< plain math functions mean fast:: instead of precise::
  std::vector<std::pair<std::string, std::string>> macros;  ///< name, replacement
};

/// One message of the compiler or of a check of ours; line and column are the user's own.
struct Diagnostic {
  enum class Severity { error, warning, note };
  Severity severity = Severity::error;
  std::string file;  ///< "program_source" for the given text
  int line = 0;
  int column = 0;
  std::string text;
};

/// The text was rejected. what() is the whole log, one "program_source:LINE:COLUMN: error: ..." a
/// line.
class CompileError : public std::runtime_error {
 public:
  CompileError(const std::string& log, std::vector<Diagnostic> diagnostics);
  const std::vector<Diagnostic>& diagnostics() const { return diagnostics_; }

 private:
  std::vector<Diagnostic> diagnostics_;
};

enum class BindingKind { buffer, threadgroup, texture, sampler };
enum class Access { read, read_write };
enum class AddressSpace { device, constant, threadgroup };

/// One argument of a kernel that the host must bind.
struct Binding {
  BindingKind kind = BindingKind::buffer;
  std::uint32_t index = 0;
  std::string name;        ///< the parameter's name
  std::string type;        ///< the pointee's type, as written (template arguments substituted not)
  std::uint32_t size = 0;  ///< bytes of one pointee; 0 for void
  std::uint32_t alignment = 1;  ///< of the pointee, bytes
  Access access = Access::read_write;
  AddressSpace address_space = AddressSpace::device;
  bool by_reference = false;  ///< T& (at least `size` bytes must be bound), not T*
  bool active = true;  ///< false: switched off by a [[function_constant]] that is false or unset
};

enum class ScalarType {
  bool_,
  char_,
  uchar,
  short_,
  ushort,
  int_,
  uint,
  long_,
  ulong,
  half,
  float_,
  bfloat
};

/// Metal's name of the type ("bool", "float", "uint", ...) with the vector width ("float4")
/// appended.
std::string scalar_type_name(ScalarType type, int width);
std::size_t scalar_type_size(ScalarType type);

struct FunctionConstant {
  std::uint32_t index = 0;
  std::string name;
  ScalarType type = ScalarType::bool_;
  int width = 1;          ///< 1 for scalars, 2..4 for vectors
  bool required = false;  ///< used without is_function_constant_defined() to guard it
};

struct FunctionInfo {
  std::string name;  ///< as newFunction finds it: host_name or the function's own
  std::vector<Binding> bindings;
  std::vector<FunctionConstant>
      constants;                           ///< of the whole library; Metal reports them by function
  std::uint32_t max_total_threads = 1024;  ///< [[max_total_threads_per_threadgroup(n)]], else 1024
  bool uses_simdgroup_matrix = false;
  int line = 0;  ///< of the function in the user's text
};

/// A function constant's value: the bytes of one scalar or vector of the declared type.
struct ConstantValue {
  ScalarType type = ScalarType::bool_;
  std::vector<std::byte> bytes;
};
/// Keyed by index and by name, as MTLFunctionConstantValues is; a name wins over an index.
struct ConstantValues {
  std::map<std::uint32_t, ConstantValue> by_index;
  std::map<std::string, ConstantValue> by_name;
};

class Pipeline;

/// A compiled text: its kernels can be listed, reflected and specialised. Immutable, thread safe.
class Library {
 public:
  /// Compiles MSL text. Throws CompileError when the text is rejected, std::runtime_error when the
  /// compiler cannot be run.
  static std::shared_ptr<Library> compile(std::string_view source, const CompileOptions& options);

  virtual ~Library() = default;
  virtual std::vector<std::string> function_names() const = 0;
  /// Throws std::out_of_range when there is no such kernel.
  virtual const FunctionInfo& info(std::string_view name) const = 0;
  virtual const std::vector<Diagnostic>& warnings() const = 0;

  /// What to build into a pipeline. Instrumented code can be dispatched with checks and counters;
  /// plain code is faster and cannot. Throws CompileError (a required constant is missing or has
  /// the wrong type, or the specialised text is rejected), std::out_of_range (no such kernel).
  virtual std::shared_ptr<const Pipeline> specialise(std::string_view name,
                                                     const ConstantValues& constants,
                                                     bool instrumented) const = 0;
};

/// A specialised kernel, ready to run. Immutable, thread safe.
class Pipeline {
 public:
  virtual ~Pipeline() = default;
  virtual const FunctionInfo& info() const = 0;  ///< `active` reflects the constants given
  virtual bool instrumented() const = 0;
  virtual std::uint32_t static_threadgroup_bytes() const = 0;
  std::uint32_t thread_execution_width() const { return kSimdWidth; }
  std::uint32_t max_total_threads_per_threadgroup() const { return info().max_total_threads; }
};

/// What is bound at one [[buffer(n)]]; setBytes data is a slot with writable = false.
struct BufferSlot {
  std::byte* data = nullptr;  ///< null: nothing bound
  std::size_t bytes = 0;      ///< of the whole buffer
  std::string label;          ///< for findings; may be empty
  bool writable = true;
  std::size_t start = 0;  ///< what the kernel's argument points to; it may also go back from there
};

struct DispatchInput {
  Size3 threadgroups;                     ///< threadgroups of the grid
  Size3 threads_per_threadgroup;          ///< of a full threadgroup
  std::optional<Size3> threads_per_grid;  ///< set: the exact grid, edge threadgroups are smaller
  std::array<BufferSlot, kMaxBuffers> buffers;
  std::array<std::size_t, kMaxThreadgroupSlots>
      threadgroup_bytes{};  ///< setThreadgroupMemoryLength
  /// Other memory that kernels may reach by an address stored in a buffer (useResource).
  std::vector<BufferSlot> resident;
};

enum class FindingKind {
  unbound_buffer,        ///< an active binding has no buffer, or it is too small for its type
  out_of_bounds,         ///< an access outside the buffer or threadgroup memory
  misaligned,            ///< an access not aligned to its type
  write_to_constant,     ///< a store to constant or read-only memory
  uninitialised_read,    ///< threadgroup memory read before it was written
  divergent_barrier,     ///< not all threads reached the same barrier
  divergent_collective,  ///< a simdgroup operation without all of its threads
  inactive_lane,         ///< a shuffle read a thread that took no part
  threadgroup_race,      ///< two threads, one location, one write, no barrier
  device_race,           ///< the same in device memory
  wild_pointer,          ///< an access through a pointer that belongs to nothing
  timeout,               ///< the step budget ran out
};
std::string_view finding_kind_name(FindingKind kind);

struct Finding {
  FindingKind kind = FindingKind::wild_pointer;
  std::string kernel;
  std::string file;
  int line = 0;                ///< in the user's text; 0 when unknown
  Size3 threadgroup{0, 0, 0};  ///< threadgroup_position_in_grid
  Size3 thread{0, 0, 0};       ///< thread_position_in_threadgroup
  int buffer_index = -1;       ///< [[buffer(n)]] or [[threadgroup(n)]]; -1: none
  std::string buffer_label;
  std::int64_t offset = 0;  ///< bytes from the start of what is bound
  std::uint64_t count = 1;  ///< how often the same finding was seen (one is kept by kind and line)
  std::string text;         ///< the whole finding as one line
};

/// Sums over a dispatch. Matrix, barrier and simd counts are always kept; the others only with
/// ExecOptions::counters on an instrumented pipeline.
struct Counters {
  std::uint64_t threads = 0, threadgroups = 0;
  std::uint64_t matrix_operations = 0;  ///< 8x8x8 multiply-accumulates
  std::uint64_t barriers = 0;           ///< threadgroup barriers, once a threadgroup
  std::uint64_t simdgroup_barriers = 0;
  std::uint64_t simd_operations = 0;  ///< shuffles and reductions, once a simdgroup
  std::uint64_t atomics = 0;
  std::uint64_t device_bytes_read = 0, device_bytes_written = 0;
  std::uint64_t threadgroup_bytes_read = 0, threadgroup_bytes_written = 0;
  std::uint64_t constant_bytes_read = 0;
  std::uint64_t float_operations = 0, integer_operations = 0, special_operations = 0;
  Counters& operator+=(const Counters& other);
};

struct ExecOptions {
  bool bounds = true;  ///< needs an instrumented pipeline, as do races and uninitialised
  bool races = true;
  bool uninitialised = true;
  bool counters = true;
  bool uses = false;                ///< fill DispatchResult::uses; needs an instrumented pipeline
  std::uint64_t schedule_seed = 0;  ///< 0: in order; else a random schedule
  unsigned workers = 0;             ///< 0: one a core
  std::uint64_t step_budget = 0;    ///< accesses a threadgroup may make; 0: no limit
  std::size_t max_findings = 100;
};
/// Defaults, then SOFTMETAL_SCHEDULE ("inorder" or "random:SEED") and SOFTMETAL_WORKERS (a number).
ExecOptions exec_options_from_environment();

/// Bytes [begin, end) from BufferSlot::data.
struct ByteRange {
  std::uint64_t begin = 0, end = 0;
};
/// What a dispatch touched of one buffer, with ExecOptions::uses. Sorted, without overlap.
struct BufferUse {
  std::vector<ByteRange> read, written, atomic;
};

struct DispatchResult {
  std::vector<Finding> findings;
  Counters counters;
  std::array<BufferUse, kMaxBuffers> uses;  ///< by buffer index
};

/// Runs a kernel to its end. Never throws on what the kernel does (that is a finding); throws
/// std::invalid_argument on an impossible grid (zero or too many threads, threadgroup memory > 32
/// KB).
DispatchResult dispatch(const Pipeline& pipeline, const DispatchInput& input,
                        const ExecOptions& options);

}  // namespace softmetal::msl
