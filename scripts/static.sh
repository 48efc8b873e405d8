#!/usr/bin/env bash
# kra as one static binary: copied to any x86-64 Linux, it runs there, whatever libc that has or has not.
#
#   ./scripts/static.sh            builds it; prints where it is, and its size
#   ./scripts/static.sh debian     by Debian's compiler even where rustup could serve (root; the same on every machine)
#
# rustup's target for musl is taken if it is installed or can be fetched. Otherwise the whole build happens in a Debian
# sid of its own, which has a compiler that is new enough and the sources of Rust's library, but no library for musl:
# cargo builds that as well. What is kept, for the next time, lies in target/static; remove that to begin anew.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"

TARGET=x86_64-unknown-linux-musl
LIMIT=15000000
CACHE=$(readlink -m "${CARGO_TARGET_DIR:-$REPO/target}")/static
RESULT=$CACHE/kra
# The profile decides about panics, the lock file about dependencies: neither is chosen here.
BUILD=(cargo build --release --locked -p kra --target "$TARGET")

case ${1:-} in
    '' | debian) ;;
    *) die "usage: $0 [debian]" ;;
esac
[ "$(uname -m)" = x86_64 ] || die "this builds for x86-64, on x86-64"

# Whether rustc has Rust's library for musl, or rustup can fetch it.
have_target() {
    local dir
    (need_cargo) 2>/dev/null || return 1
    need_cargo
    cd "$REPO"
    dir=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) || return 1
    ! compgen -G "$dir/libstd-*.rlib" >/dev/null || return 0
    command -v rustup >/dev/null || return 1
    say "asking rustup for the target $TARGET"
    # A server that is not to be reached need not refuse: it may just not answer.
    timeout 300 rustup target add "$TARGET" >/dev/null 2>&1 </dev/null && compgen -G "$dir/libstd-*.rlib" >/dev/null
}

build_here() {
    need_packages musl-gcc=musl-tools readelf=binutils
    need_disk "$CACHE" 1500
    say "building kra with $(rustc --version)"
    # Paths of this machine would be part of every panic's message.
    (cd "$REPO" && env CARGO_TARGET_DIR="$CACHE/rustup" CC_x86_64_unknown_linux_musl=musl-gcc \
        RUSTFLAGS="--remap-path-prefix=$REPO=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" "${BUILD[@]}" </dev/null)
    BUILT=$CACHE/rustup/$TARGET/release/kra
}

# in_debian ROOT COMMAND…: in mount and process namespaces of its own, so that no mount is left to undo and no process
# outlives the command, however it ends. The sources cannot be written from there.
in_debian() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child bash -euc '
        root=$1 repo=$2 cache=$3; shift 3
        mount -t proc proc "$root/proc"
        mount --bind /dev "$root/dev"
        mount --bind "$repo" "$root/src"
        mount -o remount,bind,ro "$root/src"
        mount --bind "$cache" "$root/cache"
        cd /
        # How this machine reaches the registries: names, certificates and proxies.
        keep=()
        for name in http_proxy https_proxy no_proxy HTTPS_PROXY NO_PROXY CARGO_BUILD_JOBS; do
            [ -z "${!name:-}" ] || keep+=("$name=${!name}")
        done
        cp -L /etc/resolv.conf "$root/etc/resolv.conf"
        [ ! -e /etc/ssl/certs/ca-certificates.crt ] || install -D -m 644 /etc/ssl/certs/ca-certificates.crt -t "$root/etc/ssl/certs"
        # No exec: cargo as the first process of its namespace would not hear Ctrl-C.
        chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "${keep[@]}" "$@" || exit
    ' bash "$1" "$REPO" "$CACHE/debian" "${@:2}" </dev/null
}

