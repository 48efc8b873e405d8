# Names on networks of users: the name service at 127.0.0.11 of each container.

sleeper() { docker run -d --name "$1" "${@:2}" $IMG sleep 1000 >/dev/null; }
# The addresses of NAME as CONTAINER is told them, in order, in one line.
lookup() {
    local said
    said=$(docker exec "$1" nslookup -type="${3:-a}" "$2" 2>&1) || true
    sed -n '/^Name:/,$s/^Address[ 0-9]*: *//p' <<<"$said" | sort | xargs
}
address() { ins "$1" "{{(index .NetworkSettings.Networks \"$2\").IPAddress}}"; }
network() { docker network rm "${@: -1}" >/dev/null 2>&1 || true; docker network create "$@" >/dev/null; }
drop() { docker ps -aq | xargs -r docker rm -f >/dev/null; docker network rm "$@" >/dev/null; }

# nameserver ADDRESS: answers until the test ends.
nameserver() {
    python3 "$(dirname "${BASH_SOURCE[0]}")/../lib/nameserver.py" "$1" 53 & server=$!
    trap 'kill $server; sweep' EXIT
}

test_names_and_aliases() {
    network one; network two
    sleeper ca --network one --network-alias svc --hostname host-a
    sleeper cb --network one --network-alias svc
    sleeper cc --network two --network-alias svc
    a=$(address ca one) b=$(address cb one)
    has "$(docker exec ca cat /etc/resolv.conf)" "nameserver 127.0.0.11"
    has "$(docker exec ca cat /etc/resolv.conf)" "ndots:0"
    for name in cb CB cb.one "$(docker inspect -f '{{slice .Id 0 12}}' cb)"; do eq "$(lookup ca "$name")" "$b" "$name"; done
    eq "$(lookup cb host-a)" "$a"
    eq "$(lookup ca ca)" "$a" "its own name"
    eq "$(lookup ca svc)" "$(printf '%s\n' "$a" "$b" | sort | xargs)"
    eq "$(lookup ca cc)" "" "a name of another network"
    has "$(docker exec ca nslookup "$b")" "name = cb.one"
    ok docker exec ca nslookup -type=aaaa cb
    hasnt "$OUT" "can't find"
    ok docker exec ca ping -c 1 -W 2 cb
    eq "$(ins ca '{{(index .NetworkSettings.Networks "one").DNSNames}}')" "[ca svc $(docker inspect -f '{{slice .Id 0 12}}' ca) host-a]"
    drop one two
}

test_answers_change_at_once() {
    network one; network two
    sleeper ca --network one
    sleeper cb --network one --network-alias svc
    b=$(address cb one)
    docker pause cb >/dev/null
    eq "$(lookup ca svc)" "$b" "paused"
    docker unpause cb >/dev/null
    docker kill cb >/dev/null
    docker wait cb >/dev/null
    eq "$(lookup ca svc)" ""
    docker start cb >/dev/null
    eq "$(lookup ca svc)" "$(address cb one)"
    docker rename cb bee
    eq "$(lookup ca bee) $(lookup ca cb)" "$(address bee one) "
    sleeper cc --network two
    eq "$(lookup cc ca)" ""
    docker network connect --alias here one cc
    eq "$(lookup cc ca)" "$(address ca one)"
    eq "$(lookup ca here)" "$(address cc one)"
    docker network disconnect one cc
    eq "$(lookup cc ca)$(lookup ca here)" ""
    drop one two
}

test_from_the_default_bridge_to_a_network() {
    network one
    sleeper ca --network one
    sleeper cd --dns 192.0.2.1
    eq "$(docker exec cd cat /etc/resolv.conf | grep nameserver)" "nameserver 192.0.2.1"
    docker network connect one cd
    has "$(docker exec cd cat /etc/resolv.conf)" "nameserver 127.0.0.11"
    eq "$(lookup cd ca)" "$(address ca one)"
    eq "$(lookup ca cd)" "$(address cd one)"
    drop one
}

test_links_of_one_container() {
    network one
    sleeper ca --network one
    sleeper cb --network one --link ca:store
    eq "$(lookup cb store)" "$(address ca one)"
    eq "$(lookup ca store)" ""
    drop one
}

test_port_53_is_free() {
    network one
    sleeper ca --network one
    ok nsenter -t "$(ins ca '{{.State.Pid}}')" -n python3 -c '
import socket
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind)
    s.bind(("0.0.0.0", 53))
print("bound")'
    eq "$OUT" bound
    eq "$(lookup ca ca)" "$(address ca one)"
    drop one
}

test_a_new_daemon_goes_on() {
    network one
    sleeper ca --network one --network-alias svc
    sleeper cb --network one --network-alias svc
    b=$(address cb one)
    daemon_kill "$KRAUD_TEST_DIR"
    daemon_start "$KRAUD_TEST_DIR"
    eq "$(lookup ca cb)" "$b"
    docker kill cb >/dev/null
    docker wait cb >/dev/null
    eq "$(lookup ca svc)" "$(address ca one)"
    drop one
}

