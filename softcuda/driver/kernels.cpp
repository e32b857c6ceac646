// Libraries, kernels, launches, tensor maps.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>

#include "driver/objects.hpp"
#include "exec/launch.hpp"
#include "exec/tensor_map.hpp"

using softcuda::Kernel;
using softcuda::Library;
using softcuda::Stream;

namespace {

struct Attribute {
  enum Id : std::uint32_t { cluster_dimension = 4, programmatic_stream_serialization = 6 };
  std::uint32_t id, padding, value[16];
};

struct Config {
  unsigned grid[3], block[3], shared_bytes;
  Stream* stream;
  const Attribute* attributes;
  unsigned attribute_count;
};

/// The bytes of a shared object that starts at `image`: its section headers stand at the end.
std::size_t bytes_of(const void* image) {
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return 0;
  return header.e_shoff + std::size_t{header.e_shentsize} * header.e_shnum;
}

/// Through a file of its own: dlopen takes equal names for the same object.
void* open_object(const void* image, std::size_t bytes) {
  std::error_code error;
  const auto folder = std::filesystem::temp_directory_path(error);
  std::string path = ((error ? "/tmp" : folder) / "softcuda-kernel-XXXXXX").string();
  const int file = mkstemp(path.data());
  if (file < 0) return nullptr;
  void* object = nullptr;
  if (write(file, image, bytes) == static_cast<ssize_t>(bytes)) {
    object = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  close(file);
  unlink(path.c_str());
  return object;
}

/// A launch that a graph may repeat keeps its arguments.
class Arguments {
 public:
  Arguments(const Kernel& kernel, void** arguments) {
    for (unsigned i = 0; const std::uint64_t size = kernel.size_of_argument(i); ++i) {
      copies_.emplace_back((size + 63) / 64);
      std::memcpy(copies_.back().data(), arguments[i], size);
    }
    for (auto& copy : copies_) pointers_.push_back(copy.data());
  }
  void** get() { return pointers_.data(); }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<std::vector<Line>> copies_;
  std::vector<void*> pointers_;
};

/// 0 for a cluster that is not one.
unsigned cluster_of(const Config& config) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < config.attribute_count; ++i) {
    const Attribute& attribute = config.attributes[i];
    if (attribute.id != Attribute::cluster_dimension) continue;
    cluster = attribute.value[1] == 1 && attribute.value[2] == 1 ? attribute.value[0] : 0;
  }
  return cluster <= 8 && cluster > 0 && config.grid[0] % cluster == 0 ? cluster : 0;
}

bool is_valid(const Config& config, const Kernel& kernel) {
  const std::uint64_t threads = std::uint64_t{config.block[0]} * config.block[1] * config.block[2];
  const auto dynamic = static_cast<int>(config.shared_bytes);
  return threads > 0 && threads <= 1024 && config.grid[0] > 0 && config.grid[1] > 0 &&
         config.grid[2] > 0 && config.grid[1] < 65536 && config.grid[2] < 65536 && dynamic >= 0 &&
         dynamic <= kernel.max_dynamic_bytes && cluster_of(config) != 0 &&
         (cluster_of(config) == 1 || softcuda::device_model().major >= 9);
}

int execute(const Config& config, const Kernel& kernel, void** arguments) {
  softcuda::Launch launch;
  launch.kernel = kernel.name;
  launch.entry = kernel.entry;
  launch.arguments = arguments;
  launch.grid = {config.grid[0], config.grid[1], config.grid[2]};
  launch.block = {config.block[0], config.block[1], config.block[2]};
  launch.cluster = cluster_of(config);
  launch.dynamic_bytes = config.shared_bytes;
  return softcuda::execute(launch) ? softcuda::success : softcuda::illegal_address;
}

}  // namespace

CUDA_API int cuLibraryLoadData(Library** library, const void* image, int*, void**, unsigned, int*,
                               void**, unsigned) {
  const std::size_t bytes = bytes_of(image);
  if (bytes == 0) return softcuda::invalid_image;
  auto loaded = std::make_unique<Library>();
  loaded->object = open_object(image, bytes);
  if (loaded->object == nullptr) return softcuda::invalid_image;
  *library = loaded.release();
  return softcuda::success;
}

CUDA_API int cuLibraryUnload(Library* library) {
  dlclose(library->object);
  delete library;
  return softcuda::success;
}

