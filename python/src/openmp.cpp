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
thread_local int threads_of_scope = -1;  ///< -1: as many as OpenMP says

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
  const int threads = openmp_threads();
  if (parallel == nullptr || threads == 0) return;
  const int team = user == &as_asked ? members : std::min(members, threads);
  parallel(body, argument, static_cast<unsigned>(team), 0);
}

int openmp_threads() {
  if (threads_of_scope >= 0) return threads_of_scope;
  return gomp_parallel.load() == nullptr ? 0 : std::max(omp_get_max_threads.load()(), 1);
}

OpenmpThreads::OpenmpThreads(int count) : before_(threads_of_scope) { threads_of_scope = count; }
OpenmpThreads::~OpenmpThreads() { threads_of_scope = before_; }

}  // namespace ingot_python
