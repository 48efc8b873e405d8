# The machine: its disks, its start, what it says, its end. Sourced by run.sh; everything is in $work.

# The host's programs that it gets, with their libraries; the rest of its commands is busybox.
PROGRAMS=(bash find grep sort comm stat date mktemp timeout sed sha256sum rm crun nft ip ps curl tini-static docker mkfs.btrfs btrfs mkfs.ext4 e2fsck resize2fs mkfs.xfs xfs_growfs)
# What of the kernel's modules it can load.
MODULES=(drivers/virtio drivers/block/virtio_blk.ko drivers/block/loop.ko fs/btrfs drivers/net/veth.ko fs/overlayfs net/bridge net/802 net/llc net/netfilter
    net/ipv4/netfilter net/ipv6/netfilter block lib crypto arch)

# machine_prepare: $work/kernel, $work/first.cpio (initramfs) and $work/root.img, the same for every start.
machine_prepare() {
    local package root=$work/root early=$work/early kernel module name
    command -v qemu-system-x86_64 >/dev/null || die "no qemu-system-x86_64; install it with: apt-get install qemu-system-x86"
    package=$(find "${KRAUD_TOOLS:-$REPO/target/tools}" -maxdepth 1 -name 'linux-image-*-cloud-*' | sort -V | tail -n 1)
    [ -n "$package" ] || die "no unpacked kernel package in ${KRAUD_TOOLS:-$REPO/target/tools}; scripts/test.sh vm fetches one"
    kernel=$(basename "$package"/lib/modules/*)
    cp "$package/boot/vmlinuz-$kernel" "$work/kernel"
    make_rootfs "$root"
    mkdir -p "$root"/{data,run,lib64,etc/init.d,vm/cache,vm/repo/tests} "$root/lib/modules/$kernel/kernel" "$early"/{bin,proc,dev,root}
    for name in "${PROGRAMS[@]}"; do add_program "$name" "$root"; done
    ln -sf tini-static "$root/usr/bin/tini"
    # The kernel itself calls these two.
    ln -sf ../bin/busybox "$root/sbin/init"; ln -sf ../bin/busybox "$root/sbin/modprobe"
    cp "$KRAUD_BIN" "$(dirname "$KRAUD_BIN")/kraud-shim" "$root/usr/bin/"
    strip "$root/usr/bin/kraud" "$root/usr/bin/kraud-shim" 2>/dev/null
    add_libraries "$root/usr/bin/kraud" "$root"
    for module in "${MODULES[@]}"; do
        (cd "$package/lib/modules/$kernel/kernel" && [ ! -e "$module" ] || cp -r --parents "$module" "$root/lib/modules/$kernel/kernel/")
    done
    cp "$package/lib/modules/$kernel"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$kernel/"
    "$(busybox_static)" depmod -b "$root" "$kernel"
    # In the image that the containers get there is none of all this.
    make_rootfs "$work/cache/rootfs"; busybox_archive >/dev/null
    cp -a "$work/cache/." "$root/vm/cache/"
    cp "$here/guest"/* "$root/vm/"; chmod +x "$root/vm"/*.sh
    cp -r "$REPO/tests/lib" "$REPO/tests/e2e" "$root/vm/repo/tests/"
    mv "$root/vm/inittab" "$root/etc/inittab"
    printf 'kraud:x:990:\n' >>"$root/etc/group"
    printf '127.0.0.1 localhost vm\n' >"$root/etc/hosts"; : >"$root/etc/resolv.conf"
    crash_images "$root/vm"
    disk_of "$work/root.img" "$root"

    cp "$(busybox_static)" "$early/bin/busybox"
    mkdir -p "$early/lib/modules" "$early/sbin"
    cp -a "$root/lib/modules/$kernel" "$early/lib/modules/"
    find "$early/lib/modules" -name '*.ko' ! -path '*/virtio*' -delete
    cp "$here/guest/first.sh" "$early/init"; chmod +x "$early/init"
    (cd "$early" && find . | "$(busybox_static)" cpio -o -H newc --quiet) >"$work/first.cpio"
    rm -rf "$root" "$early"
}

# add_program NAME ROOT: to the place it has here, so that it finds its own files.
add_program() {
    local path; path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$1") || die "no program $1 for the machine"
    rm -f "$2/bin/$1"
    cp -L "$path" "$2/usr/bin/$1"
    [ "$1" != bash ] || ln -sf ../usr/bin/bash "$2/bin/bash"
    add_libraries "$path" "$2"
}

# add_libraries PROGRAM ROOT: what its loader would load; nothing for a static one.
add_libraries() {
    ldd "$1" 2>/dev/null | grep -o '/[^ ]*' | while read -r path; do
        mkdir -p "$2$(dirname "$path")"
        [ -e "$2$path" ] || cp -L "$path" "$2$path"
    done
}

# disk_of FILE DIR: an ext4 file system with the content of DIR; made without mounting anything.
disk_of() {
    rm -f "$1"; truncate -s 1G "$1"
    mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d "$2" "$1" || die "mke2fs could not make $1"
}

# data_disk FILE: empty, with a journal.
data_disk() {
    rm -f "$1"; truncate -s 8G "$1"
    mke2fs -q -t ext4 -E lazy_itable_init=1 "$1" || die "mke2fs could not make $1"
}

# machine_start WHAT DATA-DISK [ARGUMENT…]: in the background, its console in $work/console.
machine_start() {
    local what=$1 disk=$2; shift 2
    : >"$work/console"
    # TCG, not KVM: machines for tests seldom have it, and the result shall not depend on it.
    # A cache that is not flushed does not outlive this machine's own end, but it does outlive qemu's.
    qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -nodefaults -no-user-config -display none -no-reboot \
        -kernel "$work/kernel" -initrd "$work/first.cpio" \
        -append "console=ttyS0 quiet loglevel=1 panic=-1 random.trust_cpu=on mitigations=off kraud.run=$what $*" \
        -drive "file=$work/root.img,format=raw,if=virtio,readonly=on" -drive "file=$disk,format=raw,if=virtio,cache=unsafe" \
        -serial "file:$work/console" </dev/null >"$work/qemu.log" 2>&1 &
    machine=$!
}

# machine_output SECONDS: what the machine says, line by line, until it ends; it is stopped when that takes too long.
machine_output() {
    timeout "$1" tail -n +1 -f --pid "$machine" -s 0.2 "$work/console" | sed -u 's/\r//g; s/\x1b\[[0-9;?]*[a-zA-Z]//g; s/\x1bc//g'
}

# machine_end: how the machine's work ended: `WHAT EXIT-CODE`; nothing when it did not.
machine_end() {
    machine_stop
    [ -z "${VM_KEEP:-}" ] || cat "$work/console" >>"$VM_KEEP/console"
    cat "$work/qemu.log" >&2
    sed -n 's/\r//; s/^vm ended: //p' "$work/console"
}

# machine_stop: as when the power goes; the machine may have ended already.
machine_stop() {
    [ -n "${machine:-}" ] || return 0
    { kill -KILL "$machine"; wait "$machine"; } 2>/dev/null
    machine=
}
