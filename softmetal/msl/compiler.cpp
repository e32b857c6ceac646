#include "compiler.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <sstream>

#include "cache.hpp"
#include "process.hpp"

namespace softmetal::msl {
namespace {

namespace fs = std::filesystem;
using Arguments = std::vector<std::string>;

std::string compiler_path() {
  const char* chosen = std::getenv("SOFTMETAL_CLANG");
  return chosen != nullptr ? chosen : SOFTMETAL_CLANG_PATH;
}

std::string library_path() {
  const char* chosen = std::getenv("SOFTMETAL_STDLIB");
  return chosen != nullptr ? chosen : SOFTMETAL_STDLIB_PATH;
}

/// Language and target. In SYCL's device mode clang treats the default address space as one that
/// the others convert to, which MSL's copies and member functions need.
Arguments language_flags() {
  Arguments flags{compiler_path(),
                  "-std=c++17",
                  "-fPIC",
                  "-fno-exceptions",
                  "-fno-rtti",
                  "-nostdinc",
                  "-nostdinc++",
                  "-fno-math-errno",
                  "-ffp-contract=on",
                  "-fvisibility=hidden",
                  "-Wall",
                  "-Wno-unknown-pragmas",
                  "-Wno-unused",
                  "-Wno-duplicate-decl-specifier",
                  "-Wno-address-of-temporary",
                  "-Wno-unused-value",
                  "-Wno-pass-failed",
                  "-Wno-missing-braces",
                  "-Wno-c++20-extensions",
                  "-Wno-psabi"};
  for (const char* f : {"-fsycl-is-device", "-aux-triple",
#if defined(__x86_64__)
                        "x86_64-pc-linux-gnu", "-ffloat16-excess-precision=none",
                        "-fbfloat16-excess-precision=none",
#else
                        "aarch64-linux-gnu",
#endif
                        "-ffake-address-space-map", "-cl-single-precision-constant"}) {
    flags.insert(flags.end(), {"-Xclang", f});
  }
#if defined(__x86_64__)
  flags.push_back("-march=x86-64-v3");
#endif
  return flags;
}

Arguments optimised_flags(bool instrumented) {
  // Vectorised and unrolled loops would hide single accesses, and cost time to compile.
  Arguments flags{"-O2", "-gline-tables-only", "-fno-vectorize", "-fno-slp-vectorize"};
  if (instrumented) {
    flags.insert(flags.end(), {"-DSOFTMETAL_INSTRUMENTED", "-ftrivial-auto-var-init=pattern"});
  }
  return flags;
}

std::string version_macro(const std::string& version) {
  if (version.size() != 3 || version[1] != '.') {
    throw std::invalid_argument("CompileOptions::language_version must look like 3.1, got " +
                                version);
  }
  return std::string("-D__METAL_VERSION__=") + version[0] + version[2] + "0";
}

/// Address spaces by the names that the user wrote.
std::string in_metal_words(std::string text) {
  const std::pair<std::string_view, std::string_view> words[] = {{"__global_device ", "constant "},
                                                                 {"__global ", "device "},
                                                                 {"__local ", "threadgroup "},
                                                                 {"<stdin>", "program_source"}};
  for (const auto& [from, to] : words) {
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) {
      text.replace(at, from.size(), to);
    }
  }
  return text;
}

std::vector<Diagnostic> parse_log(const std::string& log) {
  std::vector<Diagnostic> list;
  std::istringstream in(log);
  for (std::string line; std::getline(in, line);) {
    for (const auto& [word, severity] : {std::pair{": error: ", Diagnostic::Severity::error},
                                         {": warning: ", Diagnostic::Severity::warning},
                                         {": note: ", Diagnostic::Severity::note}}) {
      const std::size_t at = line.find(word);
      if (at == std::string::npos) continue;
      Diagnostic d;
      d.severity = severity;
      d.text = line.substr(at + std::string_view(word).size());
      const std::size_t column = line.rfind(':', at - 1);
      const std::size_t row = column == std::string::npos ? column : line.rfind(':', column - 1);
      if (row != std::string::npos) {
        d.file = line.substr(0, row);
        d.line = std::atoi(line.c_str() + row + 1);
        d.column = std::atoi(line.c_str() + column + 1);
      }
      list.push_back(std::move(d));
    }
  }
  return list;
}

std::string run(const Arguments& arguments, const std::string& dir,
                std::vector<Diagnostic>* warnings) {
  const ProcessResult result = run_process(arguments, dir);
  const std::string log = in_metal_words(result.output);
  auto diagnostics = parse_log(log);
  if (result.status != 0)
    throw CompileError(log.empty() ? "the compiler failed" : log, diagnostics);
  if (warnings != nullptr) *warnings = std::move(diagnostics);
  return log;
}

std::string all_of_library() {
  std::vector<std::string> files;
  for (const auto& item : fs::recursive_directory_iterator(library_path())) {
    if (item.is_regular_file()) files.push_back(item.path().string());
  }
  std::sort(files.begin(), files.end());
  std::string text;
  for (const auto& f : files) text += f + "\n" + read_file(f);
  return text;
}

/// The precompiled standard library for one set of flags.
std::string prelude(const Arguments& flags) {
  std::string key = "prelude\n" + toolchain_key();
  for (const auto& f : flags) key += f + "\n";
  return Cache::instance().entry(key, [&](const std::string& dir) {
    Arguments a = flags;
    a.insert(a.end(), {"-Xclang", "-fno-pch-timestamp", "-x", "c++-header",
                       library_path() + "/softmetal_prelude.h", "-o", "prelude.pch"});
    run(a, dir, nullptr);
  }) + "/prelude.pch";
}

}  // namespace

