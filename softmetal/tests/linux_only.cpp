// Not a test program: a host file with two calls that no Mac has, for apple_check.sh to find.
#include <softmetal/softmetal.h>

extern "C" int sysinfo(void* info);

int uses_what_no_mac_has() { return sysinfo(nullptr) + softmetal_inject("timeout", 0, 1); }
