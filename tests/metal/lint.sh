#!/usr/bin/env bash
# lint.sh LINTER FOLDER: softmetal-lint over every kernel of a folder, on all cores, in the oldest
# language that the kernel may meet: 3.1 where it may have bfloat (families 9 and newer), else 3.0.
set -euo pipefail

linter=$1
folder=$2
kernels=("$folder"/*.metal)
[[ -e ${kernels[0]} ]] || { echo "no kernels in $folder"; exit 1; }
lint() {
  local language=$1
  shift
  printf '%s\0' "$@" | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -n 8 "$linter" "-std=$language"
}
lint 3.0 "$folder"/*-apple[78]-*.metal
lint 3.1 "$folder"/*-apple{9,10}-*.metal
echo "${#kernels[@]} kernels, nothing to complain about"
