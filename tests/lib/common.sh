# Shared by every shell suite: where the binaries are, a temporary daemon, a test image, a leak check.
# Sourced, never run. Needs bash 5. Nothing here prints unless something is wrong.

REPO=${REPO:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}

die() { echo "error: $*" >&2; exit 1; }

# The directory with the built binaries: KRAUD_BIN names the daemon itself; else the newest of target/{release,debug}.
find_kraud() {
    if [ -n "${KRAUD_BIN:-}" ]; then
        [ -x "$KRAUD_BIN" ] || die "KRAUD_BIN=$KRAUD_BIN is not an executable"
        return
    fi
    local target=${CARGO_TARGET_DIR:-$REPO/target} candidate
    for candidate in "$target/release/kraud" "$target/debug/kraud"; do
        if [ -x "$candidate" ] && { [ -z "${KRAUD_BIN:-}" ] || [ "$candidate" -nt "$KRAUD_BIN" ]; }; then
            KRAUD_BIN=$candidate
        fi
    done
    [ -n "${KRAUD_BIN:-}" ] || die "no kraud binary in $target; build it with: cargo build --release -p kraud -p shim -p kra"
    export KRAUD_BIN
}

# A scratch directory on a disk file system: overlayfs needs more than a tmpfs /tmp may give.
scratch_dir() {
    local base=${KRAUD_TEST_TMP:-/var/tmp}
    mktemp -d "$base/kraud-test.XXXXXX"
}

# wait_until SECONDS COMMAND…: polls until the command succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then return 1; fi
        sleep 0.05
    done
}

# daemon_start DIR: a kraud of its own with data, socket, pid and log under DIR. Exports DOCKER_HOST.
daemon_start() {
    local dir=$1
    mkdir -p "$dir/data" "$dir/run"
    setsid "$KRAUD_BIN" serve --data-dir "$dir/data" --socket "$dir/run/kraud.sock" --listen "${KRAUD_TEST_LISTEN:-none}" \
        ${KRAUD_TEST_ARGS:-} >>"$dir/kraud.log" 2>&1 </dev/null &
    echo $! >"$dir/kraud.pid"
    disown
    export DOCKER_HOST=unix://$dir/run/kraud.sock
    if ! wait_until "${KRAUD_TEST_PATIENCE:-15}" daemon_ping "$dir/run/kraud.sock"; then
        tail -n 30 "$dir/kraud.log" >&2
        die "kraud did not answer within ${KRAUD_TEST_PATIENCE:-15} s (log: $dir/kraud.log)"
    fi
}

daemon_ping() { docker -H "unix://$1" version --format '{{.Server.Version}}'; }

daemon_pid() { cat "$1/kraud.pid"; }

# daemon_term DIR: a clean stop that leaves containers running.
daemon_term() {
    local pid; pid=$(daemon_pid "$1")
    kill -TERM "$pid" 2>/dev/null || return 0
    wait_until 20 pid_gone "$pid" || { kill -KILL "$pid" 2>/dev/null; return 1; }
}

# daemon_kill DIR: what a crash does.
daemon_kill() {
    local pid; pid=$(daemon_pid "$1")
    kill -KILL "$pid" 2>/dev/null || true
    wait_until 10 pid_gone "$pid"
}

pid_gone() {
    [ -e "/proc/$1" ] || return 0
    # A zombie whose other threads still end (in a write to the disk, say) has its files open yet.
    grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null && [ "$(find "/proc/$1/task" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)" -le 1 ]
}

# instance_of DATA-DIR: the eight digits that an instance's names in the kernel carry.
instance_of() { printf %s "$(readlink -f "$1")" | sha256sum | cut -c1-8; }

