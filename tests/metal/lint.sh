#!/usr/bin/env bash
# lint.sh LINTER FOLDER: softmetal-lint over every kernel of a folder, on all cores.
set -euo pipefail

linter=$1
folder=$2
kernels=("$folder"/*.metal)
[[ -e ${kernels[0]} ]] || { echo "no kernels in $folder"; exit 1; }
printf '%s\0' "${kernels[@]}" | xargs -0 -P "$(getconf _NPROCESSORS_ONLN)" -n 8 "$linter" -std=3.1
echo "${#kernels[@]} kernels, nothing to complain about"
