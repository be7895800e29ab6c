#!/usr/bin/env bash
# Known vulnerabilities of the pinned dependencies, as the package index tells them: 1 where there are any. Where nobody
# can be asked it says so and ends with 0: a change must not wait for an index. Called with a Python and a directory.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 directory=$2
unasked() {
    echo "audit.sh: not audited: $1" >&2
    exit 0
}
"$python" -m venv "$directory"
"$directory/bin/pip" install --quiet pip-audit 2>"$directory/log" || unasked "pip-audit cannot be installed"
code=0
"$directory/bin/pip-audit" --requirement requirements/runtime.txt --require-hashes --disable-pip --format json \
    --progress-spinner off >"$directory/report.json" 2>"$directory/log" || code=$?
[ -s "$directory/report.json" ] || unasked "$(tail -n 1 "$directory/log")"
"$directory/bin/python" - "$directory/report.json" <<'PYTHON'
import json
import sys

packages = json.load(open(sys.argv[1]))["dependencies"]
skipped = [package["name"] for package in packages if "skip_reason" in package]
found = [(package["name"], package["version"], flaw["id"]) for package in packages for flaw in package.get("vulns", [])]
for name, version, flaw in found:
    print(f"{name} {version}: {flaw}")
print(f"{len(packages)} packages: {len(found)} vulnerabilities, {len(skipped)} unknown to the index")
PYTHON
exit "$code"
