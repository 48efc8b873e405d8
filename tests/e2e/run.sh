#!/usr/bin/env bash
# The end-to-end suites: the real docker CLI against a temporary kraud.
#
#   tests/e2e/run.sh                 every suite, a few at a time, each with a daemon of its own
#   tests/e2e/run.sh logs exec       these suites
#   tests/e2e/run.sh logs:tail       tests of `logs` whose name contains `tail`
#
# E2E_JOBS            suites at a time (default: processors + 1)
# E2E_DOCKER_HOST     use this running daemon instead (to check the suites themselves); one suite at a time
# E2E_LEGACY=1        that daemon is a dockerd older than API 1.44
# KRAUD_BIN           the daemon to test (default: the newest in target/)
# E2E_SUITES          the directory with the suites (default: this one), E2E_NAME what they are called together
# KRAUD_TEST_TMP      scratch space on a disk file system (default /var/tmp)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suites=${E2E_SUITES:-$here}
. "$here/../lib/common.sh"

if [ "${1:-}" != --suite ]; then
    [ "$(id -u)" = 0 ] || die "the end-to-end suites need root"
    command -v docker >/dev/null || die "no docker command; install the docker CLI"
    work=$(scratch_dir)
    trap 'rm -rf --one-file-system "$work"' EXIT
    # Ended from outside, the suites still stop their daemons: the jobs get the signal, then we wait.
    trap 'kill -TERM $(jobs -p) 2>/dev/null; wait; exit 143' TERM INT
    export KRAUD_TEST_CACHE=$work/cache
    mkdir -p "$KRAUD_TEST_CACHE" "$work/results" "$work/docker-config"
    export DOCKER_CONFIG=$work/docker-config
    unset DOCKER_CONTEXT
    busybox_archive >/dev/null
    [ -n "${E2E_DOCKER_HOST:-}" ] || find_kraud

    wanted=("$@")
    if [ ${#wanted[@]} = 0 ]; then
        for file in "$suites"/[0-9a-z]*.sh; do
            case ${file##*/} in lib.sh | one.sh | run.sh) ;; *) wanted+=("$(basename "$file" .sh)") ;; esac
        done
    fi
    jobs=${E2E_JOBS:-$(($(nproc) + 1))}
    [ -z "${E2E_DOCKER_HOST:-}" ] || jobs=1
    for entry in "${wanted[@]}"; do
        [ -e "$suites/${entry%%:*}.sh" ] || die "no suite ${entry%%:*} in $suites"
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n 2>/dev/null || true; done
        bash "$here/run.sh" --suite "$entry" "$work" &
    done
    wait
    passed=0 failed=0
    for file in "$work"/results/*; do
        [ -e "$file" ] || continue
        read -r p f <"$file"
        passed=$((passed + p)) failed=$((failed + f))
    done
    echo "${E2E_NAME:-e2e}: $passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
fi

# One suite.
entry=$2 work=$3
suite=${entry%%:*}
only=; [[ $entry != *:* ]] || only=${entry#*:}
dir=$work/${entry//[:\/]/_}
mkdir -p "$dir/tests"
export E2E_WORK=$dir/tests
passed=0 failed=0
started=$SECONDS
report() { echo "$passed $failed" >"$work/results/${entry//[:\/]/_}"; }
# A suite that dies on the way has failed, whatever it counted before.
failed=1; report; failed=0
trap 'exit 143' TERM INT
trap '[ -n "${E2E_DOCKER_HOST:-}" ] || daemon_destroy "$dir" >/dev/null 2>&1' EXIT
if [ -n "${E2E_DOCKER_HOST:-}" ]; then
    export DOCKER_HOST=$E2E_DOCKER_HOST
else
    daemon_start "$dir"
fi
export KRAUD_TEST_DIR=$dir
docker load -q -i "$(busybox_archive)" >/dev/null || die "$suite: the test image does not load"

for name in $(sed -n 's/^\(test_[a-z0-9_]*\)().*/\1/p' "$suites/$suite.sh"); do
    [[ $name == *"$only"* ]] || continue
    from=$(date +%s%N)
    if output=$(timeout -k 5 "${E2E_TEST_TIMEOUT:-90}" bash "$here/one.sh" "$suites/$suite.sh" "$name" 2>&1 </dev/null); then
        passed=$((passed + 1)); verdict=ok
    else
        rc=$?
        [ $rc != 124 ] || output+=$'\n    timed out'
        failed=$((failed + 1)); verdict="not ok"
    fi
    printf '%s %s: %s (%d ms)\n' "$verdict" "$suite" "${name#test_}" $((($(date +%s%N) - from) / 1000000))
    [ "$verdict" = ok ] || printf '%s\n' "$output" | tail -n 20 | cut -c1-600
done

if [ -z "${E2E_DOCKER_HOST:-}" ]; then
    if grep -q "panicked at" "$dir/kraud.log"; then
        echo "not ok $suite: the daemon panicked"; grep -A2 "panicked at" "$dir/kraud.log" | head -n 12
        failed=$((failed + 1))
    fi
    if ! daemon_destroy "$dir"; then
        echo "not ok $suite: the daemon stops and leaves nothing behind"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
    trap - EXIT
    if [ "$failed" != 0 ] && [ -n "${E2E_KEEP_LOGS:-}" ]; then cp "$dir/kraud.log" "$E2E_KEEP_LOGS/$suite.log"; fi
fi
echo "-- $suite: $passed passed, $failed failed ($((SECONDS - started)) s)"
report