# leftovers DIR ID: what is still there of an instance, and of nobody else's: other daemons may be at work.
leftovers() {
    awk -v d="$1/" -v r="/run/kraud/instances/$2" 'index($5, d) == 1 || index($5, r) == 1 { print "mount " $5 }' /proc/self/mountinfo
    ip -o link 2>/dev/null | grep -o "kr$2[^:@]*" | sed 's/^/link /'
    nft list tables 2>/dev/null | grep "$2" | sed 's/^/nft /'
    find /sys/fs/cgroup -type d -name "kraud-$2" -printf 'cgroup %p\n' 2>/dev/null
    # Processes end while they are looked at.
    grep -laz -e "$1/" -e "/run/kraud/instances/$2" /proc/[0-9]*/cmdline 2>/dev/null | while read -r file; do
        case $(cat "$file" 2>/dev/null | tr '\0' ' ') in
            *kraud*serve* | *kraud-shim* | *crun*) echo "process $(cat "$file" 2>/dev/null | tr '\0' ' ')" ;;
        esac
    done
    losetup -ln -O NAME,BACK-FILE 2>/dev/null | grep " $1/" | sed 's/^/loop /'
    [ ! -e "/run/kraud/instances/$2" ] || find "/run/kraud/instances/$2" | head -n 5 | sed 's/^/file /'
}

# daemon_destroy DIR: containers, daemon, data: all of it. Fails when anything is left over, and says what.
daemon_destroy() {
    local dir=$1 rc=0 ids id left=
    [ -e "$dir/kraud.pid" ] || return 0
    ids=$(timeout 20 docker -H "unix://$dir/run/kraud.sock" ps -aq 2>/dev/null)
    if [ -n "$ids" ]; then
        # shellcheck disable=SC2086
        timeout 60 docker -H "unix://$dir/run/kraud.sock" rm -fv $ids >/dev/null 2>&1 || true
    fi
    timeout 60 "$KRAUD_BIN" stop --containers --data-dir "$dir/data" --socket "$dir/run/kraud.sock" >/dev/null 2>&1 ||
        daemon_term "$dir" || rc=1
    daemon_term "$dir" || rc=1
    id=$(instance_of "$dir/data")
    # A test of another suite that makes a mount namespace has a copy of our mounts until it lets go of them; on a busy
    # machine that takes a while.
    for _ in $(seq 50); do
        left=$(leftovers "$dir" "$id")
        [ -n "$left" ] || break
        sleep 0.3
    done
    if [ -n "$left" ]; then
        rc=1
        printf 'left behind:\n%s\n' "$left" >&2
        sweep_up "$dir" "$id"
    fi
    rm -rf --one-file-system "$dir/data" "$dir/run"
    return $rc
}

# sweep_up DIR ID: after a failure is reported, the next test shall not suffer from it.
sweep_up() {
    local point link
    leftovers "$1" "$2" | sed -n 's/^mount //p' | sort -r | while read -r point; do umount -l "$point" 2>/dev/null; done
    ip -o link | grep -o "kr$2[^:@]*" | while read -r link; do ip link del "$link" 2>/dev/null; done
    nft delete table inet "kraud_$2" 2>/dev/null
    find /sys/fs/cgroup -depth -type d -path "*/kraud-$2*" -exec rmdir {} \; 2>/dev/null
    rm -rf --one-file-system "/run/kraud/instances/$2"
}

