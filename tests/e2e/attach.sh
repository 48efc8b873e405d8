# docker attach, start -a, terminals and detach keys.

test_start_attached() {
    docker create --name at $IMG sh -c 'echo out; echo err >&2; exit 6' >/dev/null
    fails 6 docker start -a at
    eq "$OUT" out
    eq "$ERR" err
}

test_start_interactive() {
    docker create -i --name at $IMG cat >/dev/null
    eq "$(printf 'x\ny' | docker start -ai at)" $'x\ny'
}

test_attach_sees_new_output_and_exit_code() {
    docker run -d --name at $IMG sh -c 'sleep 1; echo later; exit 3' >/dev/null
    fails 3 docker attach at
    eq "$OUT" later
}

test_attach_with_stdin() {
    docker run -d -i --name at $IMG sh -c 'read x; echo "got $x"; sleep 0.2' >/dev/null
    { echo hello; sleep 1; } | docker attach at >got
    eq "$(cat got)" 'got hello'
}

test_signals_are_proxied() {
    docker run --name at $IMG sh -c 'trap "echo caught; exit 4" TERM; echo up; while :; do sleep 0.1; done' >got &
    pid=$!
    until_has 10 up docker logs at
    kill -TERM $pid
    rc=0; wait $pid || rc=$?
    eq "$rc" 4
    has "$(cat got)" caught
}

test_two_attached() {
    docker run -d --name at $IMG sh -c 'sleep 1; seq 5' >/dev/null
    docker attach at >one & p1=$!
    docker attach at >two & p2=$!
    wait $p1 $p2
    cmp one two
    eq "$(wc -l <one)" 5
}

test_terminal() {
    fails 5 pty expect:'# ' 'send:test -t 0 && echo it is a tty\r' 'expect:it is a tty' 'send:exit 5\r' -- docker run --rm -it $IMG sh
}

test_terminal_size_at_start() {
    run pty size:33x111 expect:'# ' 'send:sleep 0.3; stty size\r' 'expect:33 111' 'send:exit\r' -- docker run --rm -it $IMG sh
    eq "$RC" 0 "$OUT"
}

test_terminal_term_variable() {
    has "$(pty -- docker run --rm -t $IMG env)" TERM=xterm
}

test_detach_and_attach_again() {
    run pty 'expect:# ' 'send:echo fi''rst\r' expect:first 'send:\x10\x11' -- docker run -it --name at $IMG sh
    eq "$(state at)" running
    run pty 'send:\r' 'expect:# ' 'send:echo sec''ond\r' expect:second 'send:exit 8\r' -- docker attach at
    eq "$RC" 8 "$OUT"
    eq "$(state at)" exited
}

test_own_detach_keys() {
    run pty 'expect:# ' 'send:\x01x' -- docker run -it --detach-keys ctrl-a,x --name at $IMG sh
    eq "$(state at)" running
}

test_ctrl_c_interrupts() {
    fails 130 pty expect:ready 'send:\x03' -- docker run --rm -it $IMG sh -c 'trap "exit 130" INT; echo ready; while :; do sleep 0.1; done'
}

test_tty_needs_a_terminal() {
    fails 1 docker run --rm -it $IMG true
    has "$ERR" 'not a TTY'
}

test_attach_to_stopped() {
    docker create --name at $IMG true >/dev/null
    fails 1 docker attach at
    has "$ERR" 'cannot attach to a stopped container'
}

test_stdin_once_closes() {
    docker run -d -i --name at $IMG cat >/dev/null
    echo x | timeout -s KILL 3 docker attach at >/dev/null || true
    eq "$(state at)" running 'an open stdin stays open for the next client'
}