# A Debian sid with the compiler, and beside the compiler what rustup would have laid there: musl's start files and libc,
# and an unwinder. The only unwinders in Debian are built for glibc. LLVM's needs two functions of it that musl lacks.
make_debian() {
    local root=$CACHE/debian/root log=$CACHE/debian/make.log
    [ ! -d "$root" ] || return 0
    need_packages debootstrap=debootstrap /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring
    say "making a Debian sid with its Rust compiler (some minutes, 1.5 GB)"
    trap 'rm -rf --one-file-system "$CACHE/debian/root.new"' EXIT
    rm -rf --one-file-system "$root.new"
    mkdir -p "$root.new"
    # debootstrap mounts things, too.
    unshare --mount debootstrap --variant=minbase sid "$root.new" >"$log" 2>&1 </dev/null || { tail -n 15 "$log" >&2; die "debootstrap could not make a Debian sid (log: $log)"; }
    mkdir "$root.new/src" "$root.new/cache"
    # shellcheck disable=SC2016
    in_debian "$root.new" bash -euc '
        lib=/usr/lib/rustlib/$1/lib/self-contained musl=/usr/lib/x86_64-linux-musl
        # By the lists that debootstrap has just fetched and left.
        apt-get install -y -qq --no-install-recommends rustc cargo rust-src gcc libc6-dev musl-tools
        mkdir -p "$lib" /tmp/unwind
        cp "$musl"/*crt*.o "$musl/libc.a" "$lib/"
        for file in crtbegin.o crtbeginS.o crtend.o crtendS.o; do cp "$(gcc -print-file-name="$file")" "$lib/"; done
        cd /tmp/unwind
        package=$(apt-cache pkgnames libunwind- | grep -E "^libunwind-[0-9]+-dev$" | sort -V | tail -n 1)
        apt-get download -qq -o APT::Sandbox::User=root "$package"
        dpkg-deb -x libunwind-*.deb .
        cp usr/lib/llvm-*/lib/libunwind.a "$lib/"
        cat >fortified.c <<\END
#include <stdarg.h>
#include <stdio.h>
int __vfprintf_chk(FILE *f, int flag, const char *format, va_list a) { return vfprintf(f, format, a); }
int __vsnprintf_chk(char *s, size_t n, int flag, size_t have, const char *format, va_list a) { return vsnprintf(s, n, format, a); }
END
        musl-gcc -O2 -fPIC -c fortified.c
        ar r "$lib/libunwind.a" fortified.o
        cd /
        rm -r /tmp/unwind
        apt-get clean
    ' bash "$TARGET" >>"$log" 2>&1 || { tail -n 15 "$log" >&2; die "the compiler could not be installed in the Debian sid (log: $log)"; }
    mv "$root.new" "$root"
}

build_in_debian() {
    need_root
    need_disk "$CACHE" 3500
    need_packages readelf=binutils
    mkdir -p "$CACHE/debian"
    make_debian
    say "building kra in Debian sid with $(in_debian "$CACHE/debian/root" rustc --version)"
    # The dependencies of Rust's library come with its sources. Building it is no stable feature of cargo yet: that is what
    # the variable is for.
    in_debian "$CACHE/debian/root" env -C /src CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/build \
        RUSTC_BOOTSTRAP=1 CC_x86_64_unknown_linux_musl=musl-gcc "${BUILD[@]}" -Zbuild-std=std,panic_unwind
    BUILT=$CACHE/debian/build/$TARGET/release/kra
}

# What was promised: needs no loader and no library, is small, and runs.
check() {
    local size headers
    headers=$(readelf -lWd "$1")
    if grep -qE 'INTERP|\(NEEDED\)' <<<"$headers"; then die "$1 is not static: $(grep -oE 'INTERP|Shared library.*' <<<"$headers" | paste -sd' ')"; fi
    size=$(stat -c %s "$1")
    [ "$size" -lt $LIMIT ] || die "$1 has $size bytes; less than $LIMIT are allowed"
    "$1" --help >/dev/null || die "$1 does not run"
}

if [ "${1:-}" != debian ] && have_target; then build_here; else build_in_debian; fi
check "$BUILT"
install -m 755 "$BUILT" "$RESULT.new"
mv "$RESULT.new" "$RESULT"
printf '%s %s bytes\n' "$RESULT" "$(stat -c %s "$RESULT")"
