// The one file that holds metal-cpp's definitions.
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include "metal/device/metal_cpp.hpp"
