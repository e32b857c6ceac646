#include "nvrtc/compile.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "nvrtc/rewrite.hpp"

extern char** environ;

// The prelude, as it lies in the source tree.
#define SOFTCUDA_TEXT(name, file)                                                     \
  asm(".section .rodata\n.global softcuda_text_" name "\n.hidden softcuda_text_" name \
      "\nsoftcuda_text_" name ":\n.incbin \"" SOFTCUDA_INCLUDE "/softcuda/" file      \
      "\"\n.byte 0\n.previous\n")
SOFTCUDA_TEXT("abi", "abi.h");
SOFTCUDA_TEXT("language", "language.h");
SOFTCUDA_TEXT("ptx", "ptx.h");
SOFTCUDA_TEXT("shared", "ptx_shared.h");
SOFTCUDA_TEXT("matrix", "ptx_matrix.h");
extern "C" {
extern const char softcuda_text_abi[], softcuda_text_language[], softcuda_text_ptx[],
    softcuda_text_shared[], softcuda_text_matrix[];
}

namespace softcuda {
namespace {

namespace fs = std::filesystem;

/// A folder that goes away with the object.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "softcuda-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

std::string text_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

std::string compiler() {
  const char* const chosen = std::getenv("SOFTCUDA_CLANG");
  return chosen != nullptr && *chosen != '\0' ? chosen : SOFTCUDA_CLANG_PATH;
}

/// True where the child ends with 0; what it writes goes to `log`.
bool run(const std::vector<std::string>& words, const std::string& log) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child = 0;
  const int failure =
      posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) throw std::runtime_error("cannot run " + words[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// "900" of "sm_90a".
std::string arch_number(const std::string& arch) {
  std::string digits;
  for (const char c : arch) {
    if (c >= '0' && c <= '9') digits += c;
  }
  return digits + "0";
}

std::vector<std::string> compile_words(const Options& options, const std::string& from,
                                       const std::string& to) {
  return {compiler(),
          "-x",
          "c++-cpp-output",
          "-std=" + options.standard,
          SOFTCUDA_MARCH,
          "-O1",
          "-ffp-contract=fast-honor-pragmas",
          "-fno-math-errno",
          "-fno-exceptions",
          "-fno-rtti",
          "-fPIC",
          "-shared",
          "-fvisibility=hidden",
          "-fno-asynchronous-unwind-tables",
          "-fno-stack-protector",
          "-fno-strict-aliasing",
          "-w",
          from,
          "-o",
          to,
          "-Wl,-s",
          "-lm"};
}

}  // namespace

const std::string& prelude() {
  static const std::string text = std::string("#line 1 \"softcuda\"\n") + softcuda_text_abi +
                                  softcuda_text_language + softcuda_text_ptx +
                                  softcuda_text_shared + softcuda_text_matrix;
  return text;
}

Compilation compile(const std::string& source, const std::string& name, const Options& options) {
  Compilation result;
  try {
    const Folder folder;
    const std::string log = folder.file("log");
    write(folder.file("prelude.h"), prelude());
    write(folder.file("kernel.cu"), "#line 1 \"" + name + "\"\n" + source);
    result.succeeded =
        run({compiler(), "-E", "-x", "c++", "-std=" + options.standard, "-nostdinc", "-w",
             "-D__CUDACC__", "-D__CUDACC_RTC__", "-D__CUDA_ARCH__=" + arch_number(options.arch),
             "-include", folder.file("prelude.h"), folder.file("kernel.cu"), "-o",
             folder.file("kernel.ii")},
            log);
    if (result.succeeded) {
      write(folder.file("host.ii"), rewrite(text_in(folder.file("kernel.ii")), prelude()));
      if (const char* kept = std::getenv("SOFTCUDA_KEEP"); kept != nullptr) {
        fs::copy_file(folder.file("host.ii"), kept, fs::copy_options::overwrite_existing);
      }
      result.succeeded =
          run(compile_words(options, folder.file("host.ii"), folder.file("kernel.so")), log);
    }
    result.log = text_in(log);
    const std::string object = result.succeeded ? text_in(folder.file("kernel.so")) : "";
    result.object.assign(object.begin(), object.end());
  } catch (const std::exception& error) {
    result.succeeded = false;
    result.log += std::string(error.what()) + "\n";
  }
  return result;
}

}  // namespace softcuda
