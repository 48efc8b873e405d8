# docker events.

events() { docker events --since "$1" --until "$(now)" --format '{{.Type}} {{.Action}}' "${@:2}"; }

test_life_of_a_container() {
    from=$(now)
    docker run --rm --name e1 $IMG true
    gone() { docker inspect e1 >/dev/null 2>&1 || echo gone; }
    until_eq 5 gone gone
    got=$(events "$from" -f container=e1 | tr '\n' ',')
    eq "$got" 'container create,container attach,container start,container die,container destroy,'
}

test_network_events_are_there() {
    from=$(now)
    docker run --name e1 $IMG true
    ok events "$from"
    has "$OUT" 'network connect'
    until_has 5 'network disconnect' events "$from"
}

test_attributes() {
    from=$(now)
    docker run --name e1 -l team=blue $IMG sh -c 'exit 3' || true
    # As with docker, the exit shows a moment before the event of it.
    died() { docker events --since "$from" --until "$(now)" -f event=die --format '{{json .}}'; }
    until_has 5 '"exitCode":"3"' died
    OUT=$(died)
    has "$OUT" '"team":"blue"'
    has "$OUT" '"name":"e1"'
    has "$OUT" "\"image\":\"$IMG\""
    has "$OUT" '"scope":"local"'
    matches "$OUT" '"timeNano":[0-9]{19}'
}

test_filters() {
    from=$(now)
    docker create --name e1 -l a=1 $IMG true >/dev/null
    docker create --name e2 $IMG true >/dev/null
    docker volume create e-vol >/dev/null
    docker volume rm e-vol >/dev/null
    docker tag $IMG e-tag; docker rmi e-tag >/dev/null
    eq "$(events "$from" -f container=e1)" 'container create'
    eq "$(events "$from" -f label=a=1)" 'container create'
    eq "$(events "$from" -f type=volume | tr '\n' ,)" 'volume create,volume destroy,'
    eq "$(events "$from" -f type=image | tr '\n' ,)" 'image tag,image untag,'
    eq "$(events "$from" -f event=create -f type=container | wc -l)" 2
    eq "$(events "$from" -f image=$IMG | grep -c container)" 2
}

test_every_action() {
    from=$(now)
    docker run -d --name e1 $IMG sleep 60 >/dev/null
    docker pause e1 >/dev/null; docker unpause e1 >/dev/null
    docker exec e1 true
    docker rename e1 e2
    docker restart -t 0 e2 >/dev/null
    docker update --cpus 1 e2 >/dev/null
    docker cp e2:/etc/passwd . >/dev/null
    docker kill e2 >/dev/null
    docker wait e2 >/dev/null
    docker export e2 >/dev/null
    docker commit e2 e-commit >/dev/null
    docker rm e2 >/dev/null
    ok events "$from"
    for action in create start pause unpause exec_create exec_start exec_die rename restart update archive-path kill die export commit destroy; do
        has "$OUT" "container $action"
    done
    docker rmi e-commit >/dev/null
    ok events "$from"
    has "$OUT" 'image untag'
    has "$OUT" 'image delete'
}

test_live_stream() {
    docker events --format '{{.Action}}' -f container=e1 >stream &
    pid=$!
    sleep 0.5
    docker create --name e1 $IMG true >/dev/null
    docker rm e1 >/dev/null
    until_has 5 destroy cat stream
    kill $pid
    wait $pid || true
    eq "$(tr '\n' , <stream)" 'create,destroy,'
}

test_oom_event() {
    from=$(now)
    docker run --name e1 --memory 16m --memory-swap 16m $IMG tail /dev/zero || true
    until_has 5 'container oom' events "$from" -f container=e1
}

test_health_event() {
    from=$(now)
    docker run -d --name e1 --health-cmd true --health-interval 200ms $IMG sleep 60 >/dev/null
    until_has 15 'health_status: healthy' events "$from" -f container=e1
    eq "$(events "$from" -f event=health_status -f container=e1 | head -n 1)" 'container health_status: healthy'
}

test_volumes_come_and_go() {
    docker volume create vol >/dev/null
    from=$(now)
    docker run --rm -v vol:/data:ro $IMG true
    OUT=$(docker events --since "$from" --until "$(now)" --filter type=volume --format '{{.Action}} {{.Actor.ID}} {{index .Actor.Attributes "destination"}} {{index .Actor.Attributes "read/write"}}')
    eq "$OUT" $'mount vol /data false\nunmount vol  '
    docker volume rm vol >/dev/null
}
