// Failures on demand.
#pragma once

namespace softmetal {

enum class Failure {
  out_of_memory,
  compile_failure,
  pipeline_failure,
  device_error,
  gpu_out_of_memory,
  timeout,
};

// Whether this occasion is to fail; counts it.
bool fails_now(Failure failure);

}  // namespace softmetal
