#!/usr/bin/env bash
# Every answer of a real daemon against the published schema of the Docker Engine API: names, types, presence, nulls,
# statuses and errors; see schema.py for what is demanded and calls.py for what is asked.
#
#   tests/schema/run.sh
#
# E2E_DOCKER_HOST uses a running daemon instead: that is how a doubtful demand is settled.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/common.sh"
. "$here/../lib/registry.sh"
[ "$(id -u)" = 0 ] || die "the tests need root"
work=$(scratch_dir)
mkdir -p "$work/cache" "$work/docker-config"
export KRAUD_TEST_CACHE=$work/cache DOCKER_CONFIG=$work/docker-config
finish() { registry_stop "$work/registry"; [ -n "${E2E_DOCKER_HOST:-}" ] || daemon_destroy "$work/kraud" >/dev/null 2>&1; rm -rf --one-file-system "$work"; }
trap finish EXIT
if [ -n "${E2E_DOCKER_HOST:-}" ]; then export DOCKER_HOST=$E2E_DOCKER_HOST; else
    find_kraud
    daemon_start "$work/kraud"
fi
docker load -q -i "$(busybox_archive)" >/dev/null || die "the test image does not load"
if [ -x "${DOCKER_REGISTRY_BIN:-}" ] || command -v docker-registry >/dev/null; then
    registry_start "$work/registry" schema secret
    export REGISTRY
fi
PYTHONDONTWRITEBYTECODE=1 timeout -k 5 240 python3 "$here/calls.py" >"$work/log" 2>&1 </dev/null
grep -v '^schema: ' "$work/log"
read -r passed failed < <(sed -n 's/^schema: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$work/log")
[ -n "${failed:-}" ] || { passed=0 failed=1; echo "not ok schema: it comes to its end"; }
if [ -z "${E2E_DOCKER_HOST:-}" ]; then
    ! grep -A2 "panicked at" "$work/kraud/kraud.log" || { failed=$((failed + 1)); echo "not ok schema: the daemon did not panic"; }
    if daemon_destroy "$work/kraud"; then passed=$((passed + 1)); else
        failed=$((failed + 1)); echo "not ok schema: the daemon stops and leaves nothing behind"
    fi
fi
echo "schema: $passed passed, $failed failed"
[ "$failed" = 0 ]
