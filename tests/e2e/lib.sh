# Assertions for the end-to-end suites. A suite is a file of functions `test_*`; each runs in a shell of its own
# with `set -e`, so the first failed command or assertion ends it. Names of containers are free per test: whatever
# a test leaves behind is removed after it.

. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

IMG=${IMG:-busybox}

fail() {
    local frame=0 where=
    # The first caller outside this file is the line that a reader wants.
    while caller $frame >/dev/null; do
        where=$(caller $frame)
        [[ $where == *"/e2e/lib.sh" ]] || break
        frame=$((frame + 1))
    done
    echo "    FAILED at line ${where%% *}: $*" >&2
    exit 1
}

# run COMMAND…: never fails; sets RC, OUT (stdout) and ERR (stderr).
run() {
    local err; err=$(mktemp "$T/err.XXXXXX")
    if OUT=$("$@" 2>"$err"); then RC=0; else RC=$?; fi
    ERR=$(<"$err")
}

# ok COMMAND…: as run, and must succeed.
ok() {
    run "$@"
    [ "$RC" = 0 ] || fail "exit $RC of: $* ${ERR:+| $ERR}"
}

# fails CODE COMMAND…: as run, and must exit with CODE.
fails() {
    local want=$1; shift
    run "$@"
    [ "$RC" = "$want" ] || fail "exit $RC, wanted $want, of: $* | stdout: $OUT | stderr: $ERR"
}

eq() { [ "$1" = "$2" ] || fail "got '$1', wanted '$2' ${3:+($3)}"; }
ne() { [ "$1" != "$2" ] || fail "got '$1', wanted anything else ${3:+($3)}"; }
has() { [[ $1 == *"$2"* ]] || fail "no '$2' in '$1'"; }
hasnt() { [[ $1 != *"$2"* ]] || fail "unwanted '$2' in '$1'"; }
matches() { [[ $1 =~ $2 ]] || fail "'$1' does not match /$2/"; }
# between VALUE LOW HIGH, whole numbers.
between() { [ "$1" -ge "$2" ] && [ "$1" -le "$3" ] || fail "$1 is not within $2..$3"; }

# out COMMAND…: prints stdout of a command that must succeed.
out() { ok "$@"; printf '%s' "$OUT"; }

# ins OBJECT FORMAT: docker inspect of one field.
ins() { docker inspect --format "$2" "$1"; }

# until_eq SECONDS WANT COMMAND…: polls a command's output.
until_eq() {
    local seconds=$1 want=$2 got=; shift 2
    local deadline=$((SECONDS + seconds))
    while :; do
        got=$("$@" 2>/dev/null) || true
        [ "$got" != "$want" ] || return 0
        [ "$SECONDS" -lt "$deadline" ] || fail "still '$got' after $seconds s, wanted '$want', of: $*"
        sleep 0.1
    done
}

# until_has SECONDS NEEDLE COMMAND…
until_has() {
    local seconds=$1 want=$2 got=; shift 2
    local deadline=$((SECONDS + seconds))
    while :; do
        got=$("$@" 2>&1) || true
        [[ $got != *"$want"* ]] || return 0
        [ "$SECONDS" -lt "$deadline" ] || fail "no '$want' after $seconds s in '$got', of: $*"
        sleep 0.1
    done
}

state() { ins "$1" '{{.State.Status}}'; }
now() { date +%s.%N; }

# mkimage TAG CONFIG-JSON [FILE=CONTENT…]: loads an image of busybox with this config.
mkimage() {
    local tag=$1 config=$2 entry; shift 2
    [[ $tag == *:* ]] || tag=$tag:latest
    local root=$T/image-root
    rm -rf "$root"; cp -a "$(dirname "$(busybox_archive)")/rootfs" "$root"
    for entry in "$@"; do
        mkdir -p "$root/$(dirname "${entry%%=*}")"
        printf '%s' "${entry#*=}" >"$root/${entry%%=*}"
    done
    IMAGE_CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ) image_archive "$T/image.tar" "$tag" "$root" "$config"
    docker load -q -i "$T/image.tar" >/dev/null
    rm -rf "$root" "$T/image.tar"
}

# api METHOD PATH [JSON]: a raw call; sets CODE and BODY.
api() {
    local method=$1 path=$2 reply
    local -a data=()
    [ $# -lt 3 ] || data=(-H 'Content-Type: application/json' --data-binary "$3")
    reply=$(curl -sS --max-time 30 --unix-socket "${DOCKER_HOST#unix://}" -X "$method" "${data[@]}" \
        -w '\n%{http_code}' "http://d$path")
    CODE=${reply##*$'\n'}
    BODY=${reply%$'\n'*}
}

# legacy: true when the suites are being checked against an old dockerd, which lacks newer behaviour.
legacy() { [ -n "${E2E_LEGACY:-}" ]; }

# pty SCRIPT COMMAND…: runs a command on a terminal; see terminal.py for the script's language. Output on stdout.
pty() { python3 "$REPO/tests/e2e/terminal.py" "$@"; }
