#!/usr/bin/env bash
# Unpacks the arm64 builds of the dependencies into build/arm-packages, for the preset "arm"
# (Debian, Ubuntu). Needs no root and leaves the system's package lists and architectures as they are.
# Where apt cannot do it, CMake fetches and builds the pinned releases instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root="$PWD/build/arm-packages"
[[ ! -e "$root/complete" ]] || exit 0

apt="$root/apt"
mkdir -p "$apt/lists/partial" "$apt/cache" "$apt/packages"
options=(-qq -o "APT::Architectures::=$(dpkg --print-architecture)"
  -o "APT::Architectures::=arm64" -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Debug::NoLocking=1" -o "APT::Sandbox::User=")
apt-get "${options[@]}" update
(cd "$apt/packages" && apt-get "${options[@]}" download \
  libhwy-dev:arm64 libhwy1:arm64 libgtest-dev:arm64 libcli11-dev nlohmann-json3-dev)
for package in "$apt"/packages/*.deb; do
  dpkg-deb -x "$package" "$root"
done
rm -rf "$apt"
touch "$root/complete"
