#!/usr/bin/env bash
# Runs one test of one suite: one.sh SUITE.sh test_name. Called by run.sh, which sets the environment.
set -Eeuo pipefail
suite=$1 name=$2
. "$(dirname "$0")/lib.sh"
T=$(mktemp -d "${E2E_WORK:?}/t.XXXXXX")
export T
cd "$T"
sweep() {
    local ids
    ids=$(docker ps -aq 2>/dev/null) || true
    # shellcheck disable=SC2086
    [ -z "$ids" ] || docker rm -fv $ids >/dev/null 2>&1 || true
    ids=$(docker network ls -q --filter type=custom 2>/dev/null) || true
    # shellcheck disable=SC2086
    [ -z "$ids" ] || docker network rm $ids >/dev/null 2>&1 || true
    cd /
    rm -rf "$T"
}
trap sweep EXIT
trap 'echo "    FAILED: line $LINENO of $(basename "${BASH_SOURCE[0]}") (exit $?): $BASH_COMMAND" >&2' ERR
. "$suite"
"$name"
