// The part of Apple's <mach/mach.h> that metal-cpp uses.
#pragma once

#include <stdint.h>

typedef int kern_return_t;
typedef unsigned int mach_port_t;
typedef mach_port_t task_id_token_t;
#define KERN_SUCCESS 0
