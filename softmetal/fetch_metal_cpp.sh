#!/bin/bash
# Puts Apple's metal-cpp (Apache-2.0) into FOLDER/metal-cpp, unless it is there. Needs python3
# with pip.
#   softmetal/fetch_metal_cpp.sh FOLDER
# See docs/adr/0010: it is taken from the macOS wheel of mlx-metal, which carries it unchanged.
set -euo pipefail

version=0.32.4
sha256=8019b2db622599267d66cc168b2f0dbf5af929790a6c3b3913e00eabc42a7947

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder=$1
if [ "$(cat "$folder/metal-cpp/.from" 2>/dev/null)" = "$sha256" ]; then
  exit 0
fi
mkdir -p "$folder"
scratch=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

echo "mlx-metal==$version --hash=sha256:$sha256" > "$scratch/requirements.txt"
python3 -m pip --disable-pip-version-check --quiet download --require-hashes --no-deps \
  --only-binary=:all: --platform macosx_14_0_arm64 --python-version 3.12 \
  --dest "$scratch" --requirement "$scratch/requirements.txt"
python3 - "$scratch" <<'PYTHON'
import pathlib, sys, zipfile
scratch = pathlib.Path(sys.argv[1])
(wheel,) = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    prefix = "mlx/include/metal_cpp/"
    names = [name for name in archive.namelist() if name.startswith(prefix)]
    if not names:
        sys.exit(f"{wheel.name} carries no {prefix}")
    archive.extractall(scratch, names)
PYTHON
echo "$sha256" > "$scratch/mlx/include/metal_cpp/.from"
rm -rf "$folder/metal-cpp"
mv "$scratch/mlx/include/metal_cpp" "$folder/metal-cpp"
