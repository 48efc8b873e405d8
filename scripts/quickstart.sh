#!/usr/bin/env bash
# From a checkout to a running container, on a Debian 12 machine with git and the Rust toolchain.
#
#   ./scripts/quickstart.sh          build, start, run a container; again: quick and harmless
#   ./scripts/quickstart.sh stop     stop the containers and the daemon, remove everything it made
#
# The daemon is one of its own: data in /var/lib/kraud-quickstart, socket /run/kraud-quickstart/kraud.sock.
# KRAUD_QUICKSTART_DIR and KRAUD_QUICKSTART_RUN name other places.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"
cd /

DATA=${KRAUD_QUICKSTART_DIR:-/var/lib/kraud-quickstart}
RUN=${KRAUD_QUICKSTART_RUN:-/run/kraud-quickstart}
SOCKET=$RUN/kraud.sock
PIDFILE=$RUN/kraud.pid
LOG=$DATA/kraud.log
KRAUD=${CARGO_TARGET_DIR:-$REPO/target}/release/kraud
IMAGE=kraud-hello

running() {
    local pid exe
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
    # A pid alone may belong to somebody else by now.
    exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
    [ "${exe% (deleted)}" = "$(readlink -m "$KRAUD")" ]
}

dk() { DOCKER_HOST=unix://$SOCKET docker "$@"; }

answers() { [ -S "$SOCKET" ] && dk version >/dev/null 2>&1; }

build() {
    say "building (the first time takes some minutes)"
    need_disk "$(dirname "$(dirname "$KRAUD")")" 2500
    # shellcheck disable=SC2046
    (cd "$REPO" && cargo build --release --locked --quiet $(binary_packages)) ||
        die "the build failed; the compiler's message is above"
}

start() {
    need_disk "$DATA" 500
    mkdir -p "$DATA" "$RUN"
    setsid "$KRAUD" serve --data-dir "$DATA" --socket "$SOCKET" --listen none >>"$LOG" 2>&1 </dev/null 9>&- &
    echo $! >"$PIDFILE"
    local try
    for try in $(seq 100); do
        if answers; then return; fi
        running || break
        sleep 0.1
    done
    tail -n 20 "$LOG" >&2
    die "kraud did not become ready; the whole log is $LOG, and '$KRAUD doctor' checks this machine"
}

end_daemon() {
    local pid try
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 0
    ! running || kill -TERM "$pid" 2>/dev/null || true
    for try in $(seq 200); do
        running || break
        sleep 0.1
    done
    ! running || { kill -KILL "$pid"; say "kraud (pid $pid) did not stop in 20 s and was killed"; }
    rm -f "$PIDFILE"
}

make_image() {
    local work busybox=/bin/busybox applet
    dk image inspect "$IMAGE" >/dev/null 2>&1 && return
    say "making the image $IMAGE out of busybox"
    work=$(mktemp -d)
    mkdir -p "$work"/{bin,dev,etc,proc,root,sys,tmp,var}
    [ -x "$busybox" ] || busybox=/usr/bin/busybox
    cp "$busybox" "$work/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$work/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$work/etc/passwd"
    echo 'root:x:0:' >"$work/etc/group"
    echo "Hello from a container on kraud." >"$work/etc/motd"
    tar -C "$work" -c . |
        dk import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
            -c 'CMD ["cat", "/etc/motd"]' - "$IMAGE" >/dev/null
    rm -rf "$work"
}

stop() {
    if ! running && [ ! -e "$DATA" ]; then
        say "nothing to stop"
        rm -rf "$RUN" /run/lock/kraud-quickstart.lock
        return
    fi
    [ -x "$KRAUD" ] || die "$KRAUD is gone, and with it the way to stop what it runs: build it, then call stop again"
    command -v docker >/dev/null || need_docker_cli
    # What a killed daemon left behind is known to its store: a daemon on the same data finds and removes it.
    answers || { end_daemon; start; }
    say "stopping the containers and the daemon"
    local ids
    ids=$(dk ps -aq)
    # shellcheck disable=SC2086
    [ -z "$ids" ] || dk rm -f -v $ids >/dev/null
    "$KRAUD" stop --containers --data-dir "$DATA" --socket "$SOCKET" >/dev/null || say "kraud stop failed; ending the daemon by its pid"
    end_daemon
    if grep -q " $DATA/" /proc/self/mountinfo; then
        grep -o " $DATA/[^ ]*" /proc/self/mountinfo >&2
        die "these are still mounted; $DATA is left as it is"
    fi
    rm -rf --one-file-system "$DATA" "$RUN"
    rm -f /run/lock/kraud-quickstart.lock
    say "done: $DATA and $RUN are gone; the build stays in $REPO/target"
}

need_root
mkdir -p "$RUN" /run/lock
exec 9>/run/lock/kraud-quickstart.lock
flock -n 9 || die "another quickstart.sh is at work"

case ${1:-start} in
    start) ;;
    stop) stop; exit ;;
    *) die "usage: $0 [stop]" ;;
esac

need_cargo
need_packages crun=crun nft=nftables mkfs.btrfs=btrfs-progs mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs busybox=busybox-static cc=gcc '/usr/include/stdlib.h=libc6-dev'
need_docker_cli
old=$(stat -c %Y "$KRAUD" 2>/dev/null || echo none)
build
if running && [ "$(stat -c %Y "$KRAUD")" != "$old" ]; then
    say "kraud was built anew: restarting the daemon (running containers stay up)"
    end_daemon
fi
if answers; then
    say "kraud is already running (pid $(cat "$PIDFILE" 2>/dev/null || echo unknown))"
else
    say "starting kraud"
    end_daemon
    start
fi
make_image
say "docker run --rm $IMAGE"
dk run --rm "$IMAGE" 9>&-

hello=$(command -v docker)
case $hello in "$TOOLS"/*) ;; *) hello=docker ;; esac
cat <<END

kraud is running.
  data     $DATA
  socket   $SOCKET
  log      $LOG

To go on with docker, type:
  export DOCKER_HOST=unix://$SOCKET
  $hello ps -a
  $hello run -it --rm $IMAGE sh
  $hello run -d --name web -p 8080:80 $IMAGE httpd -f -h /etc
  curl http://127.0.0.1:8080/motd

To stop it and remove everything:
  $REPO/scripts/quickstart.sh stop
END
