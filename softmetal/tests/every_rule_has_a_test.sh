#!/bin/bash
# Switches off one rule of the host side at a time and demands that a test that names it fails then.
#   every_rule_has_a_test.sh HOST_SOURCES_FOLDER TESTS_FOLDER PROGRAMS_FOLDER
set -euo pipefail

sources=$1
tests=$2
programs=$3
rules=$(grep -ohzP '\b(error|warning)\(\s*"[a-z0-9-]+"' "$sources"/*.cpp | tr -d '\0' |
        grep -oE '"[a-z0-9-]+"' | tr -d '"' | sort -u)
missing=()
for rule in $rules; do
  found=
  for file in $(grep -lF "$rule" "$tests"/host_*_test.cpp || true); do
    program=$programs/softmetal_$(basename "$file" .cpp)
    [ -x "$program" ] || { echo "$program is not built"; exit 1; }
    if ! SOFTMETAL_IGNORE=$rule "$program" > /dev/null 2>&1; then
      found=yes
      break
    fi
  done
  [ -n "$found" ] || missing+=("$rule")
done
echo "$(wc -w <<<"$rules") rules"
if [ ${#missing[@]} -gt 0 ]; then
  echo "no test fails without: ${missing[*]}"
  exit 1
fi
