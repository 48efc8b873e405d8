#!/usr/bin/env bash
# Installs what the tests need and runs all of them: formatting, lints, dependency rules, unit and property tests,
# then the real daemon driven by the real docker CLI, by crashes and by other people's client libraries.
#
#   ./scripts/test.sh                       everything
#   ./scripts/test.sh unit e2e              only these: fmt clippy deny unit e2e tenants push crash compose volumes sdk schema vm quickstart
#
# Needs root, and nothing on stdin. The last line says `N passed, N failed`; the exit code says the same.
set -uo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib.sh"
cd "$REPO" || exit 1
exec </dev/null
export CARGO_TERM_COLOR=never LC_ALL=C.UTF-8
unset DOCKER_HOST DOCKER_CONTEXT

# cargo-deny takes three minutes to build on two cores, so it is built once and kept with the build's own output.
DENY_VERSION=0.20.2

passed=0 failed=0
summary=()

# count NAME PASSED FAILED SECONDS
count() {
    passed=$((passed + $2)) failed=$((failed + $3))
    summary+=("$(printf '%-11s %5d passed %4d failed %6d s' "$1" "$2" "$3" "$4")")
}

# check NAME COMMAND…: one check that passes or fails as a whole.
check() {
    local name=$1 from=$SECONDS; shift
    say "$name: $*"
    if "$@"; then count "$name" 1 0 $((SECONDS - from)); else
        echo "not ok $name"; count "$name" 0 1 $((SECONDS - from))
    fi
}

# suite NAME COMMAND…: a command that ends with a line `NAME: N passed, N failed`.
suite() {
    local name=$1 from=$SECONDS log=$TOOLS/$1.log rc p f; shift
    say "$name: $*"
    "$@" 2>&1 | tee "$log"
    rc=${PIPESTATUS[0]}
    read -r p f < <(sed -n "s/^$name: \([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p" "$log" | tail -n 1)
    # A suite that ends without its line, or with an error that it did not count, has failed.
    [ -n "${f:-}" ] || { p=0; f=1; }
    [ "$rc" = 0 ] || [ "$f" != 0 ] || f=1
    count "$name" "$p" "$f" $((SECONDS - from))
}

