#!/usr/bin/env bash
# Volumes beside the bare file systems that they are kept on, on this machine and in one run.
#
#   ./scripts/bench/volumes.sh             all measurements; prints them and updates docs/benchmarks.md
#   ./scripts/bench/volumes.sh operations  only these: operations files block snapshots; the document stays as it is
#
# Needs root, fio, 15 GB of disk, and a quiet machine. Takes about a quarter of an hour.
# BENCH_FILES (1000000), BENCH_BYTES (5G), BENCH_SIZE (2g) and BENCH_SECONDS (10) make it smaller for a try.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"
. "$REPO/tests/lib/common.sh"

need_root
for program in fio docker python3 mkfs.btrfs mkfs.ext4; do command -v $program >/dev/null || die "no $program"; done
KRAUD_BIN=${KRAUD_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/kraud}
[ -x "$KRAUD_BIN" ] || die "no $KRAUD_BIN: cargo build --release -p kraud -p shim -p kra"
need_disk "${KRAUD_TEST_TMP:-/var/tmp}" 15000

work=$(scratch_dir)
finish() {
    awk -v d="$work/bare" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac | while read -r point; do umount "$point"; done
    daemon_destroy "$work/kraud" || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT
trap 'exit 143' TERM INT
export DOCKER_CONFIG=$work/docker-config KRAUD_TEST_CACHE=$work/cache
mkdir -p "$DOCKER_CONFIG" "$KRAUD_TEST_CACHE" "$work/kraud"
unset DOCKER_HOST DOCKER_CONTEXT
daemon_start "$work/kraud"
docker load -q -i "$(busybox_archive)" >/dev/null
# The default pool may be too small for the sparse image.
KRAUD_DATA_DIR=$work/kraud/data KRAUD_SOCKET=$work/kraud/run/kraud.sock "$KRAUD_BIN" pool create bench --size 80G >/dev/null
SOCKET=$work/kraud/run/kraud.sock POOL=$work/kraud/data/pools/bench WORK=$work DOCUMENT=$REPO/docs/benchmarks.md \
    python3 "$REPO/scripts/bench/volumes.py" "$@"
