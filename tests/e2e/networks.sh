# Networks that users make: subnets, drivers, who leads out, who is refused and in which words.

mac_of() { docker exec "$1" cat "/sys/class/net/$2/address"; }

test_create_shows_all_fields() {
    ok docker network create --subnet 10.214.1.0/24 --gateway 10.214.1.9 --ip-range 10.214.1.128/25 --attachable --label a=b \
        -o com.docker.network.driver.mtu=1400 -o com.docker.network.bridge.name=e2ebr0 n1
    has "$(docker network inspect n1 | jq -c '.[0] | [.Scope, .Driver, .EnableIPv4, .EnableIPv6, .IPAM, .Internal, .Attachable, .Ingress, .ConfigOnly, .Labels]')" \
        '["local","bridge",true,false,{"Driver":"default","Options":{},"Config":[{"Subnet":"10.214.1.0/24","IPRange":"10.214.1.128/25","Gateway":"10.214.1.9"}]},false,true,false,false,{"a":"b"}]'
    OUT=$(docker run --rm --network n1 $IMG sh -c 'cat /sys/class/net/eth0/mtu; ip -4 -o addr show eth0; ip route')
    has "$OUT" 1400; has "$OUT" 10.214.1.128/24; has "$OUT" 'default via 10.214.1.9'
    has "$(ip -o addr show e2ebr0)" 10.214.1.9/24
    ok docker network rm n1
    fails 1 ip link show e2ebr0
}

test_ipv6() {
    docker network create --ipv6 n1 >/dev/null
    matches "$(docker network inspect n1 | jq -r '.[0].IPAM.Config[1].Subnet')" '^fd[0-9a-f:]+::/64$'
    docker run -d --name c1 --network n1 $IMG sleep 60 >/dev/null
    address=$(ins c1 '{{.NetworkSettings.Networks.n1.GlobalIPv6Address}}')
    ok docker run --rm --network n1 $IMG ping -6 -c 1 -W 2 "$address"
    has "$(docker exec c1 ip -6 route)" "default via $(ins c1 '{{.NetworkSettings.Networks.n1.IPv6Gateway}}')"
    docker network create --ipv4=false --ipv6 --subnet fd77:1::/64 n2 >/dev/null
    hasnt "$(docker run --rm --network n2 $IMG ip -o -4 addr)" eth0
    has "$(docker run --rm --network n2 --ip6 fd77:1::77 $IMG ip -o -6 addr)" fd77:1::77/64
    fails 1 docker network create --ipv4=false n3
    has "$ERR" 'IPv4 or IPv6 must be enabled'
    docker rm -f c1 >/dev/null; docker network rm n1 n2 >/dev/null
}

test_several_subnets() {
    docker network create --subnet 10.214.2.0/30 --subnet 10.214.2.8/30 n1 >/dev/null
    docker run -d --name c1 --network n1 $IMG sleep 60 >/dev/null
    docker run -d --name c2 --network n1 $IMG sleep 60 >/dev/null
    # The client sends them in any order.
    eq "$(for name in c1 c2; do ins $name '{{.NetworkSettings.Networks.n1.IPAddress}}'; done | sort -V | tr '\n' ' ')" '10.214.2.2 10.214.2.10 '
    ok docker exec c1 ping -c 1 -W 2 10.214.2.10; ok docker exec c2 ping -c 1 -W 2 10.214.2.2
    fails 125 docker run --name c3 --network n1 $IMG true
    has "$ERR" "no available IPv4 addresses on this network's address pools: n1 ($(docker network inspect -f '{{.Id}}' n1))"
    docker rm -f c1 c2 c3 >/dev/null; docker network rm n1 >/dev/null
}

