# docker exec.

up() { docker run -d --name "$1" "${@:2}" $IMG sleep 300 >/dev/null; }

test_output_and_exit_codes() {
    up ex1
    eq "$(docker exec ex1 echo hi)" hi
    fails 9 docker exec ex1 sh -c 'exit 9'
    run docker exec ex1 no-such-command
    legacy || eq "$RC" 127
    has "$OUT$ERR" 'no-such-command'
    fails 126 docker exec ex1 /etc/passwd
    fails 137 docker exec ex1 sh -c 'kill -9 $$'
}

test_stdin() {
    up ex1
    eq "$(printf 'a\nb' | docker exec -i ex1 cat)" $'a\nb'
    eq "$(head -c 5000000 /dev/zero | docker exec -i ex1 wc -c)" 5000000
    eq "$(docker exec -i ex1 sh -c 'echo nothing' </dev/null)" nothing
    eq "$(echo never | docker exec ex1 cat)" ''
}

test_streams_stay_apart() {
    up ex1
    ok docker exec ex1 sh -c 'echo o; echo e >&2'
    eq "$OUT" o
    eq "$ERR" e
}

test_environment_user_workdir() {
    up ex1 -e BASE=1
    ok docker exec -e EXTRA=2 ex1 env
    has "$OUT" BASE=1
    has "$OUT" EXTRA=2
    has "$OUT" PATH=
    printf 'F=file\n' >envs
    has "$(docker exec --env-file envs ex1 env)" F=file
    eq "$(docker exec -u 1000 ex1 id -u)" 1000
    eq "$(docker exec -u user ex1 sh -c 'id -un')" user
    eq "$(docker exec -w /tmp ex1 pwd)" /tmp
    has "$(docker exec -u user ex1 env)" HOME=/home/user
}

test_unknown_user() {
    up ex1
    run docker exec -u ghost ex1 true
    ne "$RC" 0
    has "$OUT$ERR" 'unable to find user ghost'
}

test_user_of_the_container_is_kept() {
    up ex1 -u 1000 -w /tmp
    eq "$(docker exec ex1 sh -c 'id -u; pwd' | tr '\n' ' ')" '1000 /tmp '
    eq "$(docker exec -u 0 ex1 id -u)" 0
}

test_privileged_exec() {
    up ex1
    has "$(docker exec ex1 grep CapEff /proc/self/status)" 00000000a80425fb
    legacy || hasnt "$(docker exec --privileged ex1 grep CapEff /proc/self/status)" 00000000a80425fb
}

test_detached() {
    up ex1
    ok docker exec -d ex1 sh -c 'echo done >/tmp/marker; sleep 100'
    eq "$OUT" ''
    until_eq 5 done docker exec ex1 cat /tmp/marker
    has "$(docker top ex1)" 'sleep 100'
}

test_detached_command_not_found() {
    up ex1
    run docker exec -d ex1 no-such-command
    ne "$RC" 0
}

test_same_namespaces() {
    up ex1
    for ns in mnt pid net ipc uts; do
        eq "$(docker exec ex1 readlink /proc/self/ns/$ns)" "$(docker exec ex1 readlink /proc/1/ns/$ns)"
    done
    eq "$(docker exec ex1 cat /proc/self/cgroup | sort)" "$(docker exec ex1 cat /proc/1/cgroup | sort)"
}

test_tty() {
    up ex1
    eq "$(pty -- docker exec -t ex1 sh -c 'test -t 1 && echo yes' | tr -d '\r')" yes
}

test_tty_exit_code_and_input() {
    up ex1
    fails 3 pty expect:'# ' 'send:echo $((40+2))\r' expect:42 'send:exit 3\r' -- docker exec -it ex1 sh
}

test_tty_size() {
    up ex1
    fails 0 pty size:40x100 expect:'# ' sleep:0.3 'send:stty size\r' 'expect:40 100' size:20x70 sleep:0.5 'send:stty size\r' 'expect:20 70' 'send:exit\r' -- docker exec -it ex1 sh
}

test_detach_keys_leave_it_running() {
    up ex1
    run pty 'expect:# ' 'send:sleep 123\r' sleep:0.3 'send:\x10\x11' -- docker exec -it ex1 sh
    has "$(docker top ex1)" 'sleep 123'
}

test_inspect_of_an_exec() {
    up ex1
    api POST /containers/ex1/exec '{"Cmd":["sh","-c","exit 4"],"AttachStdout":true}'
    eq "$CODE" 201
    id=$(sed 's/.*"Id":"\([0-9a-f]*\)".*/\1/' <<<"$BODY")
    api GET "/exec/$id/json"
    has "$BODY" '"Running":false'
    has "$BODY" '"ExitCode":null'
    api POST "/exec/$id/start" '{"Detach":true}'
    eq "$CODE" 200
    code() { api GET "/exec/$id/json"; [[ $BODY == *'"ExitCode":4'* ]] && echo 4; }
    until_eq 5 4 code
    has "$(ins ex1 '{{json .ExecIDs}}')" null
    api POST "/exec/$id/start" '{"Detach":true}'
    legacy || eq "$CODE" 409
    api GET /exec/0123456789/json
    eq "$CODE" 404
}

test_ends_with_the_container() {
    up ex1
    docker exec ex1 sleep 100 &
    pid=$!
    until_has 5 'sleep 100' docker top ex1
    docker kill ex1 >/dev/null
    rc=0; wait $pid || rc=$?
    eq "$rc" 137
}

test_many_at_once() {
    up ex1
    pids=()
    for i in $(seq 12); do docker exec ex1 sh -c "echo $i >/tmp/n$i; exit $i" & pids+=($!); done
    for i in $(seq 12); do rc=0; wait "${pids[i - 1]}" || rc=$?; eq "$rc" "$i"; done
    eq "$(docker exec ex1 sh -c 'cat /tmp/n* | sort -n | tail -n 1')" 12
}

test_paused_is_refused() {
    up ex1
    docker pause ex1 >/dev/null
    fails 1 docker exec ex1 true
    has "$ERR" 'is paused, unpause the container before exec'
    docker unpause ex1 >/dev/null
}
