# kraud dies at random moments of an operation on volumes, by itself or with the machine, and starts again: the volume
# is at its old or its new state, and a second call finishes.

# One death at some moment within $1 ms: two of three times the daemon's own, else the machine's.
die_within() {
    moment "$1"
    if [ $((RANDOM % 3)) != 0 ]; then crash; return; fi
    daemon_kill "$D"
    power_cut
    daemon_start "$D"
}

test_create() {
    local round pid class
    for round in $(seq "$VOLUMES_ROUNDS"); do
        class=nfs; [ $((round % 2)) = 0 ] || class=lv2
        create "new$round" -c $class --size 64M 2>/dev/null & pid=$!
        die_within 250
        settle $pid
        ok docker volume create -d $class -o size=64M -o snapshots=none "new$round"
        in_volume "new$round" 'echo works >/v/word; sync -f /v'
        eq "$(word "new$round")" works
        tidy
        ok kra volume rm "new$round"
    done
    tidy
}

test_snapshot() {
    local round pid volume
    create files --size 64M; create block -c lv2 --size 64M
    # Taken while somebody writes.
    docker run -d --name busy -v block:/v $IMG sh -c 'trap exit TERM; while :; do date >/v/date; sync -f /v; done' >/dev/null
    for round in $(seq "$VOLUMES_ROUNDS"); do
        in_volume files "echo $round >/v/word; sync -f /v"
        { kra volume snapshot create files block --name "s$round"; } >/dev/null 2>&1 & pid=$!
        die_within 200
        settle $pid
        if [ "$(state busy)" != running ]; then docker start busy >/dev/null; fi
        # Both or none: they are of one moment.
        eq "$(snapshots files | tr ' ' '\n' | grep -cx "s$round" || true)" "$(snapshots block | tr ' ' '\n' | grep -cx "s$round" || true)"
        run kra volume snapshot create files block --name "s$round"
        [ "$RC" = 0 ] || [ "$RC" = 4 ] || fail "exit $RC: $ERR"
        eq "$(word "files@s$round")" "$round"
        ok kra volume ls-files "block@s$round"
        [ "$round" != 3 ] || ok kra volume snapshot rm files s1 s2
        tidy
    done
    docker rm -f busy >/dev/null
}

test_snapshot_removal() {
    local round pid
    create files --size 256M; plant files kept; snap files kept
    for round in $(seq "$VOLUMES_ROUNDS"); do
        in_volume files "head -c 3000000 /dev/urandom >/v/$round; sync -f /v"; snap files "s$round"
        kra volume snapshot rm files "s$round" >/dev/null 2>&1 & pid=$!
        die_within 150
        settle $pid
        run kra volume snapshot rm files "s$round"
        [ "$RC" = 0 ] || [ "$RC" = 3 ] || fail "exit $RC: $ERR"
        eq "$(snapshots files)" kept
        tidy
    done
    eq "$(word files@kept)" kept
}

# rollback_rounds CLASS: back to one of two snapshots, with a container that is stopped and started again.
rollback_rounds() {
    local round pid to before
    create data -c "$1" --size 128M
    plant data one; snap data one
    plant data two; snap data two
    docker run -d --name user --stop-signal KILL -v data:/v $IMG sleep 1000 >/dev/null
    docker run -d --name user2 $IMG sleep 1000 >/dev/null
    one=$(tree data@one) two=$(tree data@two)
    ne "$one" "$two"
    for round in $(seq "$VOLUMES_ROUNDS"); do
        to=one; [ $((round % 2)) = 0 ] || to=two
        docker exec user sh -c "echo $round >/v/word; sync -f /v"
        kra volume rollback data $to --restart >/dev/null 2>&1 & pid=$!
        moment 800; crash
        settle $pid
        until_eq 20 running state user
        before=$(docker exec user cat /v/word)
        [ "$before" = "$round" ] || [ "$before" = $to ] || fail "after a crash in round $round the volume holds '$before'"
        if [ "$before" = $to ]; then
            # What it was is kept.
            has " $(for s in $(snapshots data); do [[ $s != before-rollback* ]] || word "data@$s"; done | tr '\n' ' ')" " $round "
        fi
        ok kra volume rollback data $to --restart
        eq "$(state user)" running
        eq "$(docker exec user cat /v/word)" $to
        eq "$(state user2)" running
        tidy
    done
    docker rm -f user user2 >/dev/null
    eq "$(tree data@one)" "$one"; eq "$(tree data@two)" "$two"
    kra volume rollback data one >/dev/null; eq "$(tree data)" "$one"
    kra volume rollback data two >/dev/null; eq "$(tree data)" "$two"
}
test_rollback_with_restart_files() { rollback_rounds nfs; }
test_rollback_with_restart_block() { rollback_rounds lv2; }

test_rollback_and_the_machine() {
    local round pid before
    create data --size 64M; create block -c lv2 --size 64M
    plant data one; plant block one; snap data block --name one
    for round in $(seq "$VOLUMES_ROUNDS"); do
        in_volume data "echo $round >/v/word; sync -f /v"; in_volume block "echo $round >/v/word; sync -f /v"
        { kra volume rollback data one; kra volume rollback block one; } >/dev/null 2>&1 & pid=$!
        moment 400
        daemon_kill "$D"; power_cut; daemon_start "$D"
        settle $pid
        for volume in data block; do
            before=$(word $volume)
            [ "$before" = "$round" ] || [ "$before" = one ] || fail "after a power cut in round $round $volume holds '$before'"
            ok kra volume rollback $volume one
            eq "$(word $volume)" one
        done
        tidy
    done
    eq "$(tree data)" "$(tree data@one)"; eq "$(tree block)" "$(tree block@one)"
}

