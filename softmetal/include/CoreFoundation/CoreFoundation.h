// The part of Apple's <CoreFoundation/CoreFoundation.h> that metal-cpp uses.
#pragma once

#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef double CFTimeInterval;
typedef signed long CFIndex;
typedef unsigned long CFOptionFlags;
typedef const void* CFTypeRef;
typedef const struct __CFString* CFStringRef;

// The "class" word of the constant strings that the compiler emits for MTLSTR and CFSTR.
extern int __CFConstantStringClassReference[];
CFStringRef __CFStringMakeConstantString(const char* text);

#ifdef __cplusplus
}
#endif
