// The part of Apple's <objc/runtime.h> that metal-cpp uses.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct objc_object {
  void* isa;
};
struct objc_selector;
typedef struct objc_selector* SEL;
typedef struct objc_object* id;
typedef bool BOOL;

// Each returns a pointer that stays valid for the life of the process; the two look-ups return null
// for a name that softmetal does not have.
SEL sel_registerName(const char* name);
const char* sel_getName(SEL selector);
void* objc_lookUpClass(const char* name);
void* objc_getProtocol(const char* name);

#ifdef __cplusplus
}
#endif
