# The crash tests; run by run.sh, each with a daemon of its own in $D. `crash` kills it and starts it again.

crash() { daemon_kill "$D"; daemon_start "$D"; }
# Some milliseconds, up to $1.
moment() { sleep "$(printf '0.%03d' $((RANDOM % $1)))"; }
# Waits for background docker commands, which may well fail when the daemon goes away under them.
settle() { wait "$@" 2>/dev/null || true; }

test_containers_keep_running() {
    docker run -d --name c1 $IMG sh -c 'while :; do sleep 0.1; done' >/dev/null
    pid=$(ins c1 '{{.State.Pid}}'); since=$(ins c1 '{{.State.StartedAt}}')
    for _ in 1 2 3; do
        crash
        eq "$(ins c1 '{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}')" "running $pid $since"
    done
    kill -0 "$pid"
    eq "$(docker exec c1 echo alive)" alive
    docker stop -t 0 c1 >/dev/null
    eq "$(ins c1 '{{.State.ExitCode}}')" 137
}

test_logs_lose_no_line() {
    docker run -d --name c1 $IMG sh -c 'i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; sleep 1; i=3000; while [ $i -lt 6000 ]; do i=$((i+1)); echo $i; done; echo end' >/dev/null
    crash; crash
    docker wait c1 >/dev/null
    { seq 6000; echo end; } >want
    docker logs c1 >got
    cmp want got
}

test_logs_during_random_kills() {
    docker run -d --name c1 $IMG sh -c 'i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; sleep 0.005; done; echo end' >/dev/null
    for _ in $(seq "$CRASH_ROUNDS"); do moment 300; crash; done
    # The container may be gone before this command is.
    docker exec c1 touch /stop || true
    eq "$(docker wait c1)" 0
    docker logs c1 >got
    eq "$(tail -n 1 got)" end
    sed '$d' got | awk '$1 != NR { print "line " NR " is " $1; exit 1 }' || fail 'a line is missing'
}

test_exit_codes_that_fell_in_between() {
    for i in 1 2 3 4 5; do docker run -d --name c$i $IMG sh -c "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 1$i" >/dev/null; done
    pids=(); for i in 1 2 3 4 5; do pids+=("$(ins c$i '{{.State.Pid}}')"); done
    daemon_kill "$D"
    for pid in "${pids[@]}"; do touch "/proc/$pid/root/tmp/go"; done
    for pid in "${pids[@]}"; do wait_until 10 pid_gone "$pid"; done
    sleep 0.3
    daemon_start "$D"
    for i in 1 2 3 4 5; do
        eq "$(ins c$i '{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}')" "exited 1$i false"
        finished=$(date -d "$(ins c$i '{{.State.FinishedAt}}')" +%s)
        between "$finished" $(($(date +%s) - 20)) "$(date +%s)"
    done
}

test_kill_from_outside_in_between() {
    docker run -d --name c1 $IMG sleep 1000 >/dev/null
    pid=$(ins c1 '{{.State.Pid}}')
    daemon_kill "$D"
    kill -KILL "$pid"
    wait_until 10 pid_gone "$pid"
    daemon_start "$D"
    eq "$(ins c1 '{{.State.Status}} {{.State.ExitCode}}')" 'exited 137'
}

test_restart_policy_after_a_crash() {
    docker run -d --name c1 --restart always $IMG sleep 1000 >/dev/null
    pid=$(ins c1 '{{.State.Pid}}')
    daemon_kill "$D"
    kill -KILL "$pid"; wait_until 10 pid_gone "$pid"
    daemon_start "$D"
    until_eq 15 running state c1
    ne "$(ins c1 '{{.State.Pid}}')" "$pid"
}

test_auto_remove_after_a_crash() {
    docker run -d --rm --name c1 $IMG sh -c 'while [ ! -e /tmp/go ]; do sleep 0.05; done' >/dev/null
    pid=$(ins c1 '{{.State.Pid}}')
    daemon_kill "$D"
    touch "/proc/$pid/root/tmp/go"; wait_until 10 pid_gone "$pid"
    daemon_start "$D"
    until_eq 10 0 sh -c 'docker ps -aq | wc -l'
}

