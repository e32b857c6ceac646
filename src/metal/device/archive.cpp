// Pipelines through MTLBinaryArchive: the machine code of a kernel, kept between processes.
//
// Metal reads and writes archives as files that it opens by name. The cache keeps their bytes, so
// that Metal is given no file that another could have exchanged: only one in a folder of this
// process, made for the moment.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/regular_file.hpp"
#include "metal/device/device.hpp"

namespace ingot::metal {
namespace {

constexpr off_t most_bytes = 64 << 20;

/// A file that does not exist yet, in a private folder of its own; both go with this object.
class TemporaryFile {
 public:
  TemporaryFile() {
    std::error_code error;
    std::string name = (std::filesystem::temp_directory_path(error) / "ingot-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) return;
    folder_ = std::move(name);
    path_ = folder_ + "/kernel.metalarchive";
  }
  ~TemporaryFile() {
    if (folder_.empty()) return;
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  explicit operator bool() const { return !folder_.empty(); }
  const std::string& path() const { return path_; }

  bool write(std::span<const std::byte> bytes) const {
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
    Descriptor file(::open(path_.c_str(), flags, 0600));
    return file && write_fully(file, bytes) && file.close();
  }

  std::vector<std::byte> read() const {
    const RegularFile file = open_regular_file(AT_FDCWD, path_.c_str());
    if (!file || file.status.st_size > most_bytes) return {};
    std::vector<std::byte> bytes(static_cast<std::size_t>(file.status.st_size));
    return read_fully(file, bytes) ? bytes : std::vector<std::byte>();
  }

 private:
  std::string folder_, path_;
};

/// The archive in the file `path`, or, with path empty, a new one. Null where the file is none.
NS::SharedPtr<MTL::BinaryArchive> open_archive(MTL::Device* device, const std::string& path) {
  const auto descriptor = NS::TransferPtr(MTL::BinaryArchiveDescriptor::alloc()->init());
  if (!path.empty()) descriptor->setUrl(NS::URL::fileURLWithPath(to_string(path)));
  NS::Error* error = nullptr;
  return NS::TransferPtr(device->newBinaryArchive(descriptor.get(), &error));
}

/// The compiler is told how many threads a threadgroup has: it then finds registers for all of
/// them.
NS::SharedPtr<MTL::ComputePipelineDescriptor> describe(MTL::Function* function,
                                                       std::int64_t threads) {
  auto descriptor = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
  descriptor->setComputeFunction(function);
  descriptor->setThreadGroupSizeIsMultipleOfThreadExecutionWidth(true);
  descriptor->setMaxTotalThreadsPerThreadgroup(static_cast<NS::UInteger>(threads));
  return descriptor;
}

/// The pipeline where the archive holds it, else null.
NS::SharedPtr<MTL::ComputePipelineState> load(MTL::Device* device, MTL::Function* function,
                                              std::int64_t threads,
                                              std::span<const std::byte> bytes) {
  const TemporaryFile file;
  if (!file || !file.write(bytes)) return {};
  const auto archive = open_archive(device, file.path());
  if (!archive) return {};
  const auto descriptor = describe(function, threads);
  descriptor->setBinaryArchives(NS::Array::array(archive.get()));
  NS::Error* error = nullptr;
  return NS::TransferPtr(device->newComputePipelineState(
      descriptor.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
}

/// The bytes of an archive with this pipeline; none where that fails, and the next process compiles
/// again.
std::vector<std::byte> archive_of(MTL::Device* device, MTL::Function* function,
                                  std::int64_t threads) {
  const TemporaryFile file;
  const auto archive = open_archive(device, "");
  const auto descriptor = describe(function, threads);
  NS::Error* error = nullptr;
  if (!file || !archive || !archive->addComputePipelineFunctions(descriptor.get(), &error) ||
      !archive->serializeToURL(NS::URL::fileURLWithPath(to_string(file.path())), &error)) {
    return {};
  }
  return file.read();
}

}  // namespace

NS::SharedPtr<MTL::ComputePipelineState> make_pipeline(MTL::Device* device, MTL::Function* function,
                                                       std::int64_t threads, const DiskCache& cache,
                                                       const std::string& key, NS::Error** error) {
  if (const auto bytes = cache.find(key)) {
    if (auto state = load(device, function, threads, *bytes)) return state;
  }
  const auto descriptor = describe(function, threads);
  auto state = NS::TransferPtr(
      device->newComputePipelineState(descriptor.get(), MTL::PipelineOptionNone, nullptr, error));
  if (state && !cache.folder().empty()) {
    const std::vector<std::byte> bytes = archive_of(device, function, threads);
    if (!bytes.empty()) cache.store(key, bytes);
  }
  return state;
}

}  // namespace ingot::metal
