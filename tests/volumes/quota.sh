# Sizes are kept: in the live volume, after a rollback and in a copy; nobody else on the pool is hurt; automatic
# snapshots go before a writer feels them.

# overfill VOLUME MEGABYTES MOST [LEAST]: a writer is stopped by an error of the file system when the volume is full.
overfill() {
    local written
    run docker run --rm -v "$1:/v" $IMG sh -c "rm -f /v/big; dd if=/dev/urandom of=/v/big bs=1M count=$2 && sync -f /v && echo all"
    hasnt "$OUT" all
    matches "$ERR" 'No space left|quota exceeded'
    written=$(in_volume "$1" 'sync -f /v; wc -c </v/big')
    between $((written >> 20)) $((${4:-$3} * 7 / 10)) $(($3 + 1))
}

size_is_kept() {
    create neighbour --size 64M; plant neighbour one
    create data -c "$@" --size 64M
    in_volume data 'head -c 20m /dev/urandom >/v/base; sync -f /v'
    snap data base
    overfill data 90 43
    # A full volume can be read, emptied and rolled back, and its limit holds then as well.
    in_volume data 'rm /v/big; sha256sum /v/base >/dev/null'
    overfill data 90 43
    ok kra volume rollback data base
    eq "$(in_volume data 'ls /v | grep -v lost')" base
    kra volume snapshot rm data $(snapshots data | tr ' ' '\n' | grep before) >/dev/null
    overfill data 90 43
    kra volume clone data@base copy >/dev/null
    # What a copy shares with its origin it may write over, when it is full as well: 16 MB of that are let pass.
    overfill copy 90 59 43
    in_volume neighbour 'head -c 20m /dev/urandom >/v/more; sync -f /v'
    eq "$(word neighbour)" one
    # Growing helps at once.
    ok kra volume resize copy 128M
    in_volume copy 'rm -f /v/big; head -c 90m /dev/urandom >/v/big; sync -f /v'
    ok kra volume rm data copy neighbour
}
test_size_is_kept_files() { size_is_kept nfs; size_is_kept gfs; }
test_size_is_kept_block() { size_is_kept lv2; }
test_size_is_kept_zfs() {
    ok kraud pool create zed --engine zfs --size 2G --file "$D/zed.img"
    create data --pool zed --size 64M
    in_volume data 'head -c 20m /dev/urandom >/v/base; sync -f /v'; snap data base
    overfill data 90 43
    in_volume data 'rm /v/big'
    ok kra volume rollback data base
    overfill data 90 43
    kra volume clone data@base copy >/dev/null
    overfill copy 90 43
    ok kra volume rm data copy; ok kraud pool rm zed
}

# What undoes the rollback of a full volume stays while nobody writes, and goes when somebody does.
test_full_undo() {
    create data --size 64M
    in_volume data 'head -c 4m /dev/urandom >/v/base; sync -f /v'
    snap data base
    in_volume data 'head -c 56m /dev/urandom >/v/big; sync -f /v'
    local full before; full=$(tree data)
    kra volume rollback data base >/dev/null
    before=$(snapshots data | tr ' ' '\n' | grep before)
    in_volume data 'ls /v; sleep 3'
    has "$(snapshots data)" "$before"
    ok kra volume rollback data "$before"
    eq "$(tree data)" "$full"
    kra volume rollback data base >/dev/null
    in_volume data 'for i in 1 2 3 4 5 6 7 8 9 10; do head -c 5m /dev/urandom >>/v/more; sync -f /v; sleep 0.3; done'
    eq "$(in_volume data 'wc -c </v/more')" 52428800
    hasnt "$(snapshots data)" before
    overfill data 90 12
    ok kra volume rm data
}

used() { json volume usage "$1" "j[0]['usage']['$2']"; }
about() { between "$1" $(($2 * 99 / 100 - 65536)) $(($2 * 101 / 100 + 65536)); }
test_use_within_a_percent() {
    create data --size 256M
    in_volume data 'head -c 40000000 /dev/urandom >/v/a; head -c 20000000 /dev/urandom >/v/b; sync -f /v'
    about "$(used data live)" 60000000
    snap data one
    in_volume data 'rm /v/a; head -c 10000000 /dev/urandom >/v/c; sync -f /v'
    until_about() { local got; got=$(used data "$1"); [ "$got" -ge $(($2 * 99 / 100 - 65536)) ] && [ "$got" -le $(($2 * 101 / 100 + 65536)) ]; }
    wait_until 10 until_about live 30000000 || about "$(used data live)" 30000000
    wait_until 10 until_about snapshots 40000000 || about "$(used data snapshots)" 40000000
    kra volume snapshot rm data one >/dev/null
    wait_until 20 until_about snapshots 0 || about "$(used data snapshots)" 0
    create block -c lv2 --size 128M
    in_volume block 'head -c 30000000 /dev/urandom >/v/a; sync -f /v'
    between "$(used block live)" 30000000 36000000
    # What is deleted goes back to the pool.
    in_volume block 'rm /v/a; sync -f /v'
    until_less() { [ "$(used block live)" -lt 10000000 ]; }
    wait_until 20 until_less || fail "deleted files still take $(used block live) bytes of the pool"
}

