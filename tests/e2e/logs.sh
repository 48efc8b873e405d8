# docker logs.

test_both_streams_and_order() {
    docker run --name lg $IMG sh -c 'echo one; echo two >&2; sleep 0.1; echo three' >/dev/null 2>&1
    ok docker logs lg
    eq "$OUT" $'one\nthree'
    eq "$ERR" two
}

test_tail() {
    docker run --name lg $IMG seq 100 >/dev/null
    eq "$(docker logs --tail 3 lg | tr '\n' ' ')" '98 99 100 '
    eq "$(docker logs --tail 0 lg)" ''
    eq "$(docker logs --tail 1000 lg | wc -l)" 100
    eq "$(docker logs lg | wc -l)" 100
    eq "$(docker logs --tail all lg | wc -l)" 100
}

test_timestamps() {
    docker run --name lg $IMG echo line >/dev/null
    matches "$(docker logs -t lg)" '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{9}Z line$'
}

test_since_and_until() {
    docker run -d --name lg $IMG sh -c 'echo early; sleep 2; echo late; sleep 30' >/dev/null
    until_has 10 late docker logs lg
    stamp=$(docker logs -t lg | sed -n 's/ early$//p')
    middle=$(date -u -d "$stamp + 1 second" +%Y-%m-%dT%H:%M:%S.%NZ)
    eq "$(docker logs --since "$middle" lg)" late
    eq "$(docker logs --until "$middle" lg)" early
    eq "$(docker logs --since 1h lg | wc -l)" 2
    eq "$(docker logs --until 1h lg)" ''
}

test_follow_ends_with_the_container() {
    docker run -d --name lg $IMG sh -c 'for i in 1 2 3; do echo $i; sleep 0.2; done' >/dev/null
    eq "$(timeout 20 docker logs -f lg | tr '\n' ' ')" '1 2 3 '
}

test_follow_with_tail() {
    docker run -d --name lg $IMG sh -c 'seq 50; sleep 1; echo end' >/dev/null
    until_has 10 50 docker logs lg
    eq "$(timeout 20 docker logs -f --tail 1 lg | tr '\n' ' ')" '50 end '
}

test_follow_goes_on_after_a_restart() {
    docker run --name lg $IMG sh -c 'date +%N' >/dev/null
    docker start -a lg >/dev/null
    eq "$(docker logs lg | wc -l)" 2 'both runs are in the log'
}

test_no_final_newline_and_long_lines() {
    docker run --name lg $IMG sh -c 'head -c 100000 /dev/zero | tr "\0" x; printf tail' >/dev/null
    eq "$(docker logs lg | wc -c)" 100004
}

test_binary_bytes_survive_attach() {
    docker run --rm $IMG sh -c 'for i in 0 1 2 3 4 5 6 7; do head -c 65536 /bin/busybox; done' >got
    for _ in 0 1 2 3 4 5 6 7; do head -c 65536 "$(busybox_static)"; done >want
    cmp got want
}

test_rotation() {
    docker run -d --name lg --log-opt max-size=20k --log-opt max-file=2 $IMG sh -c 'seq 20000; echo end; sleep 30' >/dev/null
    until_has 20 end docker logs --tail 1 lg
    lines=$(docker logs lg | wc -l)
    between "$lines" 10 2000
    eq "$(docker logs --tail 1 lg)" end
    docker logs lg | grep -v end | awk 'NR > 1 && $1 != last + 1 { bad = 1 } { last = $1 } END { exit bad }' || fail 'a gap in a rotated log'
}

test_driver_none() {
    docker run --name lg --log-driver none $IMG echo seen >out
    eq "$(cat out)" seen
    fails 1 docker logs lg
    has "$ERR" 'configured logging driver does not support reading'
    eq "$(ins lg '{{.HostConfig.LogConfig.Type}}')" none
}

test_unknown_log_option() {
    fails 125 docker run --rm --log-opt no-such=1 $IMG true
    has "$ERR" "unknown log opt 'no-such' for json-file log driver"
}

test_unknown_driver() {
    fails 125 docker run --rm --log-driver nonesuch $IMG true
    has "$ERR" 'nonesuch'
}

test_details() {
    docker run --name lg -l team=blue --log-opt labels=team $IMG echo x >/dev/null
    eq "$(docker logs --details lg)" 'team=blue x'
}

test_a_million_bytes_in_order() {
    docker run --name lg $IMG seq 150000 >/dev/null
    docker logs lg >got
    seq 150000 | cmp - got
}

test_tty_log_is_one_stream() {
    docker run -t --name lg $IMG sh -c 'echo a; echo b >&2' >/dev/null
    eq "$(docker logs lg 2>/dev/null)" $'a\r\nb\r'
}