test_other_names_are_passed_on() {
    network one
    gateway=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' one)
    nameserver "$gateway"
    sleeper ca --network one --dns "$gateway"
    until_eq 5 192.0.2.7 lookup ca plain.example
    eq "$(lookup ca plain)" 192.0.2.7 "a name without a dot"
    eq "$(lookup ca ca)" "$(address ca one)"
    run docker exec ca nslookup -type=a missing.example
    has "$OUT$ERR" NXDOMAIN
    pid=$(ins ca '{{.State.Pid}}')
    for way in udp tcp big; do
        eq "$(nsenter -t "$pid" -n python3 "$(dirname "${BASH_SOURCE[0]}")/../lib/nameserver.py" ask "$way")" "answered" "$way"
    done
    drop one
}

test_a_dead_upstream_holds_up_nothing() {
    network one
    sleeper ca --network one --dns 192.0.2.1
    a=$(address ca one)
    for _ in 1 2 3 4 5 6 7 8; do docker exec -d ca nslookup -type=a slow.example; done
    from=$(date +%s%N)
    for _ in 1 2 3 4 5; do eq "$(lookup ca ca)" "$a"; done
    between $((($(date +%s%N) - from) / 1000000)) 0 2500
    drop one
}

test_internal_networks_ask_nobody_outside() {
    network --internal one
    sleeper ca --network one --network-alias svc
    eq "$(lookup ca svc)" "$(address ca one)"
    run docker exec ca nslookup -type=a elsewhere.example
    has "$OUT$ERR" SERVFAIL
    drop one
}

test_options_of_resolv_conf() {
    network one
    sleeper ca --network one --dns-search example.org --dns-option ndots:3
    text=$(docker exec ca cat /etc/resolv.conf)
    has "$text" "nameserver 127.0.0.11"
    has "$text" "search example.org"
    has "$text" "options ndots:3"
    drop one
}

test_one_upstream_after_the_other() {
    network one
    gateway=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' one)
    nameserver "$gateway"
    sleeper ca --network one --dns 192.0.2.1 --dns "$gateway"
    until_eq 10 192.0.2.7 lookup ca plain.example
    # One that refuses connections is passed over at once.
    sleeper cb --network one --dns "$(address ca one)" --dns "$gateway"
    from=$(date +%s%N)
    eq "$(lookup cb other.example)" 192.0.2.7
    between $((($(date +%s%N) - from) / 1000000)) 0 1400
    drop one
}

# A daemon that sees a resolv.conf of the test's own.
test_the_machines_servers_change() {
    usual=$DOCKER_HOST second=$T/second
    echo 'nameserver 192.0.2.1' >"$T/resolv.conf"
    cat >"$T/kraud" <<-EOF
	#!/bin/sh
	exec unshare --mount --propagation private sh -c 'mount --bind $T/resolv.conf /etc/resolv.conf; exec $KRAUD_BIN "\$@"' sh "\$@"
	EOF
    chmod +x "$T/kraud"
    KRAUD_BIN=$T/kraud daemon_start "$second"
    docker load -q -i "$(busybox_archive)" >/dev/null
    network one
    gateway=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' one)
    nameserver "$gateway"
    trap 'kill $server; daemon_destroy "$second" || true; export DOCKER_HOST=$usual; sweep' EXIT
    sleeper ca --network one
    eq "$(lookup ca plain.example)" ""
    echo "nameserver $gateway" >"$T/resolv.conf"
    until_eq 10 192.0.2.7 lookup ca plain.example
    eq "$(docker run --rm $IMG cat /etc/resolv.conf)" "nameserver $gateway"
    drop one
    daemon_destroy "$second" || fail "the second daemon leaves something behind"
    export DOCKER_HOST=$usual
}

test_what_served_a_container_goes_with_it() {
    local pid number; pid=$(daemon_pid "$KRAUD_TEST_DIR")
    open_now() { find "/proc/$pid/fd" -mindepth 1 -lname 'socket:*' | wc -l; }
    network one
    sleeper first --network one
    local before; before=$(open_now)
    for number in 1 2 3 4 5 6 7 8; do
        sleeper "c$number" --network one --dns 192.0.2.1
        docker exec -d "c$number" nslookup -type=a other.example
    done
    [ "$(open_now)" -ge $((before + 16)) ] || fail "two sockets for each container: $before before, $(open_now) now"
    for number in 1 2 3 4 5 6 7 8; do docker rm -f "c$number" >/dev/null; done
    no_more() { [ "$(open_now)" -le "$before" ]; }
    wait_until 15 no_more || fail "sockets: $before before, $(open_now) now"
    drop one
}
