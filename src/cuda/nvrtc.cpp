#include "cuda/nvrtc.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string_view>
#include <system_error>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/regular_file.hpp"

namespace ingot::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* library_names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
constexpr int oldest_version = 12000;  // sm_90a

/// What lies in a folder; nothing if it cannot be read. By the system's own calls:
/// std::filesystem::directory_iterator of libstdc++ ends the process if memory runs out.
std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(folder.c_str()), closedir);
  if (open == nullptr) return files;
  while (const dirent* entry = readdir(open.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") files.push_back(folder / name);
  }
  return files;
}

/// site-packages of every Python below `prefix`.
void append_site_packages(std::vector<fs::path>& folders, const fs::path& prefix) {
  if (prefix.empty()) return;
  for (const fs::path& file : files_in(prefix / "lib")) {
    if (!file.filename().string().starts_with("python3")) continue;
    folders.push_back(file / "site-packages");
    folders.push_back(file / "dist-packages");
  }
}

/// The folder this library or program lies in: a wheel of ingot lies beside the wheels it needs.
fs::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0) return {};
  std::error_code error;
  return fs::weakly_canonical(info.dli_fname == nullptr ? "" : info.dli_fname, error).parent_path();
}

/// Folders beyond the loader's own path.
std::vector<fs::path> folders() {
  std::vector<fs::path> result;
  for (const char* name : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const std::string home = environment(name); !home.empty()) {
      result.push_back(fs::path(home) / "lib64");
    }
  }
  result.emplace_back("/usr/local/cuda/lib64");
  std::vector<fs::path> packages;
  if (const fs::path own = own_folder(); !own.empty()) packages.push_back(own.parent_path());
  append_site_packages(packages, environment("VIRTUAL_ENV"));
  append_site_packages(packages, environment("CONDA_PREFIX"));
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  append_site_packages(packages, program.parent_path().parent_path());
  for (const fs::path& package : packages) {
    result.push_back(package / "nvidia" / "cu13" / "lib");
    result.push_back(package / "nvidia" / "cuda_nvrtc" / "lib");
  }
  return result;
}

void* open_library(std::string& path) {
  if (const std::string chosen = environment("INGOT_LIBNVRTC"); !chosen.empty()) {
    path = chosen;
    const bool is_none = is_no_regular_file(chosen.c_str());
    void* library = is_none ? nullptr : dlopen(chosen.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      throw Error(Code::device_error, "nvrtc: INGOT_LIBNVRTC: cannot open " + chosen);
    }
    return library;
  }
  std::vector<fs::path> places{{}};
  for (fs::path& folder : folders()) places.push_back(std::move(folder));
  for (const fs::path& folder : places) {
    for (const char* name : library_names) {
      path = (folder / name).string();
      if (void* library = dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL)) return library;
    }
  }
  throw Error(
      Code::device_error,
      "nvrtc: libnvrtc.so.13 or .12 is not installed, or not found: neither on the loader's "
      "path, nor below CUDA_HOME, /usr/local/cuda or this environment's site-packages; "
      "`pip install nvidia-cuda-nvrtc` installs it, INGOT_LIBNVRTC names a file");
}

template <class F>
void load(void* library, F*& function, const char* name, const std::string& path) {
  function = reinterpret_cast<F*>(dlsym(library, name));
  if (function == nullptr) {
    throw Error(Code::device_error, "nvrtc: " + path + " has no function " + name);
  }
}

/// NVRTC opens a second library by its bare name, which the loader finds in a wheel's folder only
/// where it is open already.
void open_builtins(const void* function_of_nvrtc) {
  Dl_info info{};
  if (dladdr(function_of_nvrtc, &info) == 0 || info.dli_fname == nullptr) return;
  for (const fs::path& file : files_in(fs::path(info.dli_fname).parent_path())) {
    if (file.filename().string().starts_with("libnvrtc-builtins.so")) {
      dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
  }
}

/// The build id in a segment of notes, as hexadecimal digits; "" where it is not there.
std::string build_id_in(const char* notes, std::size_t bytes) {
  const auto aligned = [](std::size_t size) { return (size + 3) / 4 * 4; };
  ElfW(Nhdr) note{};
  for (std::size_t at = 0; at + sizeof note <= bytes;) {
    std::memcpy(&note, notes + at, sizeof note);
    const std::size_t name = at + sizeof note, text = name + aligned(note.n_namesz);
    at = text + aligned(note.n_descsz);
    if (at > bytes || note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 ||
        std::memcmp(notes + name, "GNU", 4) != 0) {
      continue;
    }
    std::string id;
    for (std::size_t i = 0; i < note.n_descsz; ++i) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(notes[text + i]));
      id += digits;
    }
    return id;
  }
  return {};
}

