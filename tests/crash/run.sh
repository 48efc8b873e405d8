#!/usr/bin/env bash
# Living through crashes: kraud gets SIGKILL at the worst moments and is started again on the same data.
#
#   tests/crash/run.sh              all of them
#   tests/crash/run.sh logs create  those whose name contains one of these
#
# CRASH_ROUNDS=N (default 12) kills per randomized test; CRASH_SEED=N replays the moments of a run.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" = --one ]; then
    # One test, in a shell of its own: --one NAME DIR.
    set -Eeuo pipefail
    . "$here/../e2e/lib.sh"
    . "$here/tests.sh"
    D=$3 T=$3/t
    mkdir -p "$T"; cd "$T"
    RANDOM=${CRASH_SEED:-1}
    trap 'echo "    FAILED: line $LINENO (exit $?): $BASH_COMMAND" >&2' ERR
    daemon_start "$D"
    docker load -q -i "$(busybox_archive)" >/dev/null
    "$2"
    exit
fi

. "$here/../lib/common.sh"
[ "$(id -u)" = 0 ] || die "the crash tests need root"
find_kraud
work=$(scratch_dir)
trap 'rm -rf --one-file-system "$work"' EXIT
# Ended from outside it still removes what its daemon runs.
trap 'kill -TERM $(jobs -p) 2>/dev/null; wait; [ -z "${dir:-}" ] || daemon_destroy "$dir"; exit 143' TERM INT
export KRAUD_TEST_CACHE=$work/cache DOCKER_CONFIG=$work/docker-config REPO
export CRASH_SEED=${CRASH_SEED:-$((RANDOM + 1))} CRASH_ROUNDS=${CRASH_ROUNDS:-12}
mkdir -p "$KRAUD_TEST_CACHE" "$DOCKER_CONFIG"
busybox_archive >/dev/null
echo "CRASH_SEED=$CRASH_SEED"
passed=0 failed=0
verdict() {
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "$1 crash: $2"
}
for name in $(sed -n 's/^\(test_[a-z0-9_]*\)().*/\1/p' "$here/tests.sh"); do
    if [ $# -gt 0 ]; then
        hit=; for part in "$@"; do [[ $name != *"$part"* ]] || hit=1; done
        [ -n "$hit" ] || continue
    fi
    dir=$work/${name#test_}
    mkdir -p "$dir"
    from=$(date +%s%N)
    # In the background, so that a signal to this script is answered at once.
    timeout -k 5 "${CRASH_TEST_TIMEOUT:-120}" bash "$here/run.sh" --one "$name" "$dir" >"$work/output" 2>&1 </dev/null &
    rc=0; wait $! || rc=$?
    output=$(<"$work/output")
    result=ok
    if [ $rc != 0 ]; then
        [ $rc != 124 ] || output+=$'\n    timed out'
        result="not ok"
    fi
    if grep -q "panicked at" "$dir/kraud.log" 2>/dev/null; then
        result="not ok"; output+=$'\n'$(grep -A2 "panicked at" "$dir/kraud.log" | head -n 12)
    fi
    # Whatever state the test ended in, a last daemon must be able to clean up, and leave nothing.
    kill -0 "$(daemon_pid "$dir" 2>/dev/null)" 2>/dev/null || (daemon_start "$dir") >/dev/null 2>&1
    left=$(daemon_destroy "$dir" 2>&1) || { result="not ok"; output+=$'\n'$left; }
    verdict "$result" "${name#test_} ($((($(date +%s%N) - from) / 1000000)) ms)"
    [ "$result" = ok ] || { printf '%s\n' "$output" | tail -n 25 | cut -c1-400; [ -z "${E2E_KEEP_LOGS:-}" ] || cp "$dir/kraud.log" "$E2E_KEEP_LOGS/crash-${name#test_}.log"; }
done
echo "crash: $passed passed, $failed failed"
[ "$failed" = 0 ]
