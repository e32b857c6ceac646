#include "openmp.hpp"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <mutex>

namespace ingot_python {
namespace {

// libgomp's interface between compiler and library, "Implementing PARALLEL construct" in its
// manual; the flags are of proc_bind.
using GompParallel = void(void (*body)(void*), void* argument, unsigned num_threads,
                          unsigned flags);
using OmpGetMaxThreads = int();

std::atomic<GompParallel*> gomp_parallel{nullptr};
std::atomic<OmpGetMaxThreads*> omp_get_max_threads{nullptr};
thread_local bool without_openmp = false;

void forget() { gomp_parallel.store(nullptr); }

template <class F>
F* function_of(void* library, const char* name) {
  return reinterpret_cast<F*>(dlsym(library, name));
}

}  // namespace

char as_asked = 0;

bool use_openmp_of(const std::string& library) {
  if (library.empty()) {
    forget();
    return true;
  }
  // The handle stays open. Its symbols are searched for in what it is linked to as well, so this
  // finds the OpenMP of PyTorch where a process has several.
  void* const handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (handle == nullptr) return false;
  auto* const threads = function_of<OmpGetMaxThreads>(handle, "omp_get_max_threads");
  auto* const parallel = function_of<GompParallel>(handle, "GOMP_parallel");
  if (threads == nullptr || parallel == nullptr) return false;
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, &forget); });
  omp_get_max_threads.store(threads);
  gomp_parallel.store(parallel);
  return true;
}

void openmp_region(void* user, std::int32_t members, void (*body)(void*), void* argument) {
  GompParallel* const parallel = gomp_parallel.load();
  if (parallel == nullptr || without_openmp) return;
  const int most = user == &as_asked ? members : omp_get_max_threads.load()();
  parallel(body, argument, static_cast<unsigned>(std::max(std::min(members, most), 1)), 0);
}

WithoutOpenmp::WithoutOpenmp() : before_(without_openmp) { without_openmp = true; }
WithoutOpenmp::~WithoutOpenmp() { without_openmp = before_; }

}  // namespace ingot_python
