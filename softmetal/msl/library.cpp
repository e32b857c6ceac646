#include "library.hpp"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "../stdlib/softmetal_abi.h"
#include "batches.hpp"
#include "cache.hpp"
#include "collective_sites.hpp"
#include "compiler.hpp"
#include "components.hpp"
#include "front_end.hpp"
#include "instrument.hpp"
#include "ir.hpp"
#include "pipeline.hpp"
#include "reflection.hpp"
#include "source_pass.hpp"

namespace softmetal::msl {
namespace {

/// Part of every cache key: to be raised when the source pass or the instrumentation changes.
constexpr const char* kCodeVersion = "14\n";

class DynamicLibrary {
 public:
  explicit DynamicLibrary(const std::string& path)
      : handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
    if (handle_ == nullptr)
      throw std::runtime_error("cannot load a kernel: " + std::string(dlerror()));
  }
  ~DynamicLibrary() { dlclose(handle_); }
  DynamicLibrary(const DynamicLibrary&) = delete;
  DynamicLibrary& operator=(const DynamicLibrary&) = delete;

  template <typename F>
  F symbol(const char* name) const {
    void* found = dlsym(handle_, name);
    if (found == nullptr) throw std::runtime_error("a kernel lacks " + std::string(name));
    return reinterpret_cast<F>(found);
  }

  /// All that was mapped for it.
  std::pair<const std::byte*, const std::byte*> image() const {
    Dl_info where{};
    dladdr(symbol<void*>("softmetal_entry"), &where);
    struct Search {
      const void* base;
      std::size_t bytes;
    } search{where.dli_fbase, 0};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* data) {
          auto& s = *static_cast<Search*>(data);
          if (reinterpret_cast<const void*>(info->dlpi_addr) != s.base) return 0;
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& segment = info->dlpi_phdr[i];
            if (segment.p_type == PT_LOAD) {
              s.bytes = std::max<std::size_t>(s.bytes, segment.p_vaddr + segment.p_memsz);
            }
          }
          return 1;
        },
        &search);
    const auto* begin = static_cast<const std::byte*>(search.base);
    return {begin, begin + search.bytes};
  }

 private:
  void* handle_;
};

std::vector<exec::Site> read_sites(const std::string& text) {
  std::vector<exec::Site> sites;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    sites.push_back({line.substr(colon + 1), std::atoi(line.c_str())});
  }
  return sites;
}

/// One warning a line: line, column, file, text.
std::string join_warnings(const std::vector<Diagnostic>& list) {
  std::string out;
  for (const Diagnostic& d : list) {
    if (d.severity != Diagnostic::Severity::warning || d.file == "softmetal_entries") continue;
    out += std::to_string(d.line) + "\t" + std::to_string(d.column) + "\t" + d.file + "\t" +
           d.text + "\n";
  }
  return out;
}

std::vector<Diagnostic> read_warnings(const std::string& text) {
  std::vector<Diagnostic> list;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    std::istringstream fields(line);
    Diagnostic d;
    d.severity = Diagnostic::Severity::warning;
    fields >> d.line >> d.column;
    fields.ignore(1);
    std::getline(fields, d.file, '\t');
    std::getline(fields, d.text);
    list.push_back(std::move(d));
  }
  return list;
}

class PipelineImpl final : public LoadedPipeline {
 public:
  PipelineImpl(const std::string& dir, FunctionInfo info, bool instrumented)
      : code_(dir + "/kernel.so"), info_(std::move(info)), instrumented_(instrumented) {
    entry_ = code_.symbol<Entry>("softmetal_entry");
    regions_ = code_.symbol<Regions>("softmetal_regions");
    *code_.symbol<const softmetal_abi::Runtime**>("softmetal_runtime") = exec::runtime_table();
    static_bytes_ = static_cast<std::uint32_t>(std::atoi(read_file(dir + "/static_bytes").c_str()));
    sites_ = read_sites(read_file(dir + "/sites"));
    for (const exec::Site& s : read_sites(read_file(dir + "/collectives"))) {
      collective_files_[static_cast<std::uint32_t>(s.line)] = s.file;
    }
  }

  const FunctionInfo& info() const override { return info_; }
  bool instrumented() const override { return instrumented_; }
  std::uint32_t static_threadgroup_bytes() const override { return static_bytes_; }
  Entry entry() const override { return entry_; }
  Regions regions() const override { return regions_; }
  const std::vector<exec::Site>& sites() const override { return sites_; }
  const std::map<std::uint32_t, std::string>& collective_files() const override {
    return collective_files_;
  }
  std::pair<const std::byte*, const std::byte*> image() const override { return code_.image(); }

 private:
  DynamicLibrary code_;
  FunctionInfo info_;
  bool instrumented_;
  Entry entry_ = nullptr;
  Regions regions_ = nullptr;
  std::uint32_t static_bytes_ = 0;
  std::vector<exec::Site> sites_;
  std::map<std::uint32_t, std::string> collective_files_;
};

/// Threadgroup variables have no constructors run: their guards say that it has been done.
void drop_initialisers(std::string& ir) {
  constexpr std::string_view kGuard = " = load i1, ptr @_ZGV";
  for (std::size_t at = ir.find(kGuard); at != std::string::npos; at = ir.find(kGuard, at)) {
    const std::size_t line = std::min(ir.find('\n', at), ir.size());
    ir.replace(at, line - at, " = icmp eq i1 true, true");
  }
}

