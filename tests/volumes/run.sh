#!/usr/bin/env bash
# What volumes promise, checked on a real kraud: files behave as on the bare file system, nothing is lost in crashes,
# sizes are kept, bad input changes nothing.
#
#   tests/volumes/run.sh                 all tests, a few at a time, each with a daemon of its own
#   tests/volumes/run.sh faults quota    these files
#   tests/volumes/run.sh crash:rollback  tests of `crash` whose name contains `rollback`
#
# VOLUMES_JOBS     tests at a time (default: processors)
# VOLUMES_ROUNDS   kills per randomized test (default 5); VOLUMES_SEED=N replays the moments of a run
# KRAUD_BIN        the daemon to test, a debug build (its fault points are needed), with kra beside it
# KRAUD_TOOLS      where bin/fsx, bin/pjdfstest and zfs-fuse/ are (default: target/tools; scripts/test.sh fills it)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ "${1:-}" = --one ]; then
    # One test, in a shell of its own: --one FILE NAME DIR.
    . "$here/one.sh"
    exit
fi

. "$here/../lib/common.sh"
[ "$(id -u)" = 0 ] || die "the volume tests need root"
find_kraud
KRAUD_TOOLS=${KRAUD_TOOLS:-$REPO/target/tools}
PATH=$(dirname "$KRAUD_BIN"):$PATH
for program in kra docker fio python3 cc mkfs.btrfs mkfs.xfs; do
    command -v $program >/dev/null || die "no $program: scripts/test.sh volumes brings all that is needed"
done
if [ -z "${VOLUMES_MOUNTS:-}" ]; then
    # Mounts of its own: a program elsewhere that takes a copy of the machine's mounts (a test of ZFS does) would keep
    # the pools of these tests busy after they are unmounted here, and these tests would do the same to others.
    VOLUMES_MOUNTS=own exec unshare --mount --propagation private bash "$here/run.sh" "$@"
fi
foreign_mounts_go
work=$(scratch_dir)
trap 'rm -rf --one-file-system "$work"' EXIT
# Ended from outside, the tests still stop their daemons: the jobs get the signal, then we wait.
trap 'kill -TERM $(jobs -p) 2>/dev/null; wait; exit 143' TERM INT
export KRAUD_TOOLS PATH REPO KRAUD_TEST_CACHE=$work/cache DOCKER_CONFIG=$work/docker-config
export VOLUMES_SEED=${VOLUMES_SEED:-$((RANDOM + 1))} VOLUMES_ROUNDS=${VOLUMES_ROUNDS:-5}
mkdir -p "$KRAUD_TEST_CACHE" "$DOCKER_CONFIG" "$work/results"
unset DOCKER_CONTEXT
busybox_archive >/dev/null
# A clock that a test can set forward; see clock.c.
cc -O1 -shared -fPIC -o "$KRAUD_TEST_CACHE/clock.so" "$here/clock.c" -ldl || die "cc does not compile clock.c"
echo "VOLUMES_SEED=$VOLUMES_SEED"

wanted=("$@")
# The long ones first, so that both processors are busy to the end.
[ ${#wanted[@]} -gt 0 ] || wanted=(faults inside crash quota input)
tests=()
for entry in "${wanted[@]}"; do
    file=$here/${entry%%:*}.sh part=
    [ -e "$file" ] || die "no $file"
    [[ $entry != *:* ]] || part=${entry#*:}
    for name in $(sed -n 's/^\(test_[a-z0-9_]*\)().*/\1/p' "$file"); do
        [[ $name != *"$part"* ]] || tests+=("${entry%%:*} $name")
    done
done

# one FILE NAME: runs a test, says what became of it, and keeps the verdict.
one() {
    local file=$1 name=$2 dir=$work/$1-${2#test_} from result=ok rc=0
    local -a around=(timeout -k 10 "${VOLUMES_TEST_TIMEOUT:-900}")
    mkdir -p "$dir"
    from=$(date +%s%N)
    # zfs-fuse has one place for its socket on a machine: a test that needs it gets its own mounts.
    [[ $name != *zfs* ]] || around+=(unshare --mount --propagation private)
    "${around[@]}" bash "$here/run.sh" --one "$file" "$name" "$dir" >"$dir.out" 2>&1 </dev/null &
    # In the background, so that a signal is answered at once; the test then ends its daemon.
    trap "kill -TERM $!; wait $!; exit 143" TERM
    wait $! || rc=$?
    [ $rc != 124 ] || echo "    timed out" >>"$dir.out"
    [ $rc = 0 ] || result="not ok"
    echo "$result" >"$work/results/$file-$name"
    {
        echo "$result volumes: $file: ${name#test_} ($((($(date +%s%N) - from) / 1000000)) ms)"
        [ "$result" = ok ] || tail -n 25 "$dir.out" | cut -c1-500
    } >"$dir.said"
    cat "$dir.said"
    if [ "$result" != ok ] && [ -n "${E2E_KEEP_LOGS:-}" ]; then
        cp "$dir/kraud.log" "$E2E_KEEP_LOGS/volumes-$file-${name#test_}.log" 2>/dev/null
        cp "$dir.out" "$E2E_KEEP_LOGS/volumes-$file-${name#test_}.out"
    fi
}

from=$SECONDS
for entry in "${tests[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "${VOLUMES_JOBS:-$(nproc)}" ]; do wait -n 2>/dev/null || true; done
    # shellcheck disable=SC2086
    one $entry &
done
wait
passed=$(grep -lx ok "$work"/results/* 2>/dev/null | wc -l)
failed=$((${#tests[@]} - passed))
echo "-- $((SECONDS - from)) s"
echo "volumes: $passed passed, $failed failed"
[ "$failed" = 0 ]