# later HOURS: it is so much later, for kraud.
later() {
    echo $(($1 * 3600)) >"$T/clock"
    daemon_term "$D"
    KRAUD_TEST_CLOCK=$T/clock LD_PRELOAD=$KRAUD_TEST_CACHE/clock.so daemon_start "$D"
}
automatic() { json volume snapshot ls "$1" "sum(s['origin'] == 'automatic' for s in j)"; }

last_word() { word "$1@$(snapshots "$1" | tr ' ' '\n' | tail -n 1)"; }

test_schedule() {
    local hour
    kra volume create data --size 64M --snapshots hourly:3 >/dev/null
    kra volume create block -c lv2 --size 64M --snapshots hourly:2,daily:1 >/dev/null
    later 0; eq "$(automatic data)" 0
    for hour in 1 2 3 4 5; do
        in_volume data "echo $hour >/v/word; sync -f /v"
        later $hour
        until_eq 25 $((hour < 3 ? hour : 3)) automatic data
        until_eq 25 "$hour" last_word data
    done
    # A day without kraud is made up for once.
    later 29
    until_eq 25 3 automatic block
    eq "$(automatic data)" 3
    eq "$(word "data@$(snapshots data | tr ' ' '\n' | head -n 1)")" 4
    # The clock goes back: nothing is lost, nothing is taken twice.
    sleep 1; later 2; sleep 1
    eq "$(automatic data) $(automatic block)" '3 3'
}

test_automatic_snapshots_give_way() {
    local hour
    kra volume create data --size 128M --snapshots hourly:24 >/dev/null
    in_volume data 'head -c 40m /dev/urandom >/v/a; sync -f /v'
    snap data mine
    for hour in 1 2 3; do
        later $hour
        until_eq 25 $hour automatic data
    done
    docker run -d --name writer -v data:/v $IMG sleep 1000 >/dev/null
    # 40 MB are the user's own snapshot's. Up to the size there is room for 88 MB, whatever the schedule pins.
    for round in 1 2 3 4 5; do
        ok docker exec writer sh -c 'head -c 30m /dev/urandom >/v/b.new && sync -f /v && mv /v/b.new /v/b'
        sleep 1
        later $((3 + round)); sleep 1
    done
    has " $(snapshots data) " ' mine '
    between "$(automatic data)" 0 4
    ok docker exec writer sha256sum /v/a /v/b
    has "$(<"$D/kraud.log")" 'goes volume=data'
    # Only the user's snapshots are left to make room: the writer fails, and they are named.
    fails 1 docker exec writer sh -c 'dd if=/dev/urandom of=/v/c bs=1M count=220 && sync -f /v'
    matches "$ERR" 'No space left|quota exceeded'
    has " $(snapshots data) " ' mine '
    until_eq 10 0 automatic data
    docker rm -f writer >/dev/null
}

test_full_pool() {
    local name
    ok kraud pool create small --size 512M
    create data --pool small; create other --pool small; create block -c lv2 --pool small --size 64M
    for name in data other block; do plant $name one; snap $name one; plant $name two; done
    kra volume clone data@one copy >/dev/null
    run docker run --rm -v data:/v $IMG sh -c 'dd if=/dev/urandom of=/v/big bs=1M count=600 && sync -f /v'
    ne "$RC" 0; matches "$ERR" 'No space left|quota exceeded'
    # Reading, rolling back and removing go on.
    eq "$(word data) $(word other) $(word block) $(word data@one)" 'two two two one'
    ok kra volume rollback other one; eq "$(word other)" one
    ok kra volume rm copy
    ok kra volume snapshot rm data one
    ok kra volume diff other one
    crash
    eq "$(word other) $(word data)" 'one two'
    ok kra volume rm data
    in_volume other 'head -c 50m /dev/urandom >/v/a; sync -f /v'
    in_volume block 'head -c 20m /dev/urandom >/v/a; sync -f /v'
    ok kra volume rm other block; ok kraud pool rm small
}
