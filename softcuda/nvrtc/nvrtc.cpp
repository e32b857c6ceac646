// NVRTC's C interface, before a compiler for the host.
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "nvrtc/compile.hpp"

#define NVRTC extern "C" __attribute__((visibility("default")))

namespace {

enum Result { success = 0, invalid_input = 3, invalid_program = 4, invalid_option = 5, failed = 6 };

struct Program {
  std::string source, name;
  softcuda::Compilation done;
};

/// False for an option that means nothing here.
bool read_option(std::string_view word, softcuda::Options& options) {
  constexpr std::string_view arch = "--gpu-architecture=", standard = "--std=";
  if (word.starts_with(arch)) {
    options.arch = word.substr(arch.size());
    return options.arch.starts_with("sm_");
  }
  if (word.starts_with(standard)) {
    options.standard = word.substr(standard.size());
    return true;
  }
  return word == "-default-device" || word.starts_with("--ptxas-options=");
}

}  // namespace

NVRTC int nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return success;
}

NVRTC const char* nvrtcGetErrorString(int result) {
  switch (result) {
    case success:
      return "NVRTC_SUCCESS";
    case invalid_input:
      return "NVRTC_ERROR_INVALID_INPUT";
    case invalid_program:
      return "NVRTC_ERROR_INVALID_PROGRAM";
    case invalid_option:
      return "NVRTC_ERROR_INVALID_OPTION";
    default:
      return "NVRTC_ERROR_COMPILATION";
  }
}

NVRTC int nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers,
                             const char* const*, const char* const*) {
  if (program == nullptr || source == nullptr || headers != 0) return invalid_input;
  *program = new Program{source, name == nullptr ? "default_program" : name, {}};
  return success;
}

NVRTC int nvrtcDestroyProgram(Program** program) {
  if (program == nullptr || *program == nullptr) return invalid_program;
  delete *program;
  *program = nullptr;
  return success;
}

NVRTC int nvrtcCompileProgram(Program* program, int count, const char* const* words) {
  if (program == nullptr) return invalid_program;
  softcuda::Options options;
  options.arch = "sm_75";
  for (int i = 0; i < count; ++i) {
    if (read_option(words[i], options)) continue;
    program->done.log = std::string("nvrtc: error: invalid option ") + words[i] + "\n";
    return invalid_option;
  }
  program->done = softcuda::compile(program->source, program->name, options);
  return program->done.succeeded ? success : failed;
}

NVRTC int nvrtcGetCUBINSize(Program* program, std::size_t* size) {
  if (program == nullptr) return invalid_program;
  *size = program->done.object.size();
  return success;
}

NVRTC int nvrtcGetCUBIN(Program* program, char* to) {
  if (program == nullptr) return invalid_program;
  std::memcpy(to, program->done.object.data(), program->done.object.size());
  return success;
}

NVRTC int nvrtcGetProgramLogSize(Program* program, std::size_t* size) {
  if (program == nullptr) return invalid_program;
  *size = program->done.log.size() + 1;
  return success;
}

NVRTC int nvrtcGetProgramLog(Program* program, char* to) {
  if (program == nullptr) return invalid_program;
  std::memcpy(to, program->done.log.c_str(), program->done.log.size() + 1);
  return success;
}
