# Words for the suites about tenants; sourced after e2e/lib.sh, whose assertions are used.

KRA=${KRA_BIN:-$(dirname "$KRAUD_BIN")/kra}
export KR_CONFIG=$T/kra DOCKER_CONFIG=$T/docker KRAUD_DATA_DIR=$KRAUD_TEST_DIR/data KRAUD_SOCKET=${DOCKER_HOST#unix://}
OPERATOR=$DOCKER_HOST
mkdir -p "$DOCKER_CONFIG"
kraud() { "$KRAUD_BIN" "$@"; }
kra() { "$KRA" "$@"; }
# The newest daemon's door.
door() { grep -o 'https://[0-9.:]*' "$KRAUD_TEST_DIR/kraud.log" | tail -n 1; }
KR_HOST=$(door) KR_FINGERPRINT=$(kraud fingerprint)
export KR_HOST KR_FINGERPRINT

# tenant NAME: a new one. The owner's token is in $TOKEN, and docker's context NAME works as the owner.
tenant() {
    TOKEN=$(kraud tenant create "$1" -q)
    KR_ACCESS_TOKEN=$TOKEN kra setup docker --name "$1" >/dev/null 2>&1
    TENANTS+=" $1"
}
# as NAME COMMAND…: docker as that tenant.
as() { env -u DOCKER_HOST docker --context "$@"; }
# https TOKEN METHOD PATH [CURL-OPTION…]: sets CODE and BODY.
https() {
    local token=$1 method=$2 path=$3; shift 3
    BODY=$(curl -sk -X "$method" ${token:+-H "Authorization: Bearer $token"} -w '\n%{http_code}' "$@" "$KR_HOST$path")
    CODE=${BODY##*$'\n'} BODY=${BODY%$'\n'*}
}
# After a crash the door is elsewhere.
daemon_restart() { daemon_kill "$KRAUD_TEST_DIR"; daemon_start "$KRAUD_TEST_DIR"; KR_HOST=$(door); export KR_HOST; }
image_for() { as "$1" load -q -i "$(busybox_archive)" >/dev/null; }
# What the tests made is gone after each.
TENANTS=
gone() { unset KR_ACCESS_TOKEN; [ -z "$TENANTS" ] || kraud tenant rm --force $TENANTS >/dev/null 2>&1 || true; }
trap 'gone; sweep' EXIT
