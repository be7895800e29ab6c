#!/usr/bin/env bash
# Makes the Python environment DIRECTORY with the pinned dependencies and the project itself in it:
#
#     deploy/environment.sh DIRECTORY
#
# Uses the first Python of 3.11 or newer it finds. Where Debian or Ubuntu left out `venv`, it is installed as root, or
# the command to type is named. SWITCHBOARD_PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
directory=${1:?a directory}

die() {
    echo "environment.sh: $*" >&2
    exit 1
}

is_new_enough() {
    command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

install_packages() {
    local command="apt-get install -y --no-install-recommends $*"
    command -v apt-get >/dev/null || die "needed here, and to be installed by hand: $*"
    [[ $(id -u) -eq 0 ]] || die "missing here, and only root can install it: sudo $command"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    $command
}

find_python() {
    local candidate
    for candidate in "${SWITCHBOARD_PYTHON:-}" python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if [[ -n $candidate ]] && is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

python=$(find_python) || { install_packages python3 python3-venv >&2 && python=$(find_python); } ||
    die "no Python 3.11 or newer: install one, or name it by SWITCHBOARD_PYTHON"
# `venv` itself is there on Debian even when the package python3-venv is not; what it lacks then is `ensurepip`.
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    install_packages "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
fi

echo "making $directory with $("$python" --version)"
rm -rf "$directory"
"$python" -m venv "$directory"
pip=("$directory/bin/python" -m pip --disable-pip-version-check install --quiet)
"${pip[@]}" --require-hashes --requirement requirements/dev.txt
"${pip[@]}" --no-deps --no-build-isolation --editable .
