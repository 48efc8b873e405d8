# Words for the tests of volumes; sourced after e2e/lib.sh, whose assertions are used. $D is the daemon's directory.

# The system's own, where a version manager's wrapper comes first in PATH: it is called thousands of times.
PYTHON=/usr/bin/python3; [ -x $PYTHON ] || PYTHON=python3

# A volume that takes no snapshots by itself when an hour begins in the middle of a test.
create() { kra volume create "$@" --snapshots none >/dev/null; }
snap() { kra volume snapshot create "$@" >/dev/null; }
# json COMMAND… EXPRESSION: a Python expression over what kra printed, as `j`.
json() {
    local expression=${*: -1}
    kra "${@:1:$#-1}" -o json | $PYTHON -c "import json, sys; j = json.load(sys.stdin); r = $expression; print(*r) if isinstance(r, list) else print(r)"
}
mountpoint_of() { docker volume inspect -f '{{.Mountpoint}}' "$1"; }
exists() { kra volume inspect "$1" >/dev/null 2>&1; }
snapshots() { json volume snapshot ls "$1" '[s["name"] for s in j]'; }

# in_volume VOLUME SCRIPT: a shell in a container that has the volume at /v.
in_volume() { docker run --rm -v "$1:/v" $IMG sh -c "$2"; }
# tree VOLUME[@SNAPSHOT]: one sum of all names, modes and contents.
tree() {
    local mode=; [[ $1 != *@* ]] || mode=:ro
    docker run --rm -v "$1:/v$mode" $IMG sh -c \
        'cd /v && find . ! -name lost+found | sort | while read -r f; do if [ -f "$f" ]; then sha256sum "$f"; else echo "$f"; fi; stat -c "%a %u %g %n" "$f"; done | sha256sum'
}
# plant VOLUME WORD: a small tree that depends on the word.
plant() {
    in_volume "$1" "rm -rf /v/[a-z]*; mkdir -p /v/d/e; echo $2 >/v/word; for i in 1 2 3 4 5; do yes $2-\$i | head -c 30000 >/v/d/f\$i; done; chmod 640 /v/d/f1; ln -s f1 /v/d/link; ln /v/d/f2 /v/d/e/hard; sync -f /v"
}
# word VOLUME[@SNAPSHOT]: what was planted.
word() { kra volume cp "$1:/word" - | tar -xO; }

crash() { daemon_kill "$D"; daemon_start "$D"; }
# Some milliseconds, up to $1.
moment() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }
# Waits for background commands, which may well fail when the daemon goes away under them.
settle() { wait "$@" 2>/dev/null || true; }

# power_cut: what is left of a machine that lost its power, as far as one can do that to a daemon: of the pool only
# what its device had got, no process, no mount, no loop device, no run directory. The daemon is dead already.
power_cut() {
    local id pool=$D/data/pools/default.img pids point loop
    id=$(instance_of "$D/data")
    pids=$(shims "$id"; find /sys/fs/cgroup -path "*kraud-$id/*" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u)
    # A machine loses its power at one moment: what was written while it was copied is no state that a device ever had.
    # So nobody starts another write from now on; what the kernel has yet to write it may.
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -STOP $pids 2>/dev/null || true
    for point in $(seq 30); do
        loop=$(writes_to "$pool")
        cp --sparse=always "$pool" "$pool.cut"
        [ "$loop" != "$(writes_to "$pool")" ] || break
        [ "$point" != 30 ] || fail "the pool is written to all the time: no moment of it can be copied"
    done
    # What stands still for a snapshot does not even die.
    for point in "/run/kraud/instances/$id/volumes"/*; do fsfreeze -u "$point" 2>/dev/null || true; done
    find /sys/fs/cgroup -path "*kraud-$id/*" -name freezer.state -exec sh -c 'echo THAWED >"$1"' sh {} \; 2>/dev/null || true
    find /sys/fs/cgroup -path "*kraud-$id/*" -name cgroup.freeze -exec sh -c 'echo 0 >"$1"' sh {} \; 2>/dev/null || true
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
    for point in $pids; do wait_until 10 pid_gone "$point"; done
    # A device in use goes when it is let go of. The topmost mounts first.
    for loop in $(loops_of "$D/"); do losetup -d "$loop" 2>/dev/null || true; done
    for point in $(awk -v d="$D/" -v r="/run/kraud/instances/$id" 'index($5, d) == 1 || index($5, r) == 1 { print $5 }' /proc/self/mountinfo | tac); do
        wait_until 5 umount "$point" || umount -l "$point" || true
    done
    wait_until 30 no_loop_of "$pool" || fail "the pool's loop device does not go; mounted by: $({ grep -l " $D/" /proc/[0-9]*/mountinfo 2>/dev/null || true; } | tail -n 3 | while read -r held; do tr '\0' ' ' <"${held%/*}/cmdline"; echo; done)"
    mv "$pool.cut" "$pool"
    find /sys/fs/cgroup -depth -type d -path "*/kraud-$id*" -exec rmdir {} \; 2>/dev/null || true
    rm -rf --one-file-system "/run/kraud/instances/$id"
}
# Writes that a file's loop device has been given and has done; see Documentation/block/stat.rst.
writes_to() { awk '{ print $5, $9, $16 }' "/sys/block/$(losetup -ln -O NAME -j "$1" | sed 's|.*/||')/stat"; }
loops_of() { losetup -ln -O NAME,BACK-FILE | awk -v d="$1" 'index($2, d) == 1 { print $1 }'; }
no_loop_of() { [ -z "$(losetup -ln -j "$1")" ]; }
shims() { pgrep -f "/run/kraud/instances/$1/" || true; }

