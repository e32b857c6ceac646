// The OpenMP threads that PyTorch works with, for the attention of device "cpu": threads that wait
// busily after each operation would else compete with ingot's own for the cores.
#pragma once

#include <cstdint>

#include <ingot/ingot.h>

#include <string>

namespace ingot_python {

/// From now on calls run on the OpenMP threads that `library`, loaded already, is linked to; "":
/// on ingot's own again. False, and nothing changes, where it is not loaded or has no OpenMP that
/// can be called (GOMP_parallel of libgomp, libiomp5 and libomp on Linux). In the child of a fork
/// they are gone, and ingot's own work.
bool use_openmp_of(const std::string& library);

/// The parallel region of every context of this module. `user` is &as_asked where the number of
/// threads was asked for; else it is OpenMP's, which torch.set_num_threads() sets.
void openmp_region(void* user, std::int32_t members, void (*body)(void*), void* argument);
extern char as_asked;

/// How many threads OpenMP would give the calling thread; 0 where ingot's own work.
int openmp_threads();

/// While this lives, calls of this thread run on a team of so many; 0: on ingot's own threads.
/// Threads differ in what OpenMP gives them, and each that asks gets a team of its own.
class OpenmpThreads {
 public:
  explicit OpenmpThreads(int count);
  ~OpenmpThreads();
  OpenmpThreads(const OpenmpThreads&) = delete;
  OpenmpThreads& operator=(const OpenmpThreads&) = delete;

 private:
  const int before_;
};

}  // namespace ingot_python
