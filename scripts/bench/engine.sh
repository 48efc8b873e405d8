#!/usr/bin/env bash
# kraud beside dockerd (Debian's docker.io: containerd, runc), on this machine and in one run.
#
#   ./scripts/bench/engine.sh              all measurements; prints them and updates docs/benchmarks.md
#   ./scripts/bench/engine.sh run logs     only these; the document stays as it is
#
# Both daemons get fresh data directories on the same disk and a network namespace of their own, with the
# default bridge network; what is measured alternates between them. Needs root, dockerd, and a quiet machine.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lib.sh"
. "$REPO/tests/lib/common.sh"

need_root
command -v dockerd >/dev/null || die "no dockerd to compare with: apt-get install docker.io (and stop its service)"
command -v docker >/dev/null || die "no docker command"
KRAUD_BIN=${KRAUD_BIN:-${CARGO_TARGET_DIR:-$REPO/target}/release/kraud}
[ -x "$KRAUD_BIN" ] || die "no $KRAUD_BIN: cargo build --release -p kraud -p shim"

work=$(scratch_dir)
pids=()
finish() {
    local pid socket ids
    # Also where a measurement has failed: containers outlive both daemons.
    for socket in "$work/dockerd/docker.sock" "$work/kraud.sock"; do
        ids=$(timeout 20 docker -H "unix://$socket" ps -aq 2>/dev/null) || continue
        # shellcheck disable=SC2086
        [ -z "$ids" ] || timeout 120 docker -H "unix://$socket" rm -fv $ids >/dev/null 2>&1 || true
    done
    timeout 60 "$KRAUD_BIN" stop --containers --data-dir "$work/kraud/data" --socket "$work/kraud.sock" >/dev/null 2>&1 || true
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait_until 20 pid_gone "$pid" || kill -KILL "$pid"; done
    awk -v d="$work/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r point; do umount -l "$point"; done
    rm -rf --one-file-system "$work"
}
trap finish EXIT
export DOCKER_CONFIG=$work/docker-config KRAUD_TEST_CACHE=$work/cache
mkdir -p "$DOCKER_CONFIG/cli-plugins" "$KRAUD_TEST_CACHE" "$work/dockerd"
[ -z "${COMPOSE_PLUGIN:-}" ] || ln -s "$COMPOSE_PLUGIN" "$DOCKER_CONFIG/cli-plugins/docker-compose"
unset DOCKER_HOST DOCKER_CONTEXT

# In a network namespace of its own a daemon's bridge and rules can neither meet the other's nor stay behind.
# exec: the job's pid is then the daemon's own.
alone() { exec setsid unshare -n sh -c 'ip link set lo up; exec "$@"' sh "$@" </dev/null; }
alone dockerd -H "unix://$work/dockerd/docker.sock" --data-root "$work/dockerd/data" \
    --exec-root "$work/dockerd/exec" --pidfile "$work/dockerd/pid" >"$work/dockerd.log" 2>&1 &
pids+=($!)
alone "$KRAUD_BIN" serve --data-dir "$work/kraud/data" --socket "$work/kraud.sock" >"$work/kraud.log" 2>&1 &
pids+=($!)
wait_until 30 docker -H "unix://$work/dockerd/docker.sock" version || { tail "$work/dockerd.log"; die "dockerd does not start"; }
wait_until 30 docker -H "unix://$work/kraud.sock" version || { tail "$work/kraud.log"; die "kraud does not start"; }

KRAUD_SOCKET=$work/kraud.sock DOCKERD_SOCKET=$work/dockerd/docker.sock KRAUD_PID=${pids[1]} DOCKERD_PID=${pids[0]} \
    BUSYBOX_ARCHIVE=$(busybox_archive) WORK=$work DOCUMENT=$REPO/docs/benchmarks.md \
    python3 "$REPO/scripts/bench/${BENCH_PROGRAM:-engine.py}" "$@"
