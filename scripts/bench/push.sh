#!/usr/bin/env bash
# kra push beside `docker push` to a registry and `docker save | docker load`, over a link of 100 Mbit/s and 20 ms.
#
#   ./scripts/bench/push.sh                   all measurements; prints them and updates docs/benchmarks.md
#   ./scripts/bench/push.sh python node       only these: python node assemble; the document stays as it is
#
# The images are real: packages from PyPI and npm, then one of them in its next version, with all times new. The link is
# a relay in front of each server that delays and counts bytes (this kernel need have no netem). Needs root, dockerd,
# pip, npm, the package docker-registry (fetched as the tests do), and a quiet machine.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"
. "$REPO/tests/lib/common.sh"

need_root
command -v dockerd >/dev/null || die "no dockerd to compare with: apt-get install docker.io (and stop its service)"
mkdir -p "$TOOLS"
unpack_package docker-registry || die "docker-registry is not to be had"
target=${CARGO_TARGET_DIR:-$REPO/target}/release
export KRAUD_BIN=${KRAUD_BIN:-$target/kraud} KRA=${KRA:-$target/kra} REGISTRY=$TOOLS/docker-registry/usr/bin/docker-registry
[ -x "$KRAUD_BIN" ] && [ -x "$KRA" ] || die "no $KRAUD_BIN: cargo build --release -p kraud -p shim -p kra"
WORK=$(scratch_dir)
export WORK REPO DOCKER_CONFIG=$WORK/docker-config KRAUD_TEST_CACHE=$WORK/cache TREES=${BENCH_TREES:-$WORK/trees}
finish() {
    awk -v d="$WORK/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do umount -l "$point"; done
    rm -rf --one-file-system "$WORK"
}
trap finish EXIT
unset DOCKER_HOST DOCKER_CONTEXT KR_HOST KR_ACCESS_TOKEN
mkdir -p "$DOCKER_CONFIG" "$KRAUD_TEST_CACHE"
BUSYBOX_ARCHIVE=$(busybox_archive) DOCUMENT=$REPO/docs/benchmarks.md python3 "$REPO/scripts/bench/push.py" "$@"
