// The CUDA back end on a driver that needs no GPU (fake/fake_cuda.cpp), for tests of its host's
// part.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "core/error.hpp"
#include "core/problem.hpp"
#include "fake/fake_cuda.hpp"

namespace ingot {

namespace fs = std::filesystem;

/// Sets a variable of the environment while it lives.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (before_) {
      setenv(name_, before_->c_str(), 1);
    } else {
      unsetenv(name_);
    }
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

/// A folder for kernels, and the fake driver in its first state, which it leaves behind.
class CudaHostFixture : public testing::Test {
 protected:
  CudaHostFixture() {
    std::string name = (fs::temp_directory_path() / "ingot-cuda-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
    cache_.emplace("INGOT_CACHE_DIR", (folder_ / "cache").string());
    library_ = dlopen(INGOT_FAKE_CUDA, RTLD_NOW);
    fake_ = reinterpret_cast<decltype(&fake_cuda)>(dlsym(library_, "fake_cuda"))();
    *fake_ = FakeCuda{};
  }
  ~CudaHostFixture() override {
    *fake_ = FakeCuda{};
    fs::remove_all(folder_);
  }

  void* device_memory(std::size_t bytes, int device = 0) const {
    return reinterpret_cast<decltype(&fake_device_memory)>(dlsym(library_, "fake_device_memory"))(
        bytes, device);
  }
  void free_device(void* memory) const {
    reinterpret_cast<decltype(&fake_device_free)>(dlsym(library_, "fake_device_free"))(memory);
  }

  static Problem small() {
    Problem p;
    p.seqlen_q = p.seqlen_k = 8;
    p.head_dim = p.head_dim_v = 4;
    p.scale = 0.5F;
    return p;
  }

  Variable driver_{"INGOT_LIBCUDA", INGOT_FAKE_CUDA};
  Variable compiler_{"INGOT_LIBNVRTC", INGOT_FAKE_CUDA};
  std::optional<Variable> cache_;
  fs::path folder_;
  void* library_ = nullptr;
  FakeCuda* fake_ = nullptr;
};

inline std::string message_of(const std::function<void()>& f, Code code) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

}  // namespace ingot