CUDA_API int cuLibraryGetKernel(Kernel** kernel, Library* library, const char* name) {
  Kernel& found = library->kernel;
  const std::string suffix = name;
  found.entry = reinterpret_cast<void (*)(void**)>(
      dlsym(library->object, ("softcuda_entry_" + suffix).c_str()));
  found.size_of_argument = reinterpret_cast<std::uint64_t (*)(unsigned)>(
      dlsym(library->object, ("softcuda_size_" + suffix).c_str()));
  if (found.entry == nullptr || found.size_of_argument == nullptr) return softcuda::not_found;
  const auto* const label =
      static_cast<const char* const*>(dlsym(library->object, "softcuda_label"));
  found.name = label == nullptr ? suffix : *label;
  found.library = library;
  *kernel = &found;
  return softcuda::success;
}

CUDA_API int cuKernelGetFunction(Kernel** function, Kernel* kernel) {
  *function = kernel;
  return softcuda::success;
}

CUDA_API int cuKernelSetAttribute(int attribute, int value, Kernel* kernel, int) {
  constexpr int max_dynamic_shared_bytes = 8;
  if (attribute != max_dynamic_shared_bytes || value < 0 ||
      value > softcuda::device_model().shared_bytes) {
    return softcuda::invalid_value;
  }
  kernel->max_dynamic_bytes = value;
  return softcuda::success;
}

CUDA_API int cuLaunchKernelEx(const Config* config, Kernel* kernel, void** arguments, void**) {
  if (!is_valid(*config, *kernel)) return softcuda::invalid_value;
  auto kept = std::make_shared<Arguments>(*kernel, arguments);
  return softcuda::submit(config->stream,
                          [kept, kernel, copy = *config,
                           attributes = std::vector<Attribute>(
                               config->attributes, config->attributes + config->attribute_count)] {
                            Config launch = copy;
                            launch.attributes = attributes.data();
                            return execute(launch, *kernel, kept->get());
                          });
}

CUDA_API int cuTensorMapEncodeTiled(void* map, int type, std::uint32_t rank, void* base,
                                    const std::uint64_t* sizes, const std::uint64_t* strides,
                                    const std::uint32_t* box, const std::uint32_t* element_strides,
                                    int interleave, int swizzle, int, int fill) {
  constexpr int f16 = 6, f32 = 7, bf16 = 9;
  const unsigned element = type == f32 ? 4 : 2;
  if ((type != f16 && type != f32 && type != bf16) || rank == 0 || rank > 5 || interleave != 0 ||
      swizzle < 0 || swizzle > softcuda::swizzle_128 || fill != 0 ||
      reinterpret_cast<std::uint64_t>(base) % 16 != 0) {
    return softcuda::invalid_value;
  }
  softcuda::TensorMapFields fields{};
  fields.magic = softcuda::TensorMapFields::right;
  fields.base = reinterpret_cast<std::uint64_t>(base);
  fields.rank = static_cast<std::uint8_t>(rank);
  fields.element_bytes = static_cast<std::uint8_t>(element);
  fields.swizzle = static_cast<std::uint8_t>(swizzle);
  fields.type = static_cast<std::uint8_t>(type);
  for (std::uint32_t i = 0; i < 5; ++i) {
    const bool is_used = i < rank;
    if (is_used && (sizes[i] == 0 || sizes[i] >= 1ull << 32 || box[i] == 0 || box[i] > 256 ||
                    element_strides[i] != 1)) {
      return softcuda::invalid_value;
    }
    fields.sizes[i] = is_used ? static_cast<std::uint32_t>(sizes[i]) : 1;
    fields.box[i] = is_used ? static_cast<std::uint16_t>(box[i]) : std::uint16_t{1};
    if (i == 0 || !is_used) continue;
    if (strides[i - 1] % 16 != 0 || strides[i - 1] >= 1ull << 40) return softcuda::invalid_value;
    fields.strides[i] = strides[i - 1];
  }
  fields.strides[0] = element;
  const unsigned row = box[0] * element, widest = 16u << swizzle;
  if (row % 16 != 0 || (swizzle != softcuda::swizzle_none && row > widest)) {
    return softcuda::invalid_value;
  }
  std::memset(map, 0, 128);
  std::memcpy(map, &fields, sizeof fields);
  return softcuda::success;
}