test_several_networks_at_create() {
    docker network create --subnet 10.214.3.0/24 n1 >/dev/null
    docker network create --subnet 10.214.4.0/24 n2 >/dev/null
    docker network create --internal --subnet 10.214.5.0/24 n0 >/dev/null
    docker run -d --name c1 -p 80 --network name=n2,ip=10.214.4.44,mac-address=02:42:0a:00:00:44,alias=other,driver-opt=com.docker.network.endpoint.ifname=lan0,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1 \
        --network n1 --network n0 $IMG sh -c 'echo hello >/tmp/index.html; exec httpd -f -h /tmp -p 80' >/dev/null
    has "$(docker exec c1 ip -o addr show lan0)" 10.214.4.44/24
    eq "$(mac_of c1 lan0) $(docker exec c1 cat /proc/sys/net/ipv4/conf/lan0/log_martians)" '02:42:0a:00:00:44 1'
    eq "$(docker exec c1 ip route | sed -n 's/ *$//; s/^default via //p')" '10.214.3.1 dev eth1' 'the first name that leads out'
    port=$(docker port c1 80 | sed -n 's/^0.0.0.0://p')
    until_has 5 hello curl -sS --noproxy '*' "http://127.0.0.1:$port/"
    # The way out and the port follow.
    docker network disconnect n1 c1
    has "$(docker exec c1 ip route)" 'default via 10.214.4.1 dev lan0'
    until_has 5 hello curl -sS --noproxy '*' "http://127.0.0.1:$port/"
    docker network connect --gw-priority 7 --ip 10.214.3.33 n1 c1
    has "$(docker exec c1 ip route)" 'default via 10.214.3.1'
    until_has 5 hello curl -sS --noproxy '*' "http://127.0.0.1:$port/"
    eq "$(docker port c1 80 | head -n 1)" "0.0.0.0:$port"
    docker network disconnect n1 c1; docker network disconnect n2 c1
    hasnt "$(docker exec c1 ip route)" default
    eq "$(docker port c1)" '' 'what is only on an internal network publishes nothing'
    # A restart has it all as it was left.
    docker network connect n1 c1; docker restart -t 0 c1 >/dev/null
    has "$(docker exec c1 ip route)" 'default via 10.214.3.1'
    docker rm -f c1 >/dev/null; docker network rm n0 n1 n2 >/dev/null
}

test_connect_while_stopped() {
    docker network create --subnet 10.214.6.0/24 n1 >/dev/null
    docker create --name c1 $IMG ip -o -4 addr >/dev/null
    ok docker network connect --ip 10.214.6.66 n1 c1
    has "$(docker start -a c1)" 10.214.6.66/24
    ok docker network disconnect bridge c1
    hasnt "$(docker start -a c1)" 'eth1'
    ok docker network disconnect n1 c1
    fails 1 docker network disconnect n1 c1
    has "$ERR" 'is not connected to network n1'
    docker rm c1 >/dev/null; docker network rm n1 >/dev/null
}

test_macvlan() {
    docker network create -d macvlan --subnet 10.214.7.0/24 n1 >/dev/null
    parent=dm-$(docker network inspect -f '{{.Id}}' n1 | cut -c1-12)
    ok ip link show "$parent"
    docker run -d --name c1 --network n1 $IMG sleep 60 >/dev/null
    ok docker run --rm --network n1 $IMG ping -c 1 -W 2 "$(ins c1 '{{.NetworkSettings.Networks.n1.IPAddress}}')"
    hasnt "$(docker exec c1 ip route)" default
    has "$(docker network inspect n1)" "$(ins c1 '{{.Id}}')"
    fails 1 docker network rm n1
    docker rm -f c1 >/dev/null; ok docker network rm n1
    fails 1 ip link show "$parent"
    fails 1 docker network create -d macvlan -o parent=nosuch0 n2
    has "$ERR" 'invalid subinterface vlan name nosuch0, example formatting is eth0.10'
    fails 1 docker network create -d macvlan -o parent=lo n2
    has "$ERR" 'loopback interface is not a valid macvlan parent link'
    fails 1 docker network create -d macvlan -o macvlan_mode=x n2
    has "$ERR" "requested macvlan mode 'x' is not valid"
    fails 1 docker network create -d ipvlan n2
    has "$ERR" 'could not find plugin ipvlan'
}

# said CODE WORDS METHOD PATH JSON
said() {
    api "$3" "$4" "$5"
    eq "$CODE" "$1" "$BODY"; has "$(jq -r .message <<<"$BODY")" "$2"
}

