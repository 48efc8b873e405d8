# Networks of a container: the bridge, none, host, container:X, published ports.

get() { curl -sS --noproxy "*" --max-time 5 "http://$1/"; }
serve() { docker run -d --name "$1" "${@:2}" $IMG sh -c 'echo "hello from $(hostname)" >/tmp/index.html; exec httpd -f -h /tmp -p 80' >/dev/null; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
published() { local p; p=$(docker port "$1" "$2" | head -n 1); echo "${p##*:}"; }
ip_of() { ins "$1" '{{.NetworkSettings.Networks.bridge.IPAddress}}'; }

test_bridge_addresses() {
    serve n1; serve n2
    ip=$(ip_of n1)
    matches "$ip" '^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$'
    ne "$ip" "$(ip_of n2)"
    until_has 5 hello docker exec n2 wget -qO- "http://$ip/"
    has "$(docker exec n1 ip route)" 'default via'
    until_has 5 hello get "$ip"
    eq "$(ins n1 '{{.NetworkSettings.IPAddress}} {{.HostConfig.NetworkMode}}')" "$ip $(legacy && echo default || echo bridge)"
}

test_none() {
    ok docker run --rm --network none $IMG ip -o link
    eq "$(wc -l <<<"$OUT")" 1
    has "$OUT" lo
    eq "$(docker run --rm --network none $IMG ping -c 1 -W 1 127.0.0.1 | grep -c '1 packets received')" 1
}

test_host() {
    eq "$(docker run --rm --network host $IMG readlink /proc/self/ns/net)" "$(readlink /proc/self/ns/net)"
    eq "$(docker run --rm --network host $IMG hostname)" "$(hostname)"
}

test_of_another_container() {
    serve n1
    until_has 5 hello docker run --rm --network container:n1 $IMG wget -qO- http://127.0.0.1/
    docker create --name n2 --network container:n1 $IMG true >/dev/null
    docker kill n1 >/dev/null
    fails 1 docker start n2
    fails 125 docker run --rm --network container:ghost $IMG true
}

test_published_on_loopback_and_host() {
    port=$(free_port)
    serve n1 -p "$port:80"
    until_has 5 hello get "127.0.0.1:$port"
    address=$(ip -4 -o addr show scope global | awk '$2 !~ /^(kr|br|docker|veth)/ { sub("/.*", "", $4); print $4; exit }')
    [ -z "$address" ] || until_has 5 hello get "$address:$port"
    has "$(docker port n1)" "80/tcp -> 0.0.0.0:$port"
    has "$(docker ps --format '{{.Ports}}')" "0.0.0.0:$port->80/tcp"
    docker rm -f n1 >/dev/null
    run get "127.0.0.1:$port"
    ne "$RC" 0
}

test_from_another_container_by_the_host() {
    port=$(free_port)
    serve n1 -p "$port:80"
    gateway=$(ins n1 '{{.NetworkSettings.Networks.bridge.Gateway}}')
    until_has 5 hello docker run --rm $IMG wget -qO- "http://$gateway:$port/"
    until_has 5 hello docker exec n1 wget -qO- "http://$gateway:$port/"
}

test_ephemeral_port() {
    serve n1 -p 80
    port=$(published n1 80)
    between "$port" 1024 65535
    until_has 5 hello get "127.0.0.1:$port"
    serve n2 -P --expose 80
    until_has 5 hello get "127.0.0.1:$(published n2 80)"
}

test_host_address() {
    port=$(free_port)
    serve n1 -p "127.0.0.1:$port:80"
    until_has 5 hello get "127.0.0.1:$port"
    eq "$(docker port n1 80/tcp)" "127.0.0.1:$port"
    address=$(ip -4 -o addr show scope global | awk '$2 !~ /^(kr|br|docker|veth)/ { sub("/.*", "", $4); print $4; exit }')
    [ -z "$address" ] || { run get "$address:$port"; ne "$RC" 0; }
}

test_range() {
    first=$(python3 - <<'PY'
import socket
for p in range(42000, 60000, 3):
    try:
        ss = []
        for q in range(3):
            s = socket.socket(); s.bind(("", p + q)); ss.append(s)
        print(p); break
    except OSError: pass
PY
)
    serve n1 -p "$first-$((first + 1)):80-81"
    until_has 5 hello get "127.0.0.1:$first"
    eq "$(docker port n1 | grep -c 0.0.0.0)" 2
    serve n2 -p "$((first + 1))-$((first + 2)):80"
    eq "$(published n2 80)" $((first + 2)) 'the first free one of the range'
}

test_udp() {
    port=$(free_port)
    docker run -d --name n1 -p "$port:9999/udp" $IMG sleep 100 >/dev/null
    # The image has no UDP server; one of the host's runs in the container's network namespace.
    nsenter -t "$(ins n1 '{{.State.Pid}}')" -n timeout 30 python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 9999))
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(b"echo " + data, peer)
' &
    pid=$!
    send() {
        python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b"datagram", (sys.argv[1], int(sys.argv[2])))
print(s.recv(2048).decode())' "$1" "$port"
    }
    until_has 10 'echo datagram' send 127.0.0.1
    address=$(ip -4 -o addr show scope global | awk '$2 !~ /^(kr|br|docker|veth)/ { sub("/.*", "", $4); print $4; exit }')
    [ -z "$address" ] || until_has 10 'echo datagram' send "$address"
    kill $pid
}