const std::string& toolchain_key() {
  static std::once_flag once;
  static std::string key;
  std::call_once(once, [] {
    const ProcessResult version = run_process({compiler_path(), "--version"}, "/");
    if (version.status != 0) throw std::runtime_error("cannot run " + compiler_path());
    key = version.output + content_hash(all_of_library()) + "\n";
    for (const auto& f : language_flags()) key += f + "\n";
  });
  return key;
}

std::string preprocess(const std::string& dir, std::string_view source,
                       const CompileOptions& options) {
  write_file(dir + "/program_source", source);
  Arguments a{compiler_path(),
              "-E",
              "-x",
              "c++",
              "-std=c++17",
              "-nostdinc",
              "-nostdinc++",
              "-isystem",
              library_path() + "/include",
              "-U__linux__",
              "-Ulinux",
              "-Uunix",
              "-U__unix__",
              "-D__METAL__=1",
              "-D__METAL_MACOS__=1",
              "-D__HAVE_BFLOAT__=1",
              "-D__HAVE_SIMDGROUP_MATRIX__=1",
              "-D__HAVE_SIMDGROUP_REDUCTION__=1",
              "-D__HAVE_ATOMIC_FLOAT__=1",
              "-Wno-everything",
              version_macro(options.language_version)};
  if (options.fast_math) a.push_back("-D__FAST_MATH__=1");
  for (const auto& [name, value] : options.macros) a.push_back("-D" + name + "=" + value);
  a.insert(a.end(), {"program_source", "-o", "preprocessed"});
  run(a, dir, nullptr);
  return read_file(dir + "/preprocessed");
}

std::string compile_to_ir(const std::string& dir, const IrOptions& options,
                          std::vector<Diagnostic>* warnings) {
  Arguments a = language_flags();
  // matmul2d takes its descriptor as a template argument, which is C++20.
  if (options.language_version >= "4.0") a.push_back("-std=c++20");
  a.push_back("-D" + layout_define());
  const Arguments mode = options.kernel < 0 ? Arguments{"-O0", "-gline-tables-only"}
                                            : optimised_flags(options.instrumented);
  a.insert(a.end(), mode.begin(), mode.end());
  const std::string pch = prelude(a);
  if (!options.optimised) a.insert(a.end(), {"-Xclang", "-disable-llvm-passes"});
  a.insert(a.end(), {"-include-pch", pch, "-include", "defines.h", "-x", "c++",
                     "-DSOFTMETAL_KERNEL=" + std::to_string(options.kernel), "-S", "-emit-llvm",
                     "lowered.cpp", "-o", "kernel.ll"});
  run(a, dir, warnings);
  return read_file(dir + "/kernel.ll");
}

std::string optimise_ir(const std::string& dir, const std::string& ir) {
  write_file(dir + "/split.ll", ir);
  Arguments a{compiler_path(),       "-x",       "ir", "-O2",
              "-fno-vectorize",      "-fPIC",    "-S", "-emit-llvm",
              "-fno-slp-vectorize",  "split.ll", "-o", "kernel.ll",
              "-Wno-override-module"};
#if defined(__x86_64__)
  a.push_back("-march=x86-64-v3");
#endif
  run(a, dir, nullptr);
  return read_file(dir + "/kernel.ll");
}

std::string layout_define() {
  const char* chosen = std::getenv("SOFTMETAL_COOPERATIVE_LAYOUT");
  const std::string name = chosen != nullptr ? chosen : "m5";
  if (name != "m5" && name != "other") {
    throw std::invalid_argument("SOFTMETAL_COOPERATIVE_LAYOUT must be m5 or other, got " + name);
  }
  return name == "m5" ? "SOFTMETAL_LAYOUT=0" : "SOFTMETAL_LAYOUT=1";
}

void link_ir(const std::string& dir, const std::string& ir) {
  write_file(dir + "/kernel.ll", ir);
  Arguments a{compiler_path(), "-x",      "ir",
              "-O2",           "-Xclang", "-disable-llvm-passes",
              "-fPIC",         "-shared", "-Wno-override-module",
              "kernel.ll",     "-lm",     "-o",
              "kernel.so"};
#if defined(__x86_64__)
  a.push_back("-march=x86-64-v3");
#endif
  run(a, dir, nullptr);
}

}  // namespace softmetal::msl