test_clone() {
    local round pid from sum class
    create files --size 64M; create block -c lv2 --size 64M
    for from in files block; do plant $from one; snap $from one; plant $from two; done
    for round in $(seq "$VOLUMES_ROUNDS"); do
        from=files; [ $((round % 2)) = 0 ] || from=block
        [ $((round % 4)) -lt 2 ] || from+=@one
        sum=$(tree $from)
        kra volume clone $from "new$round" >/dev/null 2>&1 & pid=$!
        die_within 250
        settle $pid
        exists "new$round" || ok kra volume clone $from "new$round"
        eq "$(tree "new$round")" "$sum"
        in_volume "new$round" 'echo mine >/v/word; sync -f /v'
        eq "$(tree $from)" "$sum"
        tidy
        ok kra volume rm "new$round"
    done
}

test_resize() {
    local round pid want
    create files --size 64M; create block -c lv2 --size 64M; create xfs -c lv2 --fs xfs --size 320M
    for volume in files block xfs; do plant $volume one; done
    # One is mounted all the time: xfs, as ext4 grows under a mount only where the kernel lets kraud do it.
    docker run -d --name user --stop-signal KILL -v xfs:/v $IMG sleep 1000 >/dev/null
    for round in $(seq "$VOLUMES_ROUNDS"); do
        { kra volume resize block +16M; kra volume resize files +16M; kra volume resize xfs +16M; } >/dev/null 2>&1 & pid=$!
        die_within 900
        settle $pid
        [ "$(state user)" = running ] || docker start user >/dev/null
        for volume in files block xfs; do
            want=$((64 + round * 16)); [ $volume != xfs ] || want=$((want + 256))
            between "$(json volume inspect $volume 'j[0]["size"] >> 20')" $((want - 16)) $want
            ok kra volume resize $volume ${want}M
            eq "$(json volume inspect $volume 'j[0]["size"] >> 20')" $want
            eq "$(word $volume)" one
        done
        # What is inside has grown as well: a file system keeps some of it for itself.
        between "$(docker exec user df -m /v | awk 'END { print $2 }')" $(((320 + round * 16) * 7 / 10)) $((320 + round * 16))
        tidy
    done
    between "$(in_volume block 'df -m /v' | awk 'END { print $2 }')" $(((64 + round * 16) * 8 / 10)) $((64 + round * 16))
    docker rm -f user >/dev/null
}

test_remove() {
    local round pid class sum
    for round in $(seq "$VOLUMES_ROUNDS"); do
        class=nfs; [ $((round % 2)) = 0 ] || class=lv2
        create "old$round" -c $class --size 64M; plant "old$round" one; snap "old$round" one; snap "old$round" two
        kra volume clone "old$round@one" "copy$round" >/dev/null
        sum=$(tree "copy$round")
        kra volume rm "old$round" >/dev/null 2>&1 & pid=$!
        die_within 250
        settle $pid
        if exists "old$round"; then
            eq "$(tree "old$round")" "$sum"
            eq "$(snapshots "old$round")" 'one two'
            ok kra volume rm "old$round"
        fi
        fails 3 kra volume inspect "old$round"
        eq "$(tree "copy$round")" "$sum" 'a copy of what was removed'
        # The name is free.
        create "old$round" --size 64M
        eq "$(kra volume ls-files "old$round" -q)" ''
        tidy
        ok kra volume rm "old$round" "copy$round"
    done
    tidy
}

# Everything at once, and nothing but invariants.
test_all_at_once() {
    local round pids i
    create one --size 128M; create two -c lv2 --size 128M
    plant one base; plant two base; snap one two --name base
    base=$(tree one); eq "$(tree two)" "$base"
    for round in $(seq "$VOLUMES_ROUNDS"); do
        pids=()
        {
            kra volume snapshot create one two --name "r$round"; kra volume rollback one base; kra volume clone one@base "c$round"
            kra volume snapshot rm one "r$round"; kra volume rm "c$round"
        } >/dev/null 2>&1 & pids+=($!)
        { kra volume rollback two base; kra volume create "n$round" --size 64M --snapshots none; kra volume rm "n$round"; kra volume resize two +4M; } >/dev/null 2>&1 & pids+=($!)
        { docker run --rm -v one:/v $IMG sh -c 'echo x >>/v/d/f1'; docker run --rm -v two:/v $IMG sh -c 'echo x >>/v/d/f1'; } >/dev/null 2>&1 & pids+=($!)
        die_within 1200
        kill "${pids[@]}" 2>/dev/null || true
        settle "${pids[@]}"
        for i in $(docker ps -aq); do docker rm -f "$i" >/dev/null 2>&1 || true; done
        tidy
        ok kra volume rm -f "c$round" "n$round"
        for i in one two; do
            ok kra volume rollback $i base
            eq "$(tree $i)" "$base"
        done
        tidy
    done
}

# kraud dies while a file system is at rest for a snapshot, and so does the container's shim: what writes there cannot
# be killed before the file system goes on.
test_frozen() {
    local id mount
    create block -c lv2 --size 64M
    docker run -d --name busy -v block:/v $IMG sh -c 'while :; do date >>/v/date; done' >/dev/null
    id=$(instance_of "$D/data") mount=$(mountpoint_of block)
    fsfreeze -f "$mount"
    daemon_kill "$D"
    kill -KILL $(shims "$id") $(find /sys/fs/cgroup -path "*kraud-$id/*" -name cgroup.procs -exec cat {} + | sort -u)
    daemon_start "$D"
    until_eq 10 exited state busy
    in_volume block 'echo on >/v/word; sync -f /v'
    eq "$(word block)" on
    docker rm busy >/dev/null
    tidy
}
