#!/bin/bash
# Inside the machine, after a power failure (or on an empty disk): starts kraud on what there is, says what it finds
# and whether it is whole. Then containers and images come and go until the power does; in the last round it ends.
export REPO=/vm/repo KRAUD_BIN=/usr/bin/kraud KRAUD_TEST_CACHE=/vm/cache DOCKER_CONFIG=/tmp/docker KRAUD_TEST_TMP=/data/tmp
. $REPO/tests/lib/common.sh
D=/data/k
# An emulated machine is slow, and more so when this one has other work.
export KRAUD_TEST_PATIENCE=200
round=$(sed -n 's/.*kraud\.round=\([0-9]*\).*/\1/p' /proc/cmdline)

say() { echo "crash: $*"; }
# check TEXT COMMAND…
check() {
    local text=$1 output; shift
    if output=$("$@" 2>&1); then echo "ok vm: round $round: $text"; else
        echo "not ok vm: round $round: $text"; printf '%s\n' "$output" | tail -n 8 | cut -c1-300 | sed 's/^/    /'
    fi
}

# Nothing can be running after a power failure, but for what has a restart policy.
states_are_right() {
    local name state
    while read -r name state; do
        case $name in
            always*) wait_until 20 is_running "$name" || { echo "$name is $state, and has to run"; return 1; } ;;
            *) [[ $state == exited || $state == created ]] || { echo "$name is $state"; return 1; } ;;
        esac
    done < <(docker ps -a --format '{{.Names}} {{.State}}')
}
is_running() { [ "$(docker inspect --format '{{.State.Running}}' "$1")" = true ]; }
every_image_is_whole() {
    local tag
    for tag in $(docker images --format '{{.Repository}}'); do
        [[ $tag != content* ]] || docker run --rm --network none "$tag" sh -c 'cd /content && sha256sum -c ../sums >/tmp/log 2>&1 || { grep -v OK /tmp/log | head; exit 1; }' || return 1
    done
}
# Files of containers and layers without a record would be a leak that no restart finds.
no_strangers() {
    diff <(ls $D/data/containers) <(docker ps -aq --no-trunc | sort) || return 1
    ! ls -d $D/data/layers/tmp-* 2>/dev/null
}
everything_starts_and_goes() {
    local name
    for name in $(docker ps -a --format '{{.Names}}' | grep -v '^always' | head -n 3); do
        docker start "$name" && docker exec "$name" true && docker rm -f "$name" && say gone "$name" >/dev/console || return 1
    done
}

come_and_go() {
    local i name
    for i in $(seq 1000); do
        name=$1-$round-$i
        say making "$name"
        docker run -d --name "$name" -v "volume-$name:/v" busybox sleep 1000 >/dev/null || say failed "$name"
        say made "$name"; say made "volume-$name"
        if ((i % 3 != 0)); then
            say going "$name"; docker rm -f "$name" >/dev/null || say failed "$name"; say gone "$name"
            say going "volume-$name"; docker volume rm "volume-$name" >/dev/null || say failed "volume-$name"; say gone "volume-$name"
        fi
    done
}
load_and_remove() {
    local i n
    for i in $(seq 1000); do
        n=content$((i % 3 + 1))
        say loading $n; docker load -q -i /vm/$n.tar >/dev/null || say failed $n; say loaded $n
        if ((i % 2 == 0)); then say unloading $n; docker rmi -f $n >/dev/null || say failed $n; say unloaded $n; fi
    done
}

# die ends the shell that it is called in.
if ! (daemon_start $D); then
    # Where it is stuck, if it is.
    ps -eo pid,stat,wchan:20,args | grep -v '\[.*\]$' | cut -c1-150
    dmesg | tail -n 15
    exit 1
fi
export DOCKER_HOST=unix://$D/run/kraud.sock
check 'kraud comes up' docker version
docker ps -a --format '{{.Names}}' | while read -r name; do say found "$name"; done
docker volume ls -q | while read -r name; do say found "$name"; done
docker images --format '{{.Repository}}' | while read -r name; do say found "$name"; done
if [ "$round" != 0 ]; then
    check 'states are right' states_are_right
    check 'every image is whole' every_image_is_whole
    check 'no strangers on the disk' no_strangers
    check 'containers start and go' everything_starts_and_goes
    grep -E 'WARN|ERROR|is ready' $D/kraud.log | tail -n 5 | cut -c1-500
fi
if grep -q kraud.last /proc/cmdline; then
    check 'the daemon did not panic' bash -c "! grep -A3 'panicked at' $D/kraud.log"
    daemon_destroy $D
    exit
fi
if [ "$round" = 0 ]; then
    docker load -q -i "$(busybox_archive)" >/dev/null
    say made busybox
    docker run -d --name always --restart always busybox sleep 100000 >/dev/null && say made always
fi
come_and_go a &
come_and_go b &
load_and_remove &
wait
