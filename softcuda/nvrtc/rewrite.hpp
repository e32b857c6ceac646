// From preprocessed CUDA C++ to C++ for the host.
#pragma once

#include <string>
#include <string_view>

namespace softcuda {

/// asm statements become calls, __shared__ variables places in the block's window, and every
/// __global__ function gets an entry that the device can call. Lines stay where they are. `prelude`
/// is the text of include/softcuda, which says what instructions there are. Throws
/// std::runtime_error that starts with the line: "file(12): ...".
std::string rewrite(std::string_view source, std::string_view prelude);

}  // namespace softcuda
