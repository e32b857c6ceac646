#!/bin/bash
# Compiles host files for the real target (arm64-apple-macos14, no Apple SDK) and checks what
# the objects import.
#   softmetal/apple_check.sh METAL_CPP_FOLDER FILE.cpp... [-- COMPILER_OPTIONS...]
# METAL_CPP_FOLDER is what fetch_metal_cpp.sh made. Apple's own compiler and SDK may still
# object: this finds code that
# depends on Linux, on softmetal, or on symbols that no Mac has.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
compiler=${CXX:-clang++-19}
nm=${NM:-llvm-nm-19}
command -v "$nm" >/dev/null || { echo "$nm is missing: install llvm-19, or set NM" >&2; exit 2; }
[ $# -ge 2 ] || { sed -n '2,7p' "$0" >&2; exit 2; }
metal_cpp=$1
shift
files=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$1"); shift; done
[ $# -gt 0 ] && shift

# The C++ library's headers are the host's: libc++ is not installed, and only declarations are
# needed.
includes=()
while read -r folder; do includes+=(-isystem "$folder"); done < <(
  "$compiler" -stdlib=libstdc++ -xc++ -E -v /dev/null 2>&1 |
    sed -n '/#include <...>/,/End of search list/p' | grep '^ ' | sed 's/^ //')

# Everything a compute program may import: the Objective-C runtime, Metal, blocks, libdispatch,
# libc and C++.
allowed='^_(objc_(msgSend|lookUpClass|getProtocol)|sel_registerName|dlsym'
allowed+='|MTL[A-Za-z]+|NS[A-Za-z]+|__CFConstantStringClassReference|__CFStringMakeConstantString'
allowed+='|_NSConcrete(Stack|Global)Block'
allowed+='|_Block_(object_assign|object_dispose|copy|release)|dispatch_[a-z_]+'
allowed+='|_Z.*|__cxa_[a-z_]+|__gxx_personality_v0|_Unwind_Resume|__dso_handle'
allowed+='|__stack_chk_(fail|guard)'
allowed+='|mem(cpy|move|set|cmp|chr)|tolower|bzero|str(len|cmp|ncmp|toull|toul|chr|rchr)'
allowed+='|malloc|free'
allowed+='|aligned_alloc|posix_memalign'
allowed+='|abort|exit|printf|fprintf|snprintf|puts|putchar|getenv|stdout|stderr|stdin'
allowed+='|fflush|access|unlink|mkstemp|mkdtemp|rmdir|open|openat|close|read|write|fstat'
allowed+='|sqrtf?|expf?|exp2f?|logf?|log2f?|powf?|fabsf?|fminf?|fmaxf?|_tlv_bootstrap'
allowed+='|__tls_get_addr|atexit|setenv|unsetenv|getpid|rename|__dynamic_cast'
allowed+='|pthread_(mutex_(lock|unlock)|once|cond_[a-z]+)'
# What the headers of libstdc++ and glibc ask for, and those of a Mac do not (its errno is another
# function of the same kind).
allowed+='|__libc_single_threaded|__pthread_key_create|__once_proxy|__errno_location)$'

status=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
object=$scratch/object.o
# glibc's headers take a target that is not x86-64 for a 32-bit one; these two lines tell them
# otherwise.
mkdir -p "$scratch/include/gnu" "$scratch/include/bits"
echo '#define __WORDSIZE 64' > "$scratch/include/bits/wordsize.h"
echo '' > "$scratch/include/gnu/stubs.h"
for file in "${files[@]}"; do
  if ! "$compiler" -target arm64-apple-macos14 -std=c++20 -fblocks -O1 -nostdinc++ -U__nonnull -w \
      -D_GNU_SOURCE \
      -isystem "$scratch/include" -isystem "$here/include" -isystem "$metal_cpp" \
      "${includes[@]}" "$@" \
      -c "$file" -o "$object"; then
    echo "$file: does not compile for arm64-apple-macos14"
    status=1
    continue
  fi
  strange=$("$nm" --undefined-only --format=just-symbols "$object" | grep -Ev "$allowed" || true)
  if [ -n "$strange" ]; then
    echo "$file: imports what no Mac offers or a compute program should not need:"
    sed 's/^/  /' <<<"$strange"
    status=1
  else
    imports=$("$nm" --undefined-only "$object" | wc -l)
    echo "$file: compiles for arm64-apple-macos14, $imports imports, all known"
  fi
done
exit $status