# tidy: the pool holds what the records say and nothing else; all volumes are well; what nobody uses is not attached.
tidy() {
    local id=; id=$(instance_of "$D/data")
    eq "$(json volume ls '[v["name"] + " " + v["health"] + " " + str(v.get("status")) for v in j if v["health"] != "online"]')" '' 'volumes in trouble'
    until_eq 15 "$(recorded)" on_disk
    until_eq 10 '' idle_mounts "$id"
}
# What there ought to be on the default pool, one volume or snapshot a line.
recorded() {
    local name
    kra volume ls -o json | $PYTHON -c 'import json, sys
for v in json.load(sys.stdin):
    if v["pool"] == "default": print(v["id"], v["name"])' | sort | while read -r id name; do
        echo "$id/live"
        json volume snapshot ls "$name" "sorted('$id/snap-' + s['id'] for s in j)" | tr ' ' '\n' | grep . || true
    done
}
on_disk() { (cd "$D/data/pools/default" && find . -mindepth 2 -maxdepth 3 -path './volumes/*/*' | cut -d/ -f3- | LC_ALL=C sort; find . -mindepth 1 -maxdepth 2 ! -path './volumes' ! -path './volumes/*' | LC_ALL=C sort; find volumes -mindepth 1 -maxdepth 1 -empty); }
# Mounts of block volumes that no running container has.
idle_mounts() {
    local used mount
    used=$(docker ps -q | xargs -r docker inspect -f '{{range .Mounts}}{{.Source}}{{"\n"}}{{end}}')
    for mount in $(awk -v r="/run/kraud/instances/$1/volumes/" 'index($5, r) == 1 { print $5 }' /proc/self/mountinfo); do
        [[ $used == *"$mount"* ]] || echo "$mount"
    done
}

# zfs_up: zfs-fuse for this test alone; its mounts are the test's own (run.sh has seen to that).
zfs_up() {
    local dir program place=
    for dir in "$KRAUD_TOOLS/zfs-fuse/sbin" /sbin /usr/sbin; do [ -z "$place" ] && [ -x "$dir/zfs-fuse" ] && place=$dir; done
    [ -n "$place" ] || fail "no zfs-fuse: scripts/test.sh volumes fetches it"
    place=$(readlink -f "$place")
    foreign_mounts_go "$D/"
    for dir in /run /var/lib /usr/local/sbin; do mount -t tmpfs tmpfs "$dir"; done
    mkdir -p /run/zfs /var/lib/zfs /run/lock/zfs
    for program in zfs zpool zfs-fuse; do ln -s "$place/$program" /usr/local/sbin/$program; done
    # This test's kraud runs `zfs` by its name.
    PATH=/usr/local/sbin:$PATH
    zfs_run
}
zfs_run() {
    # The kernel may not remember what changed below it.
    /usr/local/sbin/zfs-fuse --no-daemon --no-kstat-mount --enable-xattr -a 0 -e 0 -o default_permissions -m 64 --stack-size=256 \
        >>"$D/zfs-fuse.log" 2>&1 </dev/null &
    ZFS_FUSE=$!
    disown
    wait_until 30 zpool list || fail "zfs-fuse does not start: $(tail -n 3 "$D/zfs-fuse.log")"
}
zfs_down() {
    [ -z "${ZFS_FUSE:-}" ] || kill -KILL "$ZFS_FUSE" 2>/dev/null
    ZFS_FUSE=
}
