# One test, from its daemon's start to the check that nothing is left. Sourced by run.sh --one FILE NAME DIR.
set -Eeuo pipefail
. "$here/../e2e/lib.sh"
. "$here/lib.sh"
D=$4 T=$4/t
mkdir -p "$T"; cd "$T"
RANDOM=${VOLUMES_SEED:-1}
export DOCKER_HOST=unix://$D/run/kraud.sock KR_HOST=unix://$D/run/kraud.sock
export KRAUD_DATA_DIR=$D/data KRAUD_SOCKET=$D/run/kraud.sock

# Whatever state the test ended in, a last daemon must be able to clean up, and leave nothing.
end() {
    local rc=$?
    trap - EXIT ERR
    set +e
    cd /
    unset KRAUD_FAULT LD_PRELOAD
    # What the test made for itself; its containers are gone with their commands.
    ${CLEANUP:-true} || rc=1
    if [ -e "$D/kraud.pid" ]; then
        kill -0 "$(daemon_pid "$D")" 2>/dev/null || (daemon_start "$D") >/dev/null 2>&1
        daemon_destroy "$D" || rc=1
    fi
    if grep -A2 "panicked at" "$D/kraud.log" 2>/dev/null | head -n 12 | grep .; then rc=1; fi
    zfs_down
    exit $rc
}
trap end EXIT
trap 'exit 143' TERM INT
trap 'echo "    FAILED: line $LINENO (exit $?): $BASH_COMMAND" >&2' ERR
. "$here/$2.sh"
[[ $3 != *zfs* ]] || zfs_up
# Some begin with a machine that has no kraud yet.
if [[ $3 != *first_start* ]]; then
    daemon_start "$D"
    docker load -q -i "$(busybox_archive)" >/dev/null
fi
"$3"
exit 0