/// The build id of the library that a function lies in: linkers write a hash of the content there.
std::string build_id_of(const void* function) {
  struct Search {
    std::uintptr_t address;
    std::string id;
  } search{reinterpret_cast<std::uintptr_t>(function), {}};
  const auto look = [](dl_phdr_info* object, std::size_t, void* pointer) {
    auto& wanted = *static_cast<Search*>(pointer);
    const std::span segments(object->dlpi_phdr, object->dlpi_phnum);
    if (std::ranges::none_of(segments, [&](const auto& segment) {
          return segment.p_type == PT_LOAD &&
                 wanted.address - (object->dlpi_addr + segment.p_vaddr) < segment.p_memsz;
        })) {
      return 0;
    }
    for (const auto& segment : segments) {
      if (segment.p_type != PT_NOTE || !wanted.id.empty()) continue;
      wanted.id = build_id_in(reinterpret_cast<const char*>(object->dlpi_addr + segment.p_vaddr),
                              segment.p_memsz);
    }
    return 1;
  };
  dl_iterate_phdr(look, &search);
  return search.id;
}

/// What tells one build of NVRTC from another of the same version.
std::string build_of(const void* function) {
  if (std::string id = build_id_of(function); !id.empty()) return id;
  Dl_info info{};
  struct stat file{};
  if (dladdr(function, &info) == 0 || ::stat(info.dli_fname, &file) != 0) return {};
  return std::to_string(file.st_size) + " bytes of " + std::to_string(file.st_mtime);
}

}  // namespace

std::shared_ptr<const Nvrtc> Nvrtc::open() {
  std::string path;
  void* library = open_library(path);
  return std::shared_ptr<const Nvrtc>(new Nvrtc(library, path));
}

Nvrtc::Nvrtc(void* library, std::string path) : path_(std::move(path)) {
  load(library, nvrtcVersion_, "nvrtcVersion", path_);
  load(library, nvrtcCreateProgram_, "nvrtcCreateProgram", path_);
  load(library, nvrtcDestroyProgram_, "nvrtcDestroyProgram", path_);
  load(library, nvrtcCompileProgram_, "nvrtcCompileProgram", path_);
  load(library, nvrtcGetCUBINSize_, "nvrtcGetCUBINSize", path_);
  load(library, nvrtcGetCUBIN_, "nvrtcGetCUBIN", path_);
  load(library, nvrtcGetProgramLogSize_, "nvrtcGetProgramLogSize", path_);
  load(library, nvrtcGetProgramLog_, "nvrtcGetProgramLog", path_);
  load(library, nvrtcGetErrorString_, "nvrtcGetErrorString", path_);
  int major = 0;
  int minor = 0;
  check(nvrtcVersion_(&major, &minor), "nvrtcVersion");
  version_ = major * 1000 + minor * 10;
  if (version_ < oldest_version) {
    throw Error(Code::device_error, "nvrtc: must be version 12.0 or newer, " + path_ + " is " +
                                        std::to_string(major) + "." + std::to_string(minor));
  }
  identity_ = "nvrtc " + std::to_string(major) + "." + std::to_string(minor) + ", build " +
              build_of(reinterpret_cast<const void*>(nvrtcVersion_));
}

void Nvrtc::check(Result result, const char* action) const {
  if (result == 0) return;
  throw Error(Code::compile_failed,
              "nvrtc: " + std::string(action) + ": " + nvrtcGetErrorString_(result));
}

std::string Nvrtc::log_of(Program program) const {
  std::size_t size = 0;
  if (nvrtcGetProgramLogSize_(program, &size) != 0 || size <= 1) return {};
  std::string log(size, '\0');
  if (nvrtcGetProgramLog_(program, log.data()) != 0) return {};
  return log.c_str();  // without NULs at its end
}

Compiled Nvrtc::compile(const std::string& source, std::span<const std::string> options) const {
  open_builtins(reinterpret_cast<const void*>(nvrtcVersion_));
  Program program = nullptr;
  check(nvrtcCreateProgram_(&program, source.c_str(), "ingot_kernel.cu", 0, nullptr, nullptr),
        "nvrtcCreateProgram");
  const auto destroy = [this](Program p) { nvrtcDestroyProgram_(&p); };
  const std::unique_ptr<_nvrtcProgram, decltype(destroy)> owner(program, destroy);
  std::vector<const char*> words;
  words.reserve(options.size());
  for (const std::string& option : options) words.push_back(option.c_str());
  const Result result = nvrtcCompileProgram_(program, static_cast<int>(words.size()), words.data());
  Compiled compiled{{}, log_of(program)};
  if (result != 0) {
    throw Error(Code::compile_failed,
                "nvrtc: " + std::string(nvrtcGetErrorString_(result)) + "\n" + compiled.log);
  }
  std::size_t size = 0;
  check(nvrtcGetCUBINSize_(program, &size), "nvrtcGetCUBINSize");
  compiled.cubin.resize(size);
  check(nvrtcGetCUBIN_(program, reinterpret_cast<char*>(compiled.cubin.data())), "nvrtcGetCUBIN");
  return compiled;
}

}  // namespace ingot::cuda
