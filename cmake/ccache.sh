# shellcheck shell=bash
# For `source`, in the root of the project. The parts of the tests build the library several times:
# with ccache what is the same is compiled once. Warnings that are errors change no object file, and
# neither does where a build folder lies.
if command -v ccache >/dev/null; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_IGNOREOPTIONS=-Werror
  export CCACHE_SLOPPINESS=pch_defines,time_macros
fi
