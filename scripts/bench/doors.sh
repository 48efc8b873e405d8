#!/usr/bin/env bash
# The door to the network under load: idle connections, mixed calls at a steady rate, and clients that dawdle.
#
#   ./scripts/bench/doors.sh       prints the figures and updates docs/benchmarks.md
#
# Client and kraud share the machine's processors. Needs root and a quiet machine. BENCH_SECONDS (60) makes it shorter for a
# try; then the document stays as it is.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"
. "$REPO/tests/lib/common.sh"

need_root
KRAUD_BIN=${KRAUD_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/kraud}
[ -x "$KRAUD_BIN" ] || die "no $KRAUD_BIN: cargo build --release -p kraud -p shim"
ulimit -n "$(ulimit -Hn)"
work=$(scratch_dir)
finish() {
    timeout 60 "$KRAUD_BIN" stop --containers --data-dir "$work/data" --socket "$work/kraud.sock" >/dev/null 2>&1 || true
    rm -rf --one-file-system "$work"
}
trap finish EXIT
setsid "$KRAUD_BIN" serve --data-dir "$work/data" --socket "$work/kraud.sock" --listen 127.0.0.1:0 >"$work/kraud.log" 2>&1 </dev/null &
wait_until 30 grep -q 'is ready' "$work/kraud.log" || { tail "$work/kraud.log"; die "kraud does not start"; }
KR_HOST=$(grep -o 'https://[0-9.:]*' "$work/kraud.log" | head -n 1) KRAUD_PID=$! DOCUMENT=$REPO/docs/benchmarks.md \
    TOKEN=$("$KRAUD_BIN" tenant create load -q --data-dir "$work/data" --socket "$work/kraud.sock") \
    python3 "$REPO/scripts/bench/doors.py"
