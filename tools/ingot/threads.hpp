// Work on as many threads as there are to be had.
#pragma once

#include <functional>

namespace ingot::cli {

/// Calls f(0) here and f(1) to f(threads - 1) on threads of their own, all from the same moment on.
/// Where the system has no more threads, it goes on with fewer, and says so on standard error.
/// Rethrows what one of them threw. Returns how many there were.
int run_on_threads(int threads, const std::function<void(int)>& f);

}  // namespace ingot::cli
