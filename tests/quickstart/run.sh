#!/usr/bin/env bash
# scripts/quickstart.sh as a newcomer uses it: start, start again, stop, stop again; and after a crash.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/common.sh"
[ "$(id -u)" = 0 ] || die "quickstart needs root"
work=$(scratch_dir)
export KRAUD_QUICKSTART_DIR=$work/data KRAUD_QUICKSTART_RUN=$work/run DOCKER_CONFIG=$work/docker-config
trap '"$REPO/scripts/quickstart.sh" stop >/dev/null 2>&1; rm -rf --one-file-system "$work"' EXIT
host=unix://$work/run/kraud.sock
passed=0 failed=0
PATH=$PATH:${KRAUD_TOOLS:-$REPO/target/tools}/docker.io/usr/bin

step() {
    local text=$1 from=$SECONDS; shift
    if "$@" >"$work/out" 2>&1 </dev/null; then
        passed=$((passed + 1)); echo "ok quickstart: $text ($((SECONDS - from)) s)"
    else
        failed=$((failed + 1)); echo "not ok quickstart: $text"; tail -n 20 "$work/out"
    fi
}
# As it is typed: from the checkout, by a relative path.
start() { (cd "$REPO" && ./scripts/quickstart.sh); }
stop() { (cd "$REPO" && ./scripts/quickstart.sh stop); }
says_hello() { start && grep -q 'Hello from a container on kraud' "$work/out" && grep -q 'kraud is running' "$work/out"; }
quick() { local from=$SECONDS; says_hello && [ $((SECONDS - from)) -le 20 ]; }
keeps() { [ "$(docker -H "$host" ps --format '{{.Names}}')" = stays ]; }
crashed() { kill -KILL "$(cat "$work/run/kraud.pid")"; sleep 0.2; }
refused() {
    # A copy that anybody may read, wherever the checkout is.
    chmod 711 "$work"; cp -r "$REPO/scripts" "$work/scripts"; chmod -R a+rX "$work/scripts"
    ! setpriv --reuid=65534 --clear-groups "$work/scripts/quickstart.sh" >"$work/refused" 2>&1 && grep -q 'must run as root' "$work/refused"
}

leak_snapshot "$work/before"
step 'builds, starts, runs a container' says_hello
step 'a container started by hand' docker -H "$host" run -d --name stays -p 127.0.0.1::80 kraud-hello sleep 1000
step 'a second call is quick' quick
step 'and harmless' keeps
step 'after a crash it starts again' crashed
step 'by the same call' quick
step 'with the container still there' keeps
step 'stop' stop
step 'nothing is left behind' leak_check "$work/before"
step 'its data is gone' test ! -e "$work/data"
step 'a second stop is harmless' stop
step 'only root is let in' refused
echo "quickstart: $passed passed, $failed failed"
[ "$failed" = 0 ]
