#!/usr/bin/env bash
# run.sh BUILD WORK: a project of its own uses ingot in each way there is. BUILD is a build folder
# of ingot, WORK a folder for what is made here; builds lie beside it, as deep as BUILD, so that
# ccache knows what both compile. Ends at the first failure.
set -euo pipefail
build=$1
work=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=$work/prefix

rm -rf "$prefix"
cmake --install "$build" --prefix "$prefix" >/dev/null

# consumer NAME ARGUMENTS...: configures, builds and runs the project in this folder.
consumer() {
  local name=$1
  shift
  echo "-- $name"
  cmake -S "$here" -B "$work-$name" -G Ninja -DCMAKE_BUILD_TYPE=Release "$@" >"$work/$name.log" ||
    { cat "$work/$name.log"; return 1; }
  cmake --build "$work-$name"
  ctest --test-dir "$work-$name" --output-on-failure --no-tests=error
}

# Moved after the installation: nothing installed may depend on where it was built or first put.
rm -rf "$work/moved"
mv "$prefix" "$work/moved"
consumer find_package "-DCMAKE_PREFIX_PATH=$work/moved"
consumer fetch_content "-DINGOT_SOURCE_DIR=$here/../.."

echo "-- pkg-config"
library=$(dirname "$(find "$work/moved" -name 'libingot.*' | head -1)")
export PKG_CONFIG_PATH=$library/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs ingot)"
cc -std=c11 "$here/main.c" "${flags[@]}" -lm "-Wl,-rpath,$library" -o "$work/pkg_config_consumer"
"$work/pkg_config_consumer"

echo "-- the installed program"
"$work/moved/bin/ingot" devices
