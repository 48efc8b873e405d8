# start, stop, restart, kill, pause, wait, rename, rm, update, top, stats, port.

test_states() {
    docker create --name c1 $IMG sh -c 'exit 3' >/dev/null
    eq "$(state c1)" created
    docker start c1 >/dev/null
    eq "$(docker wait c1)" 3
    until_eq 5 exited state c1
    docker start c1 >/dev/null
    eq "$(docker wait c1)" 3
}

test_inspect_of_state() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    eq "$(ins c1 '{{.State.Running}} {{.State.Paused}} {{.State.Restarting}} {{.State.Dead}} {{.State.ExitCode}}')" 'true false false false 0'
    kill -0 "$(ins c1 '{{.State.Pid}}')"
    docker kill c1 >/dev/null
    until_eq 5 exited state c1
    eq "$(ins c1 '{{.State.Pid}} {{.State.ExitCode}} {{.State.Running}}')" '0 137 false'
    ne "$(ins c1 '{{.State.FinishedAt}}')" 0001-01-01T00:00:00Z
}

test_kill_signals() {
    docker run -d --name c1 $IMG sh -c 'trap "echo usr1" USR1; trap "exit 12" INT; echo up; while :; do sleep 0.1; done' >/dev/null
    until_has 10 up docker logs c1
    docker kill -s USR1 c1 >/dev/null
    until_has 5 usr1 docker logs c1
    eq "$(state c1)" running
    docker kill -s 2 c1 >/dev/null
    eq "$(docker wait c1)" 12
    fails 1 docker kill -s NOSIG c1
}

test_restart() {
    docker run -d --name c1 $IMG sh -c 'trap "exit 0" TERM; echo start; while :; do sleep 0.1; done' >/dev/null
    until_has 10 start docker logs c1
    first=$(ins c1 '{{.State.StartedAt}}')
    docker restart -t 5 c1 >/dev/null
    eq "$(state c1)" running
    ne "$(ins c1 '{{.State.StartedAt}}')" "$first"
    until_eq 5 2 sh -c 'docker logs c1 | grep -c start'
}

# A container that goes when it exits stays through a restart: the stop in between is not its end.
test_restart_keeps_an_auto_remove_container() {
    docker run -d --rm --name c1 $IMG sleep 300 >/dev/null
    for _ in 1 2 3 4 5; do docker restart -t 0 c1 >/dev/null; done
    eq "$(state c1)" running
    docker stop -t 0 c1 >/dev/null
    until_eq 5 '' docker ps -aq --filter name=c1
}

test_files_survive_a_restart() {
    docker run --name c1 $IMG sh -c 'echo x >>/file; wc -l </file' >/dev/null
    eq "$(docker start -a c1)" 2
}

test_pause_freezes() {
    docker run -d --name c1 $IMG sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done' >/dev/null
    until_has 10 3 docker logs c1
    docker pause c1 >/dev/null
    eq "$(state c1)" paused
    eq "$(ins c1 '{{.State.Paused}} {{.State.Running}}')" 'true true'
    sleep 0.2
    a=$(docker logs --tail 1 c1); sleep 0.5; b=$(docker logs --tail 1 c1)
    eq "$a" "$b"
    has "$(docker ps)" '(Paused)'
    docker unpause c1 >/dev/null
    moved() { [ "$(docker logs --tail 1 c1)" -gt "$b" ] && echo yes; }
    until_eq 5 yes moved
}

test_stop_of_a_paused_container() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    docker pause c1 >/dev/null
    docker stop -t 1 c1 >/dev/null
    eq "$(state c1)" exited
}

test_wait_many_and_conditions() {
    docker run -d --name c1 $IMG sh -c 'sleep 0.5; exit 1' >/dev/null
    docker run -d --name c2 $IMG sh -c 'exit 2' >/dev/null
    eq "$(docker wait c1 c2 | tr '\n' ' ')" '1 2 '
    docker create --name c3 $IMG sh -c 'exit 3' >/dev/null
    api POST '/containers/c3/wait?condition=not-running'
    has "$BODY" '"StatusCode":0'
    docker create --name c4 --rm $IMG sh -c 'exit 4' >/dev/null
    curl -sS --max-time 20 --unix-socket "${DOCKER_HOST#unix://}" -X POST 'http://d/containers/c4/wait?condition=removed' >waited &
    pid=$!
    sleep 0.3
    docker start c4 >/dev/null
    wait $pid
    has "$(cat waited)" '"StatusCode":4'
}

test_rename() {
    docker create --name before $IMG true >/dev/null
    docker rename before after
    eq "$(ins after '{{.Name}}')" /after
    fails 1 docker inspect before
    docker create --name other $IMG true >/dev/null
    fails 1 docker rename after other
    has "$ERR" 'already in use'
    fails 1 docker rename after 'no good'
    docker create --name before $IMG true >/dev/null
}

