#!/usr/bin/env bash
# Builds the sdist and from it the wheel, installs that alone into a new virtual environment outside the checkout, and
# uses it there.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(realpath --no-symlinks "${1:-.venv/bin/python}")

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
build() { "$python" -m hatchling build "$@" >"$folder/build.log" 2>&1 || { cat "$folder/build.log"; exit 1; }; }
build -t sdist -d "$folder/sdist"
tar -xzf "$folder"/sdist/*.tar.gz -C "$folder/sdist"
(cd "$folder"/sdist/*/ && build -t wheel -d "$folder")
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check -c constraints.txt "$folder"/*.whl
cp -r tests/wheel/check.py tests/wheel/check_notebooks.py notebooks constraints.txt "$folder/"
rm -rf "$folder/notebooks/made"
cd "$folder"
# Nothing of the checkout's: neither its folder nor its environment.
env -u PYTHONPATH -u VIRTUAL_ENV venv/bin/python -I check.py
wheel=$(ls ./*.whl)
venv/bin/pip install -q --disable-pip-version-check -c constraints.txt "$wheel[cluster,notebook]"
env -u PYTHONPATH -u VIRTUAL_ENV HF_HUB_OFFLINE=1 venv/bin/python -I check_notebooks.py