test_paused_stays_paused() {
    docker run -d --name c1 $IMG sleep 1000 >/dev/null
    docker pause c1 >/dev/null
    crash
    eq "$(state c1)" paused
    docker unpause c1 >/dev/null
    eq "$(state c1)" running
    eq "$(docker exec c1 echo alive)" alive
}

test_attached_client_of_a_tty() {
    docker run -dit --name c1 $IMG sh >/dev/null
    crash
    run pty 'send:\r' 'expect:# ' 'send:echo st''ill\r' expect:still 'send:exit 4\r' -- docker attach c1
    eq "$RC" 4 "$OUT"
}

test_published_port_survives() {
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
    docker run -d --name c1 -p "$port:80" $IMG sh -c 'echo hello >/tmp/index.html; exec httpd -f -h /tmp -p 80' >/dev/null
    fetch() { curl -sS --noproxy '*' --max-time 3 "http://127.0.0.1:$port/"; }
    until_has 5 hello fetch
    crash
    until_has 5 hello fetch
    fails 125 docker run -d -p "$port:80" $IMG sleep 1
    docker rm -f c1 >/dev/null
    docker rm -f "$(docker ps -aq)" >/dev/null
    run fetch
    ne "$RC" 0
    # Addresses are not given twice either.
    docker run -d --name c2 $IMG sleep 100 >/dev/null
    crash
    docker run -d --name c3 $IMG sleep 100 >/dev/null
    ne "$(ins c2 '{{.NetworkSettings.Networks.bridge.IPAddress}}')" "$(ins c3 '{{.NetworkSettings.Networks.bridge.IPAddress}}')"
}

test_health_and_exec_go_on() {
    docker run -d --name c1 --health-cmd 'test -e /tmp/ok' --health-interval 200ms --health-retries 1 $IMG sleep 1000 >/dev/null
    docker exec -d c1 sleep 500
    crash
    docker exec c1 touch /tmp/ok
    until_eq 15 healthy ins c1 '{{.State.Health.Status}}'
    has "$(docker top c1)" 'sleep 500'
}

test_objects_are_the_same_after_a_crash() {
    docker volume create --label a=b v1 >/dev/null
    docker create --name c1 -v v1:/d -e A=1 -l x=y --restart always $IMG sh -c 'exit 3' >/dev/null
    docker run --name c2 $IMG sh -c 'echo kept >/file' >/dev/null
    docker tag $IMG other:tag
    docker inspect c1 c2 >before.json; docker image inspect other:tag >>before.json; docker volume inspect v1 >>before.json
    crash
    docker inspect c1 c2 >after.json; docker image inspect other:tag >>after.json; docker volume inspect v1 >>after.json
    diff before.json after.json
    eq "$(docker cp c2:/file - | tar -xO)" kept
}

test_kills_during_create_start_and_remove() {
    for round in $(seq "$CRASH_ROUNDS"); do
        pids=()
        for i in 1 2 3; do
            { docker run -d --name "r$round-$i" -v /anon $IMG sleep 1000; docker rm -fv "r$round-$i"; } >/dev/null 2>&1 &
            pids+=($!)
        done
        moment 700
        crash
        settle "${pids[@]}"
        # Each is there and works, or is gone; nothing in between.
        for i in 1 2 3; do
            status=$(ins "r$round-$i" '{{.State.Status}}' 2>/dev/null) || continue
            case $status in
                running) eq "$(docker exec "r$round-$i" echo up)" up ;;
                created | exited) ok docker start "r$round-$i" ;;
                *) fail "r$round-$i is $status" ;;
            esac
            ok docker rm -fv "r$round-$i"
        done
    done
    eq "$(docker ps -aq | wc -l)" 0
    docker volume prune -af >/dev/null
    eq "$(docker volume ls -q | wc -l)" 0
}

test_kills_during_load_and_rmi() {
    mkdir -p r; head -c 20000000 /dev/urandom >r/big
    image_archive "$T/i.tar" big:1 r
    for _ in $(seq "$CRASH_ROUNDS"); do
        { docker load -q -i i.tar && docker rmi big:1; } >/dev/null 2>&1 &
        pid=$!
        moment 900
        crash
        settle $pid
        if docker image inspect big:1 >/dev/null 2>&1; then
            docker save big:1 >s.tar
            ok docker rmi -f big:1
        fi
    done
    ok docker load -q -i i.tar
    id=$(docker create big:1 x)
    docker cp "$id:/big" - | tar -xO | cmp - r/big
    docker rm "$id" >/dev/null
    docker rmi big:1 >/dev/null
    docker image prune -af >/dev/null
    size=$(du -sm "$D/data" | cut -f1)
    between "$size" 0 40 'megabytes after everything was removed'
}