test_rm_and_rm_force() {
    docker create --name c1 $IMG true >/dev/null
    eq "$(docker rm c1)" c1
    docker run -d --name c2 $IMG sleep 60 >/dev/null
    pid=$(ins c2 '{{.State.Pid}}')
    docker rm -f c2 >/dev/null
    [ ! -e "/proc/$pid" ] || fail 'the process lives'
    fails 1 docker inspect c2
}

test_auto_remove() {
    id=$(docker run -d --rm $IMG true)
    gone() { docker inspect "$id" >/dev/null 2>&1 || echo gone; }
    until_eq 10 gone gone
}

test_id_prefixes() {
    id=$(docker create --name c1 $IMG true)
    eq "$(ins "${id:0:12}" '{{.Id}}')" "$id"
    eq "$(ins "${id:0:5}" '{{.Id}}')" "$id"
    eq "$(ins /c1 '{{.Id}}')" "$id"
}

test_update_limits() {
    docker run -d --name c1 --memory 64m $IMG sleep 60 >/dev/null
    docker update --memory 128m --memory-swap 256m --cpus 0.5 --pids-limit 77 --restart on-failure:3 c1 >/dev/null
    eq "$(ins c1 '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}')" '134217728 500000000 77'
    eq "$(ins c1 '{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}')" 'on-failure 3'
    eq "$(docker exec c1 sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')" 134217728
    eq "$(docker exec c1 sh -c 'cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max')" 77
}

test_top() {
    docker run -d --name c1 $IMG sh -c 'sleep 111 & sleep 222' >/dev/null
    until_has 5 'sleep 111' docker top c1
    ok docker top c1
    has "$OUT" PID
    has "$OUT" 'sleep 222'
    ok docker top c1 -o pid,comm
    has "$OUT" COMMAND
}

test_stats_once() {
    docker run -d --name c1 --memory 64m $IMG sleep 60 >/dev/null
    ok docker stats --no-stream --format '{{.Name}} {{.MemUsage}} {{.PIDs}}' c1
    matches "$OUT" '^c1 .* / 64MiB 1$'
    api GET '/containers/c1/stats?stream=false'
    for field in '"cpu_stats"' '"precpu_stats"' '"memory_stats"' '"pids_stats"' '"networks"' '"blkio_stats"' '"read"'; do has "$BODY" "$field"; done
    api GET '/containers/c1/stats?stream=false&one-shot=true'
    eq "$CODE" 200
}

test_stats_stream() {
    docker run -d --name c1 $IMG sh -c 'while :; do :; done' >/dev/null
    run timeout -s KILL 4 docker stats --format '{{.CPUPerc}}' c1
    has "$OUT" %
    matches "$OUT" '[1-9][0-9.]*%'
}

test_memory_of_stats_counts() {
    docker run -d --name c1 $IMG sh -c 'x=$(head -c 8000000 /dev/zero | tr "\0" x); echo up; sleep 60; echo $x' >/dev/null
    until_has 15 up docker logs c1
    api GET '/containers/c1/stats?stream=false&one-shot=true'
    usage=$(sed 's/.*"memory_stats":{"usage":\([0-9]*\).*/\1/' <<<"$BODY")
    [ "$usage" -ge 7000000 ] || fail "usage is $usage"
}

test_start_twice_and_stop_twice() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    ok docker start c1
    docker stop -t 0 c1 >/dev/null
    ok docker stop c1
}

test_many_in_parallel() {
    for i in $(seq 10); do docker run -d --name p$i $IMG sh -c "sleep 0.2; exit $i" >/dev/null & done
    wait
    for i in $(seq 10); do eq "$(docker wait p$i)" "$i"; done
}

test_same_container_started_at_once() {
    docker create --name c1 $IMG sleep 30 >/dev/null
    for _ in 1 2 3 4; do docker start c1 >/dev/null 2>&1 & done
    wait
    eq "$(state c1)" running
    eq "$(docker top c1 | grep -c sleep)" 1
}

test_inspect_size() {
    docker run --name c1 $IMG sh -c 'head -c 100000 /dev/zero >/big' >/dev/null
    size=$(docker inspect --size --format '{{.SizeRw}}' c1)
    between "$size" 100000 140000
    has "$(docker ps -as --format '{{.Size}}' -f name=c1)" 'virtual'
}

test_auto_remove_takes_its_volumes() {
    before=$(docker volume ls -q | wc -l)
    docker run --rm -v /anon $IMG true
    eq "$(docker volume ls -q | wc -l)" "$before"
}
