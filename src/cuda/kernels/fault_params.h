// Where kernels say that a wait of theirs ran out. Read by the host and by NVRTC.
#pragma once

namespace ingot {

/// Both become 1 and stay so until the host has reported it.
struct FaultWords {
  unsigned* seen;  ///< in the GPU's memory: kernels that read what others wrote look at it
  unsigned* told;  ///< in the host's memory
};

}  // namespace ingot