test_kills_during_commit_and_cp() {
    docker run -d --name c1 $IMG sh -c 'head -c 5000000 /dev/urandom >/f; echo up; sleep 1000' >/dev/null
    until_has 10 up docker logs c1
    for _ in $(seq $((CRASH_ROUNDS / 2))); do
        docker commit c1 half:1 >/dev/null 2>&1 & one=$!
        docker cp c1:/f - >/dev/null 2>&1 & two=$!
        moment 400
        crash
        settle $one $two
        eq "$(state c1)" running
        docker rmi -f half:1 >/dev/null 2>&1 || true
    done
    docker commit c1 whole:1 >/dev/null
    eq "$(docker run --rm whole:1 sha256sum </dev/null /f)" "$(docker exec c1 sha256sum /f)"
    docker rmi whole:1 >/dev/null
}

test_clean_stop_leaves_containers() {
    docker run -d --name c1 $IMG sleep 1000 >/dev/null
    pid=$(ins c1 '{{.State.Pid}}')
    from=$SECONDS
    daemon_term "$D"
    between $((SECONDS - from)) 0 5
    kill -0 "$pid"
    daemon_start "$D"
    eq "$(ins c1 '{{.State.Status}} {{.State.Pid}}')" "running $pid"
}

test_ready_within_a_second_with_many_containers() {
    for i in $(seq 30); do docker create --name n$i $IMG true >/dev/null & [ $((i % 6)) != 0 ] || wait; done; wait
    docker run -d --name c1 $IMG sleep 1000 >/dev/null
    daemon_kill "$D"
    from=$(date +%s%N)
    daemon_start "$D"
    between $((($(date +%s%N) - from) / 1000000)) 0 1500 milliseconds
    eq "$(docker ps -aq | wc -l)" 31
}

test_after_a_reboot() {
    # What a reboot leaves: the data, but no process, no mount, no run directory.
    docker run -d --name c1 --restart always $IMG sleep 1000 >/dev/null
    docker run -d --name c2 $IMG sleep 1000 >/dev/null
    docker run -d --name c3 --restart unless-stopped $IMG sleep 1000 >/dev/null
    docker stop -t 0 c3 >/dev/null
    pids=("$(ins c1 '{{.State.Pid}}')" "$(ins c2 '{{.State.Pid}}')")
    daemon_kill "$D"
    shims=$(for pid in "${pids[@]}"; do awk '/^PPid/ { print $2 }' "/proc/$pid/status"; done)
    # shellcheck disable=SC2086
    kill -KILL $shims "${pids[@]}" 2>/dev/null
    for pid in "${pids[@]}"; do wait_until 10 pid_gone "$pid"; done
    awk -v d="$D/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r point; do umount -l "$point"; done
    daemon_start "$D"
    until_eq 15 running state c1
    eq "$(state c2)" exited
    eq "$(state c3)" exited
    ok docker start c2
}

test_two_daemons_side_by_side() {
    other=$T/other
    mine=$DOCKER_HOST
    docker run -d --name same $IMG sleep 1000 >/dev/null
    (
        daemon_start "$other"
        docker load -q -i "$(busybox_archive)" >/dev/null
        eq "$(docker ps -aq | wc -l)" 0
        docker run -d --name same $IMG sleep 1000 >/dev/null
        ne "$(ins same '{{.NetworkSettings.Networks.bridge.Gateway}}')" "$(DOCKER_HOST=$mine ins same '{{.NetworkSettings.Networks.bridge.Gateway}}')"
        daemon_kill "$other"; daemon_start "$other"
        eq "$(state same)" running
        daemon_destroy "$other"
    )
    export DOCKER_HOST=$mine
    eq "$(docker exec same echo alive)" alive
    docker run --rm $IMG true
    crash
    eq "$(docker exec same echo alive)" alive
}