# make_rootfs DIR: a small root file system out of the static busybox.
make_rootfs() {
    local root=$1 applet busybox
    busybox=$(busybox_static)
    mkdir -p "$root"/{bin,dev,etc,home/user,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var/spool}
    chmod 1777 "$root/tmp"
    cp "$busybox" "$root/bin/busybox"
    for applet in $("$busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    cat >"$root/etc/passwd" <<-EOF
	root:x:0:0:root:/root:/bin/sh
	nobody:x:65534:65534:nobody:/:/bin/false
	user:x:1000:1000:user:/home/user:/bin/sh
	EOF
    cat >"$root/etc/group" <<-EOF
	root:x:0:
	staff:x:50:user
	nogroup:x:65534:
	user:x:1000:
	EOF
    chown 1000:1000 "$root/home/user"
}

# The static busybox of Debian's busybox-static; a dynamic one would not run in an image of its own.
busybox_static() {
    local path
    for path in /bin/busybox /usr/bin/busybox; do
        if [ -x "$path" ]; then echo "$path"; return; fi
    done
    die "no busybox; install it with: apt-get install busybox-static"
}

# image_archive OUT.tar TAG ROOTFS-DIR [CONFIG-JSON]: a docker archive (what `docker load` reads) of one layer.
image_archive() {
    local out=$1 tag=$2 root=$3 config=${4:-'{"Cmd":["sh"]}'} work diff id
    [[ $config == *'"Env"'* ]] ||
        config="{\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"],${config#\{}"
    work=$(mktemp -d "${out%/*}/image.XXXXXX")
    tar --sort=name --mtime=@1700000000 --numeric-owner -C "$root" -cf "$work/layer.tar" .
    diff=$(sha256sum <"$work/layer.tar"); diff=${diff%% *}
    printf '{"architecture":"%s","os":"linux","created":"%s","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2023-11-14T22:13:20Z","created_by":"test image"}]}' \
        "$(image_arch)" "${IMAGE_CREATED:-2023-11-14T22:13:20Z}" "$config" "$diff" >"$work/config"
    id=$(sha256sum <"$work/config"); id=${id%% *}
    mv "$work/config" "$work/$id.json"
    mkdir "$work/$diff"
    mv "$work/layer.tar" "$work/$diff/layer.tar"
    printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s/layer.tar"]}]' "$id" "$tag" "$diff" >"$work/manifest.json"
    tar -C "$work" -cf "$out" manifest.json "$id.json" "$diff"
    rm -rf "$work"
}

image_arch() {
    case $(uname -m) in
        x86_64) echo amd64 ;;
        aarch64) echo arm64 ;;
        *) uname -m ;;
    esac
}

# busybox_archive: path of busybox.tar in $KRAUD_TEST_CACHE, made on first use.
busybox_archive() {
    local cache=${KRAUD_TEST_CACHE:?}
    if [ ! -e "$cache/busybox.tar" ]; then
        make_rootfs "$cache/rootfs"
        image_archive "$cache/busybox.tar.new" busybox:latest "$cache/rootfs"
        mv "$cache/busybox.tar.new" "$cache/busybox.tar"
    fi
    echo "$cache/busybox.tar"
}

# leak_snapshot FILE: everything of the kernel's that a daemon could leave behind, one thing a line.
leak_snapshot() {
    {
        awk '{ print "mount " $5 }' /proc/self/mountinfo
        ip -o link 2>/dev/null | awk -F': ' '{ sub(/@.*/, "", $2); print "link " $2 }'
        ls /run/netns 2>/dev/null | sed 's/^/netns /'
        find /proc/[0-9]*/ns/net -printf 'netns-inode %l\n' 2>/dev/null | sort -u
        nft list tables 2>/dev/null | sed 's/^/nft /'
        # xtables tables live as long as any iptables user asked; they are not ours.
        find /sys/fs/cgroup -mindepth 1 -type d -printf 'cgroup %p\n' 2>/dev/null
        losetup -ln -O NAME,BACK-FILE 2>/dev/null | sed 's/^/loop /'
        leak_processes
    } | sort -u >"$1"
}

leak_processes() {
    local proc exe
    for proc in /proc/[0-9]*; do
        exe=$(readlink "$proc/exe" 2>/dev/null) || continue
        case ${exe##*/} in
            kraud | kraud-shim | crun | "kraud (deleted)" | "kraud-shim (deleted)") echo "process ${exe##*/} ${proc##*/}" ;;
        esac
    done
}

# leak_check BEFORE: compares with now and prints what is new; retries for a moment, since the kernel frees lazily.
leak_check() {
    local before=$1 now found try
    now=$(mktemp)
    for try in 1 2 3 4 5 6 7 8 9 10; do
        leak_snapshot "$now"
        found=$(comm -13 "$before" "$now")
        if [ -z "$found" ]; then rm -f "$now"; return 0; fi
        sleep 0.5
    done
    rm -f "$now"
    printf 'left behind (after %s tries):\n%s\n' "$try" "$found" >&2
    return 1
}

# foreign_mounts_go OWN: in a mount namespace of one's own, lets go of what was copied with it: mounts in scratch
# directories and of other daemons, but for those below OWN.
foreign_mounts_go() {
    local point
    for point in $(awk -v own="${1:-/nowhere/}" '$5 ~ "^(/tmp|/var/tmp|/run/kraud)/" && index($5, own) != 1 { print $5 }' /proc/self/mountinfo | tac); do
        umount -l "$point" 2>/dev/null || true
    done
}