test_refusals() {
    create() { said "$1" "$2" POST /networks/create "$3"; }
    docker network create --subnet 10.214.8.0/24 n1 >/dev/null
    create 403 'Pool overlaps with other one on this address space' '{"Name":"x","IPAM":{"Config":[{"Subnet":"10.214.8.128/25"}]}}'
    create 400 'invalid subnet 10.214.9.1/24: it should be 10.214.9.0/24' '{"Name":"x","IPAM":{"Config":[{"Subnet":"10.214.9.1/24"}]}}'
    create 400 'invalid subnet foo: invalid CIDR block notation' '{"Name":"x","IPAM":{"Config":[{"Subnet":"foo"}]}}'
    create 400 "invalid gateway 10.1.1.1: parent subnet 10.214.9.0/24 doesn't contain this address" '{"Name":"x","IPAM":{"Config":[{"Subnet":"10.214.9.0/24","Gateway":"10.1.1.1"}]}}'
    create 400 "invalid ip-range 10.214.0.0/16: CIDR block is bigger than its parent subnet" '{"Name":"x","IPAM":{"Config":[{"Subnet":"10.214.9.0/24","IPRange":"10.214.0.0/16"}]}}'
    create 500 'failed to allocate gateway (10.214.9.0): Address already in use' '{"Name":"x","IPAM":{"Config":[{"Subnet":"10.214.9.0/24","Gateway":"10.214.9.0"}]}}'
    create 409 'network with name n1 already exists' '{"Name":"n1"}'
    create 403 'operation is not permitted on predefined host network' '{"Name":"host"}'
    create 400 'failed to parse com.docker.network.driver.mtu value: x' '{"Name":"x","Options":{"com.docker.network.driver.mtu":"x"}}'
    create 400 'unknown gateway mode x' '{"Name":"x","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"x"}}'
    create 404 'could not find plugin nosuch' '{"Name":"x","Driver":"nosuch"}'
    docker network create -o com.docker.network.bridge.name=e2ebr1 n2 >/dev/null
    create 403 'networks have same bridge name' '{"Name":"x","Options":{"com.docker.network.bridge.name":"e2ebr1"}}'
    docker run -d --name c1 --network n1 --ip 10.214.8.8 $IMG sleep 60 >/dev/null
    said 403 "error while removing network: network n1 has active endpoints (name:\"c1\" id:\"$(ins c1 '{{slice .NetworkSettings.Networks.n1.EndpointID 0 12}}')\")" DELETE /networks/n1 '{}'
    said 403 'bridge is a pre-defined network and cannot be removed' DELETE /networks/bridge '{}'
    said 404 'network nosuch not found' DELETE /networks/nosuch '{}'
    said 400 'no configured subnet or ip-range contain the IP address 10.1.1.1' POST /networks/n1/connect '{"Container":"c1","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.1.1.1"}}}'
    said 403 'endpoint with name c1 already exists in network n1' POST /networks/n1/connect '{"Container":"c1"}'
    fails 125 docker run --name c2 --network n1 --ip 10.214.8.8 $IMG true
    has "$ERR" 'Address already in use'
    fails 125 docker run --network n1 --ip 10.1.1.1 $IMG true
    has "$ERR" 'invalid config for network n1: invalid endpoint settings:'
    fails 125 docker run --ip 10.1.1.1 $IMG true
    has "$ERR" 'user specified IP address is supported on user defined networks only'
    docker rm -f c1 c2 >/dev/null; docker network rm n1 n2 >/dev/null
}

test_networks_are_apart() {
    docker network create --subnet 10.214.10.0/24 n1 >/dev/null
    docker network create --subnet 10.214.11.0/24 -o com.docker.network.bridge.enable_icc=false n2 >/dev/null
    for c in c1 c2; do docker run -d --name $c --network n2 $IMG sh -c 'echo hello >/tmp/index.html; exec httpd -f -h /tmp -p 80' >/dev/null; done
    address=$(ins c1 '{{.NetworkSettings.Networks.n2.IPAddress}}')
    until_has 5 hello curl -sS --noproxy '*' "http://$address/"
    fails 1 docker run --rm --network n1 $IMG ping -c 1 -W 1 "$address"
    fails 1 docker exec c2 ping -c 1 -W 1 "$address"
    ok docker exec c1 ping -c 1 -W 1 "$address"
    docker rm -f c1 c2 >/dev/null; docker network rm n1 n2 >/dev/null
}

test_options_of_bridges() {
    docker network create --subnet 10.214.12.0/24 -o com.docker.network.bridge.host_binding_ipv4=127.0.0.1 -o com.docker.network.container_iface_prefix=lan n1 >/dev/null
    docker run -d --name c1 --network n1 -p 80 -p 0.0.0.0::81 $IMG sleep 60 >/dev/null
    matches "$(docker port c1 80)" '^127\.0\.0\.1:[0-9]+$'
    matches "$(docker port c1 81)" '^0\.0\.0\.0:[0-9]+$'
    has "$(docker exec c1 ip -o link)" lan0
    docker network create --internal -o com.docker.network.bridge.gateway_mode_ipv4=isolated n2 >/dev/null
    hasnt "$(ip -4 -o addr show "kr-$(docker network inspect -f '{{.Id}}' n2 | cut -c1-12)")" inet
    docker rm -f c1 >/dev/null; docker network rm n1 n2 >/dev/null
}

test_prune_and_filters() {
    docker network create --label keep=1 n1 >/dev/null; docker network create n2 >/dev/null
    docker network create n3 >/dev/null; docker run -d --name c1 --network n3 $IMG sleep 60 >/dev/null
    eq "$(docker network ls --filter label=keep --format '{{.Name}}')" n1
    eq "$(docker network ls --filter dangling=true --format '{{.Name}}' | sort | paste -sd' ')" 'n1 n2'
    eq "$(docker network ls --filter type=builtin --format '{{.Name}}' | sort | paste -sd' ')" 'bridge host none'
    ok docker network prune -f --filter 'label!=keep'
    eq "$(docker network ls --filter type=custom --format '{{.Name}}' | sort | paste -sd' ')" 'n1 n3'
    docker rm -f c1 >/dev/null; ok docker network prune -f
    eq "$(docker network ls -q --filter type=custom)" ''
}
