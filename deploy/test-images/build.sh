#!/usr/bin/env bash
# Builds container images with the servers the tests need, from Debian's own packages, where images cannot be pulled:
#
#     deploy/test-images/build.sh [bookworm] [trixie]       default: both; as root, with docker and debootstrap
#
# One root file system per suite, switchboard-test:SUITE, and on it one image per server, which differ in the command
# only: switchboard-test:rabbitmq-3.10 and redis-7.0 from bookworm; rabbitmq-4.0, redis-8.0 and valkey-8.1 from trixie.
# `build.sh --python SUITE` builds switchboard-python:SUITE, a base for the worker's own image (deploy/Dockerfile).
# The mirror is the one this machine's apt uses; SWITCHBOARD_DEBIAN_MIRROR names another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

die() {
    echo "build.sh: $*" >&2
    exit 1
}

debian_mirror() {
    local file
    if [[ -n ${SWITCHBOARD_DEBIAN_MIRROR:-} ]]; then
        echo "$SWITCHBOARD_DEBIAN_MIRROR"
        return
    fi
    # Both forms of apt's sources: "URIs: A B" and "deb [options] A suite component".
    for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [[ -f $file ]] || continue
        sed -nE -e 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' \
            -e 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+).*/\2/p' "$file"
    done | grep -E '/debian/?$' | head -n 1
}

use_proxies_of_apt() {
    local http='' https=''
    eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
    if [[ -n $http ]]; then export http_proxy=$http; fi
    if [[ -n $https ]]; then export https_proxy=$https; fi
}

# What each suite gives, as the tags of its images; the part before the hyphen is the server's package and command.
servers_of() {
    case $1 in
    bookworm) echo rabbitmq-3.10 redis-7.0 ;;
    trixie) echo rabbitmq-4.0 redis-8.0 valkey-8.1 ;;
    *) die "unknown suite $1: bookworm or trixie" ;;
    esac
}

# make_root SUITE PACKAGES: a minimal Debian with the packages, in $root.
make_root() {
    debootstrap --foreign --variant=minbase --include="$2" "$1" "$root" "$mirror"
    # The packages' scripts must not start their servers inside the directory.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    chroot "$root" /debootstrap/debootstrap --second-stage
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale} "$root"/var/log/*.log
}

import_image() {
    tar --numeric-owner --one-file-system -C "$root" -c . | docker import "${@:2}" - "$1" >/dev/null
    echo "built $1 in $SECONDS s"
}

build_servers() {
    local tag packages=''
    for tag in $(servers_of "$1"); do packages+=,${tag%-*}-server; done
    make_root "$1" "${packages#,}"
    install -m 755 "$here/serve" "$root/usr/local/bin/serve"
    # Where volumes are mounted, as in the servers' usual images; which of the users it is, is decided later.
    install -d -m 1777 "$root/data"
    import_image "switchboard-test:$1" --change 'ENTRYPOINT ["/usr/local/bin/serve"]'
    for tag in $(servers_of "$1"); do
        docker build --quiet --tag "switchboard-test:$tag" --build-arg "SUITE=$1" --build-arg "SERVER=${tag%-*}" "$here"
    done
}

build_python() {
    make_root "$1" python3,python3-venv,python3-pip,ca-certificates
    # The certificates this machine trusts, which may include its network's own: pip must reach an index from inside.
    install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    import_image "switchboard-python:$1" --change 'CMD ["python3"]' \
        --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt'
}

build() {
    root=$(mktemp -d /var/tmp/switchboard-image.XXXXXX)
    SECONDS=0
    "$@"
    rm -rf --one-file-system "$root"
}

clean_up() {
    if [[ -d ${root:-} ]]; then
        umount "$root/proc" "$root/sys" 2>/dev/null || true
        rm -rf --one-file-system "$root"
    fi
}

[[ $(id -u) -eq 0 ]] || die "must run as root (debootstrap makes a root file system)"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap debian-archive-keyring"
docker version >/dev/null 2>&1 || die "no container engine answers"
mirror=$(debian_mirror)
[[ -n $mirror ]] || die "apt's sources name no Debian mirror; set SWITCHBOARD_DEBIAN_MIRROR"
use_proxies_of_apt
trap clean_up EXIT
trap 'exit 130' INT TERM

if [[ ${1:-} == --python ]]; then
    build build_python "${2:?a suite}"
    exit
fi
if [[ $# -eq 0 ]]; then set -- bookworm trixie; fi
for suite in "$@"; do servers_of "$suite" >/dev/null; done
for suite in "$@"; do build build_servers "$suite"; done
