// Runs kernels from text on plain vectors, for the tests of the MSL side.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "../msl/library.hpp"

namespace softmetal::test {

using namespace softmetal::msl;

inline int& failures() {
  static int n = 0;
  return n;
}
inline void expect(bool ok, const std::string& what, const char* file, int line) {
  if (ok) return;
  ++failures();
  std::fprintf(stderr, "%s:%d: FAILED: %s\n", file, line, what.c_str());
}
#define EXPECT(condition) ::softmetal::test::expect((condition), #condition, __FILE__, __LINE__)
#define EXPECT_NEAR(a, b, tolerance)                                                            \
  ::softmetal::test::expect(std::abs(double(a) - double(b)) <= (tolerance),                     \
                            std::string(#a " = ") + std::to_string(double(a)) + ", " #b " = " + \
                                std::to_string(double(b)),                                      \
                            __FILE__, __LINE__)

inline const std::string kHeader = "#include <metal_stdlib>\nusing namespace metal;\n";

/// One kernel of a text with its bindings; run() dispatches it with every check on.
class Program {
 public:
  Program(const std::string& source, const std::string& kernel,
          const ConstantValues& constants = {}, bool instrumented = true,
          const CompileOptions& options = {})
      : library(Library::compile(source, options)),
        pipeline(library->specialise(kernel, constants, instrumented)) {}

  template <typename T>
  Program& buffer(std::size_t index, std::vector<T>& data, const std::string& label = "") {
    input.buffers[index] = {reinterpret_cast<std::byte*>(data.data()), data.size() * sizeof(T),
                            label, true};
    return *this;
  }
  template <typename T>
  Program& bytes(std::size_t index, const T& value) {
    auto& copy = constants_.emplace_back(sizeof(T));
    std::memcpy(copy.data(), &value, sizeof(T));
    input.buffers[index] = {copy.data(), copy.size(), "", false};
    return *this;
  }
  Program& threadgroup(std::size_t index, std::size_t size) {
    input.threadgroup_bytes[index] = size;
    return *this;
  }
  DispatchResult groups(Size3 threadgroups, Size3 threads) {
    input.threadgroups = threadgroups;
    input.threads_per_threadgroup = threads;
    input.threads_per_grid.reset();
    return dispatch(*pipeline, input, options);
  }
  DispatchResult threads(Size3 grid, Size3 threads) {
    input.threads_per_grid = grid;
    input.threads_per_threadgroup = threads;
    return dispatch(*pipeline, input, options);
  }

  std::shared_ptr<Library> library;
  std::shared_ptr<const Pipeline> pipeline;
  DispatchInput input;
  ExecOptions options = exec_options_from_environment();

 private:
  std::vector<std::vector<std::byte>> constants_;
};

/// No finding is expected; prints those there are.
inline void clean(const DispatchResult& result, const char* file, int line) {
  for (const Finding& f : result.findings) {
    expect(false, "unexpected finding: " + f.text, file, line);
  }
}
#define EXPECT_CLEAN(result) ::softmetal::test::clean((result), __FILE__, __LINE__)

template <typename T>
ConstantValue constant_value(ScalarType type, T value) {
  ConstantValue v;
  v.type = type;
  v.bytes.resize(sizeof(T));
  std::memcpy(v.bytes.data(), &value, sizeof(T));
  return v;
}

inline std::vector<float> ramp(std::size_t n, float scale = 1.0f) {
  // Small, exactly representable, and without a pattern that hides transposed indices.
  std::vector<float> v(n);
  std::uint32_t state = 12345;
  for (auto& x : v) {
    state = state * 1664525u + 1013904223u;
    x = scale * (static_cast<float>(state >> 24) / 128.0f - 1.0f);
  }
  return v;
}

inline int report() {
  if (failures() == 0) std::puts("ok");
  return failures() == 0 ? 0 : 1;
}

}  // namespace softmetal::test
