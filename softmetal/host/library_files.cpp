// Libraries that come from files, and the default library.
#include <fstream>

#include "dispatch_queue.hpp"
#include "runtime.hpp"
#include "shader_library.hpp"

namespace softmetal {
namespace {

constexpr std::int64_t error_unsupported = 1;
constexpr std::int64_t error_file_not_found = 6;

// Compiled libraries hold Apple's intermediate code, which nothing here can run; files of MSL text
// can.
Ref<ShaderLibrary> library_of_text(Device& device, const std::string& content, ErrorSlot error) {
  if (content.starts_with("MTLB")) {
    error.set(make_error(library_error_domain, error_unsupported,
                         "softmetal compiles MSL text; it cannot run a compiled metallib"));
    return nullptr;
  }
  return compile_text(device, content, nullptr, error);
}

Ref<ShaderLibrary> library_of_path(Device& device, const std::string& path, ErrorSlot error) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    error.set(make_error(library_error_domain, error_file_not_found, path + " cannot be read"));
    return nullptr;
  }
  std::ostringstream content;
  content << file.rdbuf();
  return library_of_text(device, content.str(), error);
}

Ref<ShaderLibrary> new_library_with_url(Device& self, Url* url, ErrorSlot error) {
  return library_of_path(self, url != nullptr ? url->path() : std::string(), error);
}
Ref<ShaderLibrary> new_library_with_file(Device& self, String* path, ErrorSlot error) {
  return library_of_path(self, value_of(path), error);
}
Ref<ShaderLibrary> new_library_with_data(Device& self, void* data, ErrorSlot error) {
  return library_of_text(self, bytes_of_data(data), error);
}

// SOFTMETAL_DEFAULT_LIBRARY names the .metal file that a Mac build would have compiled into the
// program's default.metallib.
Ref<ShaderLibrary> default_library(Device& self) {
  const std::string path = environment("SOFTMETAL_DEFAULT_LIBRARY", "");
  if (path.empty()) {
    return nullptr;
  }
  Error* error = nullptr;
  Ref<ShaderLibrary> library = library_of_path(self, path, ErrorSlot(&error));
  if (!library) {
    softmetal::error("default-library", text("SOFTMETAL_DEFAULT_LIBRARY=", path, ": ",
                                             error->localized_description()->value()));
  }
  return library;
}

}  // namespace

void define_library_files() {
  Definition<Device>()
      .method<&new_library_with_url>("newLibraryWithURL:error:", {10, 13})
      .method<&new_library_with_data>("newLibraryWithData:error:")
      .method<&new_library_with_file>("newLibraryWithFile:error:")
      .method<&default_library>("newDefaultLibrary");
}

}  // namespace softmetal