unit() {
    local log=$TOOLS/unit.raw rc=0 p f
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --workspace --locked --no-fail-fast 2>&1 | tee "$log" | grep -Ev '^ +PASS '
        rc=${PIPESTATUS[0]}
        read -r p f < <(sed -n 's/^ *Summary .*tests\{0,1\} run: \(.*\)/\1/p' "$log" | tail -n 1 |
            awk '{ for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p = $(i-1); if ($i ~ /^(failed|timed)/) f += $(i-1) } } END { print p + 0, f + 0 }')
    else
        cargo test --workspace --locked --no-fail-fast --lib --bins --tests 2>&1 | tee "$log" | grep -Ev '^test .* ok$'
        rc=${PIPESTATUS[0]}
        read -r p f < <(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    fi
    p=${p:-0} f=${f:-0}
    [ "$rc" = 0 ] || [ "$f" != 0 ] || f=1
    echo "unit: $p passed, $f failed"
    [ "$rc" = 0 ]
}

doc() {
    local log=$TOOLS/doc.raw rc p f
    cargo test --workspace --locked --doc 2>&1 | tee "$log" | grep -Ev '^test .* ok$'
    rc=${PIPESTATUS[0]}
    read -r p f < <(awk '/^test result:/ { p += $4; f += $6 } END { print p + 0, f + 0 }' "$log")
    [ "$rc" = 0 ] || [ "$f" != 0 ] || f=1
    echo "doc: $p passed, $f failed"
    [ "$rc" = 0 ]
}

deny() {
    if ! cargo deny --version >/dev/null 2>&1; then
        if [ ! -x "$TOOLS/bin/cargo-deny" ]; then
            say "building cargo-deny $DENY_VERSION"
            CARGO_TARGET_DIR=$TOOLS/build cargo install --quiet --locked "cargo-deny@$DENY_VERSION" --root "$TOOLS" || return 1
            rm -rf "$TOOLS/build"
        fi
        PATH=$TOOLS/bin:$PATH
    fi
    cargo deny --locked check licenses bans sources || return 1
    # The advisories are a git repository that a closed network does not reach; without it this says nothing.
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --locked check advisories
    else
        say "the advisory database is out of reach: advisories were not checked"
    fi
}

clippy() { cargo clippy --workspace --all-targets --locked --quiet -- -D warnings; }
fmt() { cargo fmt --all --check; }

# Only the tests' own needs are installed, in one go; see scripts/lib.sh for what is unpacked without installing.
prepare() {
    need_root
    need_cargo
    need_disk "$REPO" 6000
    mkdir -p "$TOOLS"
    need_packages crun=crun nft=nftables mkfs.btrfs=btrfs-progs mkfs.ext4=e2fsprogs mkfs.xfs=xfsprogs busybox=busybox-static ip=iproute2 cc=gcc '/usr/include/stdlib.h=libc6-dev' \
        curl=curl jq=jq python3=python3 '/usr/lib/python3*/ensurepip=python3-venv' ps=procps losetup=mount nsenter=util-linux zstd=zstd /usr/bin/tini-static=tini
    need_docker_cli
    unpack_package docker-registry || say "docker-registry is not to be had: its tests will say so"
    need_zfs_fuse || say "zfs-fuse is not to be had: its tests will say so"
    export DOCKER_REGISTRY_BIN=$TOOLS/docker-registry/usr/bin/docker-registry
}

build_binaries() {
    say "building the binaries under test"
    # shellcheck disable=SC2046
    cargo build --quiet --locked $(binary_packages) || return 1
    export KRAUD_BIN=${CARGO_TARGET_DIR:-$REPO/target}/debug/kraud
}

# The exercisers of file systems, built once and kept like cargo-deny.
volumes() {
    local crate
    need_packages fio=fio mkfs.btrfs=btrfs-progs mkfs.xfs=xfsprogs mkfs.ext4=e2fsprogs
    for crate in fsx@0.3.2 pjdfstest@0.2.2; do
        [ ! -x "$TOOLS/bin/${crate%@*}" ] || continue
        say "building $crate"
        CARGO_TARGET_DIR=$TOOLS/build cargo install --quiet --locked "$crate" --root "$TOOLS" || return 1
    done
    rm -rf "$TOOLS/build"
    KRAUD_TOOLS=$TOOLS bash tests/volumes/run.sh
}

# npm is a package of hundreds in Debian: only where there is none.
sdk() {
    need_packages npm=npm node=nodejs
    bash tests/sdk/run.sh
}
compose() {
    need_compose || say "the compose plugin is not to be had: its tests will say so"
    need_programs || say "Debian's programs are not to be had: their tests will say so"
    KRAUD_TOOLS=$TOOLS bash tests/compose/run.sh
}

push() {
    need_compose || say "the compose plugin is not to be had: its tests will say so"
    KRAUD_TOOLS=$TOOLS bash tests/push/run.sh
}

# The package that linux-image-cloud-amd64 stands for.
newest_kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-.*-cloud-amd64\)$/\1/p'; }

# The emulator and the kernel that it runs; neither is needed for anything else.
vm() {
    need_packages qemu-system-x86_64=qemu-system-x86 mkfs.btrfs=btrfs-progs mke2fs=e2fsprogs mkfs.xfs=xfsprogs ldd=libc-bin strip=binutils || return 1
    local kernel
    kernel=$(newest_kernel)
    [ -n "$kernel" ] || { apt_update_once; kernel=$(newest_kernel); }
    unpack_package "${kernel:-linux-image-cloud-amd64}" || say "the kernel package is not to be had: its tests will say so"
    bash tests/vm/run.sh
}
quickstart() { bash tests/quickstart/run.sh; }

# Not among those that run without being named: it fetches a toolchain, and takes ten minutes.
static() { bash scripts/static.sh debian; }

wanted=" ${*:-fmt clippy deny unit e2e tenants push crash compose volumes sdk schema vm quickstart} "
wants() { [[ $wanted == *" $1 "* ]]; }

prepare
. tests/lib/common.sh
before=$(mktemp); leak_snapshot "$before"
trap 'rm -f "$before"' EXIT

if wants fmt; then check fmt fmt; fi
if wants clippy; then check clippy clippy; fi
if wants deny; then check deny deny; fi
if wants unit; then suite unit unit; suite doc doc; fi
if wants e2e || wants tenants || wants push || wants crash || wants compose || wants volumes || wants sdk || wants schema || wants vm; then
    if [ -n "${KRAUD_BIN:-}" ] || build_binaries; then
        ! wants e2e || suite e2e bash tests/e2e/run.sh
        ! wants tenants || suite tenants bash tests/tenants/run.sh
        ! wants push || suite push push
        ! wants crash || suite crash bash tests/crash/run.sh
        ! wants compose || suite compose compose
        ! wants volumes || suite volumes volumes
        ! wants sdk || suite sdk sdk
        ! wants schema || suite schema bash tests/schema/run.sh
        ! wants vm || suite vm vm
    else
        count build 0 1 0
    fi
fi
if wants quickstart; then suite quickstart quickstart; fi
if wants static; then check static static; fi
check leaks leak_check "$before"

echo
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