/// Builds dir/kernel.so from dir/lowered.cpp and dir/defines.h.
void build_kernel(const std::string& dir, const IrOptions& options) {
  std::string ir = compile_to_ir(dir, options, nullptr);
  if (!options.optimised) ir = optimise_ir(dir, split_components(IrModule(std::move(ir))));
  drop_initialisers(ir);
  if (ir.find("call void @softmetal_mma(") != std::string::npos) {
    ir = with_batches(IrModule(std::move(ir)));
  }
  const IrModule module(std::move(ir));
  const auto used = module.reachable("@softmetal_entry");
  std::vector<ThreadgroupVariable> variables;
  std::uint64_t bytes = 0;
  for (auto& v : module.threadgroup_variables()) {
    if (used.count(v.symbol) == 0) continue;
    bytes = (bytes + v.alignment - 1) / v.alignment * v.alignment + v.bytes;
    variables.push_back(std::move(v));
  }
  std::string text;
  std::string sites;
  if (options.instrumented) {
    Instrumented checked = instrument(module);
    text = std::move(checked.text);
    for (const auto& s : checked.sites) sites += std::to_string(s.line) + ":" + s.file + "\n";
  } else {
    for (const auto& line : module.lines()) text += line + "\n";
  }
  const auto words = module.words("@softmetal_info_" + std::to_string(options.kernel));
  link_ir(dir, with_region_table(std::move(text), variables));
  write_file(dir + "/static_bytes", std::to_string((bytes + 15) / 16 * 16));
  write_file(dir + "/sites", sites);
  std::string files;
  for (const auto& [site, file] : collective_files(module)) {
    files += std::to_string(site) + ":" + file + "\n";
  }
  write_file(dir + "/collectives", files);
  write_file(dir + "/words", join_words(words));
}

class LibraryImpl final : public Library {
 public:
  LibraryImpl(std::string_view source, const CompileOptions& options)
      : language_version_(options.language_version) {
    std::string key = "library\n" + toolchain_key() + kCodeVersion + options.language_version +
                      "\n" + (options.fast_math ? "fast\n" : "safe\n");
    for (const auto& [name, value] : options.macros) key += name + "=" + value + "\n";
    key += "\n";
    key += source;
    const std::string dir = Cache::instance().entry(key, [&](const std::string& fresh) {
      const FrontEnd front =
          run_front_end(fresh, preprocess(fresh, source, options), options.language_version);
      write_file(fresh + "/rewrites", serialise(front.options));
      write_file(fresh + "/components", front.component_writes ? "1" : "0");
      write_file(fresh + "/warnings", join_warnings(front.warnings));
      // Throws what is wrong with the signatures.
      write_file(fresh + "/infos", serialise(reflect(front.source, IrModule(front.ir))));
    });
    lowered_ =
        lower_source(read_file(dir + "/preprocessed"), lower_options(read_file(dir + "/rewrites")));
    lowered_.text = read_file(dir + "/lowered.cpp");
    component_writes_ = read_file(dir + "/components") == "1";
    infos_ = deserialise(read_file(dir + "/infos"));
    warnings_ = read_warnings(read_file(dir + "/warnings"));
  }

  std::vector<std::string> function_names() const override {
    std::vector<std::string> names;
    for (const auto& info : infos_) names.push_back(info.name);
    return names;
  }

  const FunctionInfo& info(std::string_view name) const override { return infos_[find(name)]; }
  const std::vector<Diagnostic>& warnings() const override { return warnings_; }

  std::shared_ptr<const Pipeline> specialise(std::string_view name, const ConstantValues& constants,
                                             bool instrumented) const override {
    const std::size_t kernel = find(name);
    const std::string defines = constant_defines(lowered_, infos_[kernel], constants);
    const std::string key = "kernel\n" + toolchain_key() + kCodeVersion + std::to_string(kernel) +
                            (instrumented ? " checked\n" : " plain\n") + language_version_ +
                            layout_define() + defines + lowered_.text;
    const std::string dir = Cache::instance().entry(key, [&](const std::string& fresh) {
      write_file(fresh + "/lowered.cpp", lowered_.text);
      write_file(fresh + "/defines.h", defines);
      build_kernel(fresh,
                   {static_cast<int>(kernel), instrumented, !component_writes_, language_version_});
    });
    FunctionInfo info = infos_[kernel];
    mark_active(info, lowered_.kernels[kernel], read_words(read_file(dir + "/words")));
    return std::make_shared<PipelineImpl>(dir, std::move(info), instrumented);
  }

 private:
  std::size_t find(std::string_view name) const {
    for (std::size_t i = 0; i < infos_.size(); ++i) {
      if (infos_[i].name == name) return i;
    }
    throw std::out_of_range("no kernel named " + std::string(name));
  }

  std::string language_version_;
  LoweredSource lowered_;
  bool component_writes_ = false;
  std::vector<FunctionInfo> infos_;
  std::vector<Diagnostic> warnings_;
};

}  // namespace

CompileError::CompileError(const std::string& log, std::vector<Diagnostic> diagnostics)
    : std::runtime_error(log), diagnostics_(std::move(diagnostics)) {}

std::shared_ptr<Library> Library::compile(std::string_view source, const CompileOptions& options) {
  return std::make_shared<LibraryImpl>(source, options);
}

}  // namespace softmetal::msl
