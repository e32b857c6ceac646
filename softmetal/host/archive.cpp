// MTLBinaryArchive: which functions were compiled before, kept in a file.
#include <fstream>

#include "pipeline.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::string_view file_header = "softmetal binary archive 1";
constexpr const char* archive_error_domain = "MTLBinaryArchiveDomain";
constexpr std::int64_t error_invalid_file = 1;
constexpr std::int64_t error_unexpected_element = 2;
constexpr std::int64_t error_internal = 4;

class ArchiveDescriptor : public Object {
 public:
  Ref<Url> url;
};

Ref<BinaryArchive> new_archive(Device& device, ArchiveDescriptor* descriptor, ErrorSlot error) {
  Ref<BinaryArchive> archive = make<BinaryArchive>(&device);
  if (descriptor == nullptr || !descriptor->url) {
    return archive;
  }
  std::ifstream file(descriptor->url->path());
  std::string line;
  if (!std::getline(file, line) || line != file_header) {
    error.set(make_error(archive_error_domain, error_invalid_file,
                         descriptor->url->path() + " is not a binary archive"));
    return nullptr;
  }
  while (std::getline(file, line)) {
    archive->add(line);
  }
  return archive;
}

bool add_functions(BinaryArchive& self, PipelineDescriptor* descriptor, ErrorSlot error) {
  if (descriptor == nullptr || !descriptor->function) {
    error.set(make_error(archive_error_domain, error_unexpected_element,
                         "the descriptor has no compute function"));
    return false;
  }
  self.add(descriptor->function->identity());
  return true;
}

bool serialise(BinaryArchive& self, Url* url, ErrorSlot error) {
  std::ofstream file(url != nullptr ? url->path() : std::string());
  file << file_header << '\n';
  for (const std::string& entry : self.entries()) {
    file << entry << '\n';
  }
  if (file.flush()) {
    return true;
  }
  error.set(make_error(archive_error_domain, error_internal,
                       text("cannot write ", url != nullptr ? url->path() : "to a nil URL")));
  return false;
}

}  // namespace

void define_archive() {
  Definition<ArchiveDescriptor>("MTLBinaryArchiveDescriptor", class_of<Object>)
      .allocatable()
      .property<&ArchiveDescriptor::url>("url", {11, 0});
  Definition<BinaryArchive>("MTLBinaryArchive", class_of<Object>)
      .property<&BinaryArchive::label>("label", {11, 0})
      .method<&BinaryArchive::device>("device", {11, 0})
      .method<&add_functions>("addComputePipelineFunctionsWithDescriptor:error:", {11, 0})
      .method<&serialise>("serializeToURL:error:", {11, 0});
  Definition<Device>().method<&new_archive>("newBinaryArchiveWithDescriptor:error:", {11, 0});
}

}  // namespace softmetal
