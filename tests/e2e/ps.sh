# docker ps: filters, formats, order.

names() { docker ps --format '{{.Names}}' "$@" | sort | tr '\n' ' '; }

test_running_all_and_last() {
    docker create --name a1 $IMG true >/dev/null
    docker run -d --name a2 $IMG sleep 60 >/dev/null
    eq "$(names)" 'a2 '
    eq "$(names -a)" 'a1 a2 '
    eq "$(names -l)" 'a2 '
    eq "$(names -n 2)" 'a1 a2 '
    eq "$(docker ps -aq | wc -l)" 2
    eq "$(docker ps -a --format '{{.Names}}' | head -n 1)" a2 'newest first'
    matches "$(docker ps -aq --no-trunc | head -n 1)" '^[0-9a-f]{64}$'
}

test_filter_by_state() {
    docker create --name created $IMG true >/dev/null
    docker run --name zero $IMG true
    docker run --name three $IMG sh -c 'exit 3' || true
    docker run -d --name runs $IMG sleep 60 >/dev/null
    docker run -d --name frozen $IMG sleep 60 >/dev/null
    docker pause frozen >/dev/null
    eq "$(names -f status=created)" 'created '
    eq "$(names -f status=exited)" 'three zero '
    eq "$(names -f status=running)" 'runs '
    eq "$(names -f status=paused)" 'frozen '
    eq "$(names -f status=created -f status=paused)" 'created frozen '
    eq "$(names -a -f exited=3)" 'three '
    eq "$(names -a -f exited=0 -f status=exited)" 'zero '
    fails 1 docker ps -f status=nonsense
}

test_filter_by_name_id_label() {
    first=$(docker create --name web-1 -l tier=web -l x $IMG true)
    docker create --name web-2 -l tier=web $IMG true >/dev/null
    docker create --name db -l tier=db $IMG true >/dev/null
    eq "$(names -a -f name=web)" 'web-1 web-2 '
    eq "$(names -a -f 'name=^web-1$')" 'web-1 '
    eq "$(names -a -f 'name=/db')" 'db '
    eq "$(names -a -f "id=${first:0:8}")" 'web-1 '
    eq "$(names -a -f label=tier=web)" 'web-1 web-2 '
    eq "$(names -a -f label=tier)" 'db web-1 web-2 '
    eq "$(names -a -f label=tier=web -f label=x)" 'web-1 '
    eq "$(names -a -f label=none)" ''
}

test_filter_by_ancestor() {
    mkimage parent '{"Cmd":["true"]}' unique=parent
    docker create --name child parent >/dev/null
    docker create --name stranger $IMG true >/dev/null
    eq "$(names -a -f ancestor=parent)" 'child '
    eq "$(names -a -f ancestor=parent:latest)" 'child '
    eq "$(names -a -f "ancestor=$(docker image inspect -f '{{.Id}}' parent)")" 'child '
    eq "$(names -a -f ancestor=nothing)" ''
    docker rm child >/dev/null; docker rmi parent >/dev/null
}

test_filter_before_and_since() {
    for n in n1 n2 n3; do docker create --name $n $IMG true >/dev/null; done
    eq "$(names -a -f before=n2)" 'n1 '
    eq "$(names -a -f since=n2)" 'n3 '
    fails 1 docker ps -a -f since=ghost
}

test_filter_by_volume_and_network() {
    docker create --name v1 -v myvol:/data $IMG true >/dev/null
    docker create --name v2 --network none $IMG true >/dev/null
    eq "$(names -a -f volume=myvol)" 'v1 '
    eq "$(names -a -f volume=/data)" 'v1 '
    eq "$(names -a -f network=none)" 'v2 '
    eq "$(names -a -f network=bridge)" 'v1 '
    docker rm v1 >/dev/null; docker volume rm myvol >/dev/null
}

test_filter_by_published_port() {
    docker run -d --name p1 -p 127.0.0.1::8080 --expose 9000 $IMG sleep 60 >/dev/null
    docker run -d --name p2 $IMG sleep 60 >/dev/null
    public=$(docker port p1 8080); public=${public##*:}
    eq "$(names -a -f publish="$public")" 'p1 '
    eq "$(names -a -f expose=8080)" 'p1 '
    eq "$(names -a -f expose=9000/tcp)" 'p1 '
    eq "$(names -a -f expose=8999-9001)" 'p1 '
}

test_filter_by_health() {
    docker run -d --name sick --health-cmd false --health-interval 100ms --health-retries 1 $IMG sleep 60 >/dev/null
    docker run -d --name plain $IMG sleep 60 >/dev/null
    until_eq 15 'sick ' names -f health=unhealthy
    eq "$(names -f health=none)" 'plain '
}

test_unknown_filter() {
    fails 1 docker ps -f nonsense=1
    legacy || has "$ERR" "invalid filter 'nonsense'"
}

test_status_text() {
    docker run --name done $IMG sh -c 'exit 4' || true
    docker run -d --name up $IMG sleep 60 >/dev/null
    docker create --name new $IMG true >/dev/null
    matches "$(docker ps -a -f name=done --format '{{.Status}}')" '^Exited \(4\) .*ago$'
    matches "$(docker ps -a -f name=up --format '{{.Status}}')" '^Up '
    eq "$(docker ps -a -f name=new --format '{{.Status}}')" Created
}

test_columns() {
    docker run -d --name up -l k=v -v /data $IMG sleep 60 >/dev/null
    ok docker ps --no-trunc --format '{{.Image}}|{{.Command}}|{{.Labels}}|{{.Networks}}|{{.LocalVolumes}}|{{.State}}'
    eq "$OUT" 'busybox|"sleep 60"|k=v|bridge|1|running'
    docker rm -fv up >/dev/null
}

test_image_shown_after_untag() {
    mkimage fleeting '{"Cmd":["true"]}' unique=fleeting
    id=$(docker image inspect -f '{{.Id}}' fleeting)
    docker create --name cc fleeting >/dev/null
    docker rmi -f fleeting >/dev/null
    has "$(docker ps -a --no-trunc --format '{{.Image}}')" "$id" 'a name that leads nowhere is not shown'
    docker rm cc >/dev/null
    docker rmi -f "$id" >/dev/null 2>&1 || true
}

test_json_list() {
    docker create --name jj $IMG true >/dev/null
    api GET '/containers/json?all=1&size=1'
    eq "$CODE" 200
    for field in Id Names Image ImageID Command Created Ports SizeRootFs Labels State Status HostConfig NetworkSettings Mounts; do has "$BODY" "\"$field\""; done
    api GET '/containers/json?all=1&limit=0'
    eq "$CODE" 200
    api GET '/containers/json?filters=notjson'
    legacy || eq "$CODE" 400
}