test_ipv6_ports() {
    local port
    reached() { curl -s -o /dev/null -w '%{http_code}' --noproxy '*' --max-time 5 "http://$1/" || true; }
    docker network create --ipv6 v6net >/dev/null
    # Without a host address both families lead to it, also where the container has only one.
    docker run -d --name old -p 80 $IMG httpd -f >/dev/null
    docker run -d --name new --network v6net -p 80 $IMG httpd -f -p '[::]:80' >/dev/null
    for name in old new; do
        port=$(docker port $name 80/tcp | sed -n 's/^0.0.0.0://p')
        eq "$(reached "127.0.0.1:$port") $(reached "[::1]:$port")" '404 404' $name
    done
    docker run -d --name one --network v6net -p '[::1]::80' $IMG httpd -f -p '[::]:80' >/dev/null
    port=$(docker port one 80/tcp); port=${port##*:}
    eq "$(reached "[::1]:$port") $(reached "127.0.0.1:$port")" '404 000'
    docker rm -f new one >/dev/null; docker network rm v6net >/dev/null
}

test_port_freed_when_stopped() {
    port=$(free_port)
    serve n1 -p "$port:80"
    docker stop -t 0 n1 >/dev/null
    serve n2 -p "$port:80"
    until_has 5 hello get "127.0.0.1:$port"
    fails 1 docker start n1
    docker rm -f n2 >/dev/null
    ok docker start n1
    until_has 5 hello get "127.0.0.1:$port"
}

test_not_published_is_closed() {
    serve n1
    docker create --name n2 --expose 80 $IMG true >/dev/null
    fails 1 docker port n2 80
}

test_restart_keeps_fixed_port() {
    port=$(free_port)
    serve n1 -p "$port:80"
    docker restart -t 0 n1 >/dev/null
    until_has 5 hello get "127.0.0.1:$port"
}

test_sockets_of_a_large_transfer() {
    port=$(free_port)
    docker run -d --name n1 -p "$port:80" $IMG sh -c 'head -c 30000000 /dev/zero >/tmp/big; exec httpd -f -h /tmp -p 80' >/dev/null
    until_has 10 30000000 sh -c "curl -sS --noproxy \"*\" http://127.0.0.1:$port/big | wc -c"
}

test_mac_and_names() {
    docker run -d --name n1 $IMG sleep 60 >/dev/null
    has "$(docker exec n1 ip link show eth0)" "$(ins n1 '{{.NetworkSettings.Networks.bridge.MacAddress}}')"
    has "$(docker network ls --format '{{.Name}} {{.Driver}}')" 'bridge bridge'
    has "$(docker network ls --format '{{.Name}} {{.Driver}}')" 'none null'
    has "$(docker network inspect bridge)" "$(ins n1 '{{.Id}}')"
}

test_unknown_network() {
    fails 125 docker run --rm --network nosuchnet $IMG true
    has "$ERR" 'network nosuchnet not found'
}

test_legacy_links() {
    fails 125 docker run --link nobody:x $IMG true
    has "$ERR" 'could not get container for nobody: No such container: nobody'
    fails 125 docker run --link a:b:c $IMG true
    docker run -d --name db -e FOO=1 --expose 5432 $IMG sleep 60 >/dev/null
    docker create --name web --link db:my-db $IMG sh -c 'env; cat /etc/hosts' >/dev/null
    eq "$(ins web '{{json .HostConfig.Links}}')" '["/db:/web/my-db"]'
    eq "$(ins web/my-db '{{.Name}}')" /db
    eq "$(docker ps --no-trunc --filter name=db --format '{{.Names}}')" 'db,web/my-db'
    address=$(ins db '{{.NetworkSettings.IPAddress}}')
    docker rename db database
    eq "$(ins web '{{json .HostConfig.Links}}')" '["/database:/web/my-db"]'
    OUT=$(docker start -a web)
    has "$OUT" "MY_DB_PORT=tcp://$address:5432"
    has "$OUT" "MY_DB_PORT_5432_TCP_ADDR=$address"
    has "$OUT" 'MY_DB_NAME=/web/my-db'
    has "$OUT" 'MY_DB_ENV_FOO=1'
    hasnt "$OUT" 'MY_DB_ENV_PATH='
    matches "$OUT" "$address[[:space:]]+my-db "
    docker stop -t 0 database >/dev/null
    fails 1 docker start web
    has "$ERR" 'Cannot link to a non running container: /database AS /web/my-db'
    fails 1 docker rm --link database
    has "$ERR" 'cannot remove the default link name of the container'
    ok docker rm --link web/my-db
    eq "$(ins web '{{json .HostConfig.Links}}')" '[]'
    hasnt "$(docker start -a web)" MY_DB
}

test_auxiliary_addresses_are_kept_free() {
    docker network create --subnet 10.213.7.0/29 --aux-address a=10.213.7.2 --aux-address b=10.213.7.4 aux >/dev/null
    has "$(docker network inspect aux)" '"a": "10.213.7.2"'
    eq "$(docker run --rm --network aux $IMG hostname -i)" 10.213.7.3
    eq "$(docker run --rm --network aux $IMG hostname -i)" 10.213.7.5
    docker network rm aux >/dev/null
    fails 1 docker network create --subnet 10.213.7.0/29 --aux-address a=10.1.1.1 aux
    has "$ERR" 'no matching subnet for aux-address 10.1.1.1'
}
