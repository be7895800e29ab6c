#!/usr/bin/env bash
# Writes runtime.txt, build.txt (what packs the project) and dev.txt (all of it) in requirements/: every dependency of pyproject.toml, one version for all
# supported Pythons, with the hashes of all its files. `make pins` calls it; it needs `uv` (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "pins.sh: uv is missing: pip install uv" >&2; exit 1; }
compile() {
    uv pip compile --quiet --no-config --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "make pins" "$@"
}
compile pyproject.toml --extra fast --extra tracing --output-file requirements/runtime.txt
# The worker's image installs the first file, tests run on the second: the same versions in both.
compile pyproject.toml requirements/build.in --group dev --constraint requirements/runtime.txt \
    --output-file requirements/dev.txt
compile requirements/build.in --constraint requirements/dev.txt --output-file requirements/build.txt