# What the instance has in the kernel's network, one count a line. Links carry the instance as their group, which ip
# prints as a signed number.
net_counts() {
    local id group; id=$(instance_of "$D/data"); group=$((16#$id)); [ $group -lt $((1 << 31)) ] || group=$((group - (1 << 32)))
    ip -d -o link | grep -e " group $group " >links || true
    ip -o addr show scope global >addresses
    awk '/ veth /{v++} / bridge forward_delay/{b++} /: dm-/{d++} END {print "pairs " v+0 "\nbridges " b+0 "\nparents " d+0}' links
    awk 'NR == FNR {split($2, name, /[:@]/); own[name[1]]; next} $2 in own {n++} END {print "addresses " n+0}' links addresses
    echo "namespaces $(find "/run/kraud/instances/$id/netns" -type f 2>/dev/null | wc -l)"
    echo "ports $(nft list map inet "kraud_$id" any4 | grep -v type | grep -o ' : ' | wc -l)"
    echo "elements $(nft list table inet "kraud_$id" | grep -oE '(elements = \{|,)' | wc -l)"
}

# What the daemon says there ought to be, in the same form, as far as it can be told.
net_wanted() {
    docker network inspect $(docker network ls -q) | jq -r '
        [.[] | select(.Driver == "bridge")] as $b | [.[] | select(.Driver == "macvlan")] as $m |
        "pairs \([$b[].Containers | length] | add)", "bridges \($b | length)", "parents \($m | length)",
        "addresses \([$b[].IPAM.Config | length] | add)"'
    local running; running=$(docker ps -q)
    echo "namespaces $(wc -w <<<"$running")"
    { [ -z "$running" ] || docker inspect $running; } | jq -rs '
        "ports \([.[][]? | .NetworkSettings.Ports[]? // [] | .[] | select(.HostIp == "0.0.0.0")] | length)"'
}
net_agree() { diff <(net_wanted) <(net_counts | sed '/^elements/d') && echo agreed; }

test_random_network_operations_leave_nothing() {
    docker network create warm >/dev/null; docker network rm warm >/dev/null
    net_counts >before
    local op step name net out
    for step in $(seq "${NET_STEPS:-200}"); do
        name=c$((RANDOM % 6)) net=n$((RANDOM % 5)) op=$((RANDOM % 20))
        case $op in
        0 | 1 | 2) case $net in
            n4) set -- network create --ipv6 $net ;;
            n3) set -- network create -d macvlan --subnet 10.231.9.0/24 $net ;;
            n2) set -- network create --internal $net ;;
            *) set -- network create $net ;;
            esac ;;
        3 | 4) set -- network rm $net ;;
        5 | 6 | 7) set -- run -d --name $name --network $net -p 80 -p 81/udp $IMG sleep 1000 ;;
        8) set -- run -d --name $name -p 80 $IMG sleep 1000 ;;
        9) set -- rm -f $name ;;
        10) set -- stop -t 0 $name ;;
        11 | 12) set -- start $name ;;
        13 | 14 | 15) set -- network connect $net $name ;;
        16 | 17) set -- network disconnect $net $name ;;
        *) set -- restart -t 0 $name ;;
        esac
        if [ $((RANDOM % 14)) = 0 ]; then
            # The daemon goes in the middle of it.
            docker "$@" >/dev/null 2>&1 & moment 150; crash; settle $!
            until_has 5 agreed net_agree
        elif ! out=$(docker "$@" 2>&1); then
            # Most refusals are right: what is not there cannot be had. The kernel's own words are never right.
            [[ $out != *"os error"* && $out != *"panicked"* ]] || fail "step $step: docker $*: $out"
        fi
    done
    until_has 5 agreed net_agree
    docker rm -f $(docker ps -aq) >/dev/null
    docker network prune -f >/dev/null
    until_eq 5 "$(cat before)" net_counts
    # Somebody flushes the tables of this machine's other owners, and ours: a start builds ours again.
    docker run -d --name c1 -p 80 $IMG sh -c 'mkdir /w; echo hello >/w/index.html; exec httpd -f -h /w -p 80' >/dev/null
    port=$(docker port c1 80 | sed -n 's/^0.0.0.0://p')
    until_has 5 hello curl -sS "http://127.0.0.1:$port/"
    nft flush table inet "kraud_$(instance_of "$D/data")"
    crash
    until_has 5 agreed net_agree
    until_has 5 hello curl -sS "http://127.0.0.1:$port/"
}
