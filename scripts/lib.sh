# Shared by the scripts here: clear errors, packages, the docker command. Sourced, never run.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Tools that the scripts fetch for themselves; nothing of it reaches the system's own directories.
TOOLS=${KRAUD_TOOLS:-$REPO/target/tools}

say() { printf '%s\n' "==> $*"; }
die() { printf '%s\n' "error: $*" >&2; exit 1; }

need_root() {
    [ "$(id -u)" = 0 ] || die "$0 must run as root (it makes namespaces, mounts and cgroups): sudo $0"
}

need_cargo() {
    # A toolchain of rustup is there but not on root's PATH in many shells.
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null || die "no cargo: install the Rust toolchain from https://rustup.rs, then call this again"
    export PATH
}

# need_disk DIR MEGABYTES: DIR need not exist yet.
need_disk() {
    local dir=$1 want=$2 have
    while [ ! -e "$dir" ]; do dir=$(dirname "$dir"); done
    have=$(df -Pm "$dir" | awk 'NR == 2 { print $4 }')
    [ "$have" -ge "$want" ] || die "only ${have} MB free on the file system of $dir; $want MB are needed"
}

# need_packages COMMAND=PACKAGE…: installs what is missing with one call of apt, and none when nothing is.
need_packages() {
    local pair missing=()
    for pair in "$@"; do
        case ${pair%%=*} in
            /*) compgen -G "${pair%%=*}" >/dev/null || missing+=("${pair#*=}") ;;
            *) command -v "${pair%%=*}" >/dev/null || [ -x "/usr/sbin/${pair%%=*}" ] || missing+=("${pair#*=}") ;;
        esac
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; this is no Debian, so please install them yourself"
    say "installing ${missing[*]}"
    apt_update_once
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$(apt_log)" 2>&1 </dev/null || {
        tail -n 15 "$(apt_log)" >&2
        die "apt-get could not install ${missing[*]}"
    }
}

apt_log() { mkdir -p "$TOOLS"; echo "$TOOLS/apt.log"; }

apt_update_once() {
    [ -z "${APT_UPDATED:-}" ] || return 0
    apt-get update -qq >"$(apt_log)" 2>&1 </dev/null || say "apt-get update failed; going on with the lists that are there"
    APT_UPDATED=1
}

# unpack_package PACKAGE: its files under $TOOLS/PACKAGE, without installing it: no service is started.
unpack_package() {
    local package=$1 dir=$TOOLS/$1
    [ ! -e "$dir" ] || return 0
    rm -rf "$dir.new"; mkdir -p "$dir.new"
    (cd "$dir.new" && { apt-get download -qq "$package" || { apt_update_once; apt-get download -qq "$package"; }; } &&
        dpkg-deb -x "$package"_*.deb . && rm -f ./*.deb) >"$(apt_log)" 2>&1 </dev/null || return 1
    mv "$dir.new" "$dir"
}

# The compose plugin: Debian 12 has none, so it comes out of Debian 13's package, by lists of our own that apt checks
# like any others. One file, which needs nothing of its system.
need_compose() {
    local state=$TOOLS/trixie options
    [ ! -x "$TOOLS/docker-compose/usr/libexec/docker/cli-plugins/docker-compose" ] || return 0
    rm -rf "$state"; mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) trixie main" >"$state/sources.list"
    options="-qq -o Dir::Etc::sourcelist=$state/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$state/lists -o Dir::Cache=$state/cache -o APT::Sandbox::User=root"
    rm -rf "$TOOLS/docker-compose.new"; mkdir -p "$TOOLS/docker-compose.new"
    # shellcheck disable=SC2086
    (cd "$TOOLS/docker-compose.new" && apt-get $options update && apt-get $options download docker-compose &&
        dpkg-deb -x docker-compose_*.deb . && rm -f ./*.deb) >"$(apt_log)" 2>&1 </dev/null || return 1
    rm -rf "$state"
    mv "$TOOLS/docker-compose.new" "$TOOLS/docker-compose"
}

# need_programs: a root file system with PostgreSQL, nginx, PHP and Redis as $TOOLS/programs.tar, out of Debian's packages
# and all that they need. They are unpacked side by side, not installed: no script of theirs runs here.
need_programs() {
    local dir=$TOOLS/programs.new deb user
    [ ! -e "$TOOLS/programs.tar" ] || return 0
    rm -rf "$dir"; mkdir -p "$dir/cache/archives/partial" "$dir/root/tmp" "$dir/root/etc"; : >"$dir/status"
    # To apt this is a machine without a single package.
    apt_for_programs() {
        apt-get -qq -y -o Dir::State::status="$dir/status" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root -o Debug::NoLocking=1 \
            --no-install-recommends --download-only install postgresql nginx-light php-fpm redis-server bash coreutils util-linux libc-bin sed grep >"$(apt_log)" 2>&1 </dev/null
    }
    apt_for_programs || { apt_update_once; apt_for_programs; } || return 1
    # Where /bin has been moved to /usr/bin, packages of both kinds meet.
    mkdir -p "$dir/root/usr"/{bin,sbin,lib,lib64}
    for user in bin sbin lib lib64; do ln -s "usr/$user" "$dir/root/$user"; done
    for deb in "$dir"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -C "$dir/root" -x --keep-directory-symlink || return 1; done
    [ -e "$dir/root/bin/sh" ] || ln -s bash "$dir/root/bin/sh"
    : >"$dir/root/etc/passwd"; : >"$dir/root/etc/group"
    for user in root:0 www-data:33 nogroup:65534 nobody:65534 postgres:900 redis:901; do
        echo "${user%:*}:x:${user#*:}:${user#*:}::/tmp:/bin/sh" >>"$dir/root/etc/passwd"
        echo "${user%:*}:x:${user#*:}:" >>"$dir/root/etc/group"
    done
    chmod 1777 "$dir/root/tmp"
    # What no test runs: documents, translations, and the compiler that PostgreSQL can use.
    rm -rf "$dir/root/usr/share"/{doc,man,locale,perl,i18n} "$dir/root/usr/lib"/*/{libLLVM*,perl*} "$dir/root/usr/lib/llvm"* "$dir/root/usr/lib/postgresql"/*/lib/{bitcode,llvmjit*} "$dir/root/var/lib/apt"
    mkdir -p "$dir/root/var/lib/nginx" "$dir/root/var/log/nginx" "$dir/root/run"
    tar -C "$dir/root" -c --numeric-owner -f "$dir/programs.tar" . || return 1
    mv "$dir/programs.tar" "$TOOLS/programs.tar"
    rm -rf "$dir"
}

# Where this machine gets Debian's packages from.
debian_mirror() {
    local found
    found=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\) .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -m1 '/debian/\{0,1\}$')
    echo "${found:-http://deb.debian.org/debian}"
}

# zfs-fuse, the ZFS of the tests: unpacked, as installing it would start its daemon. The tests find it there.
need_zfs_fuse() {
    local t64=
    unpack_package zfs-fuse || return 1
    # Newer releases of Debian have these libraries under a new name.
    ! apt-cache show libfuse2t64 >/dev/null 2>&1 || t64=t64
    need_packages "/usr/lib/*/libfuse.so.2=libfuse2$t64" "/usr/lib/*/libtirpc.so.3=libtirpc3$t64"
}

# A docker client on PATH. Debian 13 has one by itself (docker-cli); Debian 12 only together with dockerd
# (docker.io), so there the client alone is taken out of the package and dockerd is neither installed nor started.
need_docker_cli() {
    command -v docker >/dev/null && return
    if [ -x "$TOOLS/docker.io/usr/bin/docker" ]; then PATH=$PATH:$TOOLS/docker.io/usr/bin; return; fi
    command -v apt-get >/dev/null || die "no docker command: install the docker CLI, then call this again"
    apt_update_once
    if apt-cache show docker-cli 2>/dev/null | grep -q '^Package: docker-cli$'; then
        need_packages docker=docker-cli
    else
        say "taking the docker client out of Debian's docker.io package"
        unpack_package docker.io || die "no docker command, and apt-get download docker.io failed: install the docker CLI"
        PATH=$PATH:$TOOLS/docker.io/usr/bin
    fi
}

# The workspace's binaries out of kraud, kra and shim that exist so far, as arguments for cargo build.
binary_packages() {
    local package
    for package in kraud kra shim; do
        [ ! -e "$REPO/crates/$package/Cargo.toml" ] || printf -- '-p %s ' "$package"
    done
}
