#include "cuda/nvrtc.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "core/error.hpp"

namespace ingot::cuda {
namespace {

namespace fs = std::filesystem;

constexpr const char* library_names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};
constexpr int oldest_version = 12000;  // sm_90a

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// site-packages of every Python below `prefix`.
void append_site_packages(std::vector<fs::path>& folders, const fs::path& prefix) {
  if (prefix.empty()) return;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(prefix / "lib", error)) {
    if (!entry.path().filename().string().starts_with("python3")) continue;
    folders.push_back(entry.path() / "site-packages");
    folders.push_back(entry.path() / "dist-packages");
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
    if (const std::string home = variable(name); !home.empty()) {
      result.push_back(fs::path(home) / "lib64");
    }
  }
  result.emplace_back("/usr/local/cuda/lib64");
  std::vector<fs::path> packages;
  if (const fs::path own = own_folder(); !own.empty()) packages.push_back(own.parent_path());
  append_site_packages(packages, variable("VIRTUAL_ENV"));
  append_site_packages(packages, variable("CONDA_PREFIX"));
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
  if (const std::string chosen = variable("INGOT_LIBNVRTC"); !chosen.empty()) {
    path = chosen;
    void* library = dlopen(chosen.c_str(), RTLD_NOW | RTLD_LOCAL);
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
      if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
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
void open_builtins(void* library) {
  Dl_info info{};
  if (dladdr(dlsym(library, "nvrtcVersion"), &info) == 0 || info.dli_fname == nullptr) return;
  std::error_code error;
  const fs::path folder = fs::path(info.dli_fname).parent_path();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().starts_with("libnvrtc-builtins.so")) {
      dlopen(entry.path().c_str(), RTLD_NOW | RTLD_LOCAL);
    }
  }
}

}  // namespace

std::shared_ptr<const Nvrtc> Nvrtc::open() {
  std::string path;
  void* library = open_library(path);
  open_builtins(library);
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
