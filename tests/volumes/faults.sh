# Every fault point (crates/fault), walked through by the real daemon: it dies there, by itself or with the machine, or
# fails there; then the volume is at its old or its new state, and a second call finishes.

points_of() { sed -n "/^pub const $1/,/^];/s/^ *\"\(.*\)\",\$/\\1/p" "$REPO/crates/fault/src/lib.rs"; }
# Those inside of the pools' engines, and the steps above them.
POINTS=$(points_of POINTS) STEPS=$(points_of STEPS)
[ "$(echo "$POINTS" | wc -l)" -gt 40 ] && [ "$(echo "$STEPS" | wc -l)" -gt 30 ] || fail "the lists of fault points are not where they were"
POOL=default

# scene: what each point's operation begins with; made again when the last one changed it.
scene() {
    local volume
    [ -z "${SCENE:-}" ] || return 0
    for volume in data db copied far; do
        if exists $volume; then docker rm -f user >/dev/null 2>&1 || true; ok kra volume rm $volume; fi
    done
    create data --pool $POOL --size 64M
    create db -c lv2 --pool $POOL --size 64M
    plant data one; plant db one
    snap data db --name one
    plant data two; plant db two
    if [ -n "${FAR:-}" ]; then create far --pool far --size 64M; plant far two; fi
    docker run -d --name user --stop-signal KILL -v data:/v $IMG sleep 1000 >/dev/null
    SCENE=ready
}

# attempt OPERATION: the call under test; and after OPERATION: what holds when it has been done.
attempt() {
    case $1 in
        create_files) kra volume create copied --pool $POOL --size 64M --snapshots none ;;
        create_block) kra volume create copied -c lv2 --pool $POOL --size 64M --snapshots none ;;
        clone_files) kra volume clone data@one copied ;;
        clone_block) kra volume clone db@one copied ;;
        clone_live) kra volume clone db copied ;;
        remove) kra volume rm db ;;
        snapshot) kra volume snapshot create data two ;;
        snapshots) kra volume snapshot create data db --name two ;;
        snapshots_far) kra volume snapshot create data far --name two ;;
        remove_snapshot) kra volume snapshot rm data one ;;
        remove_block_snapshot) kra volume snapshot rm db one ;;
        rename) kra volume snapshot rename data one two ;;
        rollback_files) kra volume rollback data one --restart ;;
        rollback_block) kra volume rollback db one ;;
        resize_files) kra volume resize data 96M ;;
        resize_block) kra volume resize db 96M ;;
        look) kra volume ls-files db@one ;;
    esac
}
done_already() {
    case $1 in
        create_* | clone_*) exists copied ;;
        remove) ! exists db ;;
        snapshot | snapshots | snapshots_far | rename) [[ " $(snapshots data) " == *' two '* ]] ;;
        remove_snapshot) [[ " $(snapshots data) " != *' one '* ]] ;;
        remove_block_snapshot) [[ " $(snapshots db) " != *' one '* ]] ;;
        rollback_files) [ "$(word data)" = one ] ;;
        rollback_block) [ "$(word db)" = one ] ;;
        resize_files) [ "$(json volume inspect data 'j[0]["size"] >> 20')" = 96 ] ;;
        resize_block) [ "$(json volume inspect db 'j[0]["size"] >> 20')" = 96 ] ;;
        look) false ;;
    esac
}
# Nothing but what the operation is for may have changed.
rest_is_whole() {
    local data=two db=two
    [[ $1 != rollback_files ]] || data=$2
    [[ $1 != rollback_block ]] || db=$2
    eq "$(word data)" $data; [[ $1 = remove ]] || eq "$(word db)" $db
    [[ $1 = remove_snapshot || $1 = rename ]] || eq "$(word data@one)" one
    [[ $1 = remove || $1 = remove_block_snapshot ]] || eq "$(word db@one)" one
    [[ $1 != rename ]] || eq "$(word data@$2)" one
    until_eq 20 running state user
    eq "$(docker exec user cat /v/word)" $data
}
after() {
    case $1 in
        create_*) in_volume copied 'echo x >/v/x; sync -f /v'; ok kra volume rm copied ;;
        clone_live) eq "$(word copied)" two; ok kra volume rm copied ;;
        clone_*) eq "$(word copied)" one; in_volume copied 'echo x >/v/x; sync -f /v'; ok kra volume rm copied ;;
        snapshot) eq "$(word data@two)" two; ok kra volume snapshot rm data two ;;
        snapshots) eq "$(word data@two) $(word db@two)" 'two two'; ok kra volume snapshot rm data two; ok kra volume snapshot rm db two ;;
        snapshots_far) eq "$(word data@two) $(word far@two)" 'two two'; ok kra volume snapshot rm data two; ok kra volume snapshot rm far two ;;
        rename) ok kra volume snapshot rename data two one ;;
        resize_block) between "$(in_volume db 'df -m /v' | awk 'END { print $2 }')" 75 96; SCENE= ;;
        remove | remove_*snapshot | rollback_* | resize_*) SCENE= ;;
    esac
}
operations_of() {
    case $1 in
        btrfs.create.*) echo create_files create_block clone_block ;;
        zfs.create.*) echo create_files create_block clone_live ;;
        zfs.clone.*) echo clone_files clone_block clone_live ;;
        *.remove.*) echo remove ;;
        *.snapshot.*) echo snapshot snapshots ;;
        *.remove_snapshot.*) echo remove_snapshot ;;
        *.rollback.*) echo rollback_files rollback_block ;;
        *.resize.*) echo resize_block ;;
        *.limit.*) echo resize_files create_files ;;
        zfs.view.*) echo look ;;
        zfs.tidy.*) echo remove remove_snapshot rollback_files rollback_block clone_block clone_live ;;
        *) echo ;;
    esac
}

# start_at POINT: a kraud that dies there; false when it does so before it is ready.
start_at() {
    # In a shell of its own, which waits for an answer that may never come.
    (KRAUD_FAULT=$1 daemon_start "$D") >/dev/null 2>&1 &
    local waiting=$!
    sleep 0.1
    while ! daemon_ping "$D/run/kraud.sock" >/dev/null 2>&1; do
        if pid_gone "$(daemon_pid "$D")"; then kill $waiting 2>/dev/null || true; wait $waiting 2>/dev/null || true; return 1; fi
        sleep 0.05
    done
    wait $waiting
}

# die_at POINT OPERATION HOW: false when the operation does not come to the point.
die_at() {
    local state
    scene
    daemon_term "$D"
    # Some points lie on the way of a start, too.
    if start_at "$1"; then attempt "$2" >"$T/said" 2>&1 || true; fi
    if ! wait_until "${4:-1}" pid_gone "$(daemon_pid "$D")"; then
        daemon_term "$D"; daemon_start "$D"; SCENE=
        return 1
    fi
    if [ "$3" = machine ]; then
        power_cut
        daemon_start "$D"
        docker start user >/dev/null || true
    else
        daemon_start "$D"
    fi
    state=two
    if done_already "$2"; then state=one; fi
    rest_is_whole "$2" $state
    [ $POOL != default ] || tidy
    if [ $state = two ]; then
        ok attempt "$2"
        [ "$2" = look ] || done_already "$2" || fail "$1: $2 was called again and is not done"
    fi
    rest_is_whole "$2" one
    after "$2"
    [ $POOL != default ] || tidy
}

# walk ENGINE HOW PART OF: every OFth point of an engine that an operation on volumes comes to.
walk() {
    local point operation reached at=0
    for point in $POINTS; do
        [[ $point == $1.* ]] && [[ $point != $1.pool.* ]] && [[ $point != $1.grow.* ]] || continue
        # The rest of what ZFS tidies up takes histories that the pool's own tests make (crates/pool/tests).
        case $point in zfs.tidy.promoted | zfs.tidy.destroyed) ;; zfs.tidy.*) continue ;; esac
        at=$((at + 1))
        [ $((at % $4)) = "$3" ] || continue
        reached=
        for operation in $(operations_of "$point"); do
            # When the machine dies, and on zfs-fuse, one operation has to do: all of it takes longer there.
            if [ "$2" = machine ] || [ "$1" = zfs ]; then [ -z "$reached" ] || break; fi
            if die_at "$point" "$operation" "$2"; then reached+=" $operation"; fi
        done
        echo "    $point:$reached"
        [ -n "$reached" ] || fail "no operation comes to the fault point $point"
    done
    docker rm -f user >/dev/null 2>&1 || true
}
# steps_to STEP: the operations that come to a step above the pools.
steps_to() {
    case $1 in
        volume.create.frozen | engine.create.*) echo create_files clone_live clone_files ;;
        volume.create.made) echo create_files create_block ;;
        volume.create.sized) echo create_block ;;
        volume.attach.*) echo look ;;
        volume.snapshot.half) echo snapshots_far ;;
        *.snapshot.*) echo snapshot snapshots ;;
        volume.remove_snapshot.*) echo remove_snapshot remove_block_snapshot ;;
        *.remove_snapshot.*) echo remove_snapshot ;;
        *.rename.*) echo rename ;;
        volume.rollback.sized) echo rollback_block ;;
        *.rollback.*) echo rollback_files rollback_block ;;
        engine.resize.recorded) echo resize_files resize_block ;;
        engine.resize.done) echo resize_files ;;
        volume.resize.*) echo resize_block ;;
        *.remove.*) echo remove ;;
        *) fail "no operation is known for the step $1" ;;
    esac
}

# strike STEP OPERATION HOW: kraud dies or fails at the step, once.
strike() {
    local state=two succeeded=
    scene
    echo "$1${3:+ $3}" >"$D/fault"
    if attempt "$2" >"$T/said" 2>&1; then succeeded=yes; fi
    # What comes after the answer has a moment.
    wait_until 3 test ! -e "$D/fault" || fail "$2 does not come to the step $1: $(cat "$T/said")"
    if [ -z "$3" ]; then
        wait_until 5 pid_gone "$(daemon_pid "$D")" || fail "kraud does not die at $1"
        daemon_start "$D"
    elif [ -z "$succeeded" ]; then
        has "$(cat "$T/said")" 'No space left on device'
    else
        done_already "$2" || fail "$1: $2 succeeded and is not done"
        # What was removed and could not be forgotten is so by the next start; see also test_goes_on_by_itself.
        case $1 in *.remove.* | *.remove_snapshot.*) crash ;; esac
    fi
    if done_already "$2"; then state=one; fi
    if [ "$2" = rename ]; then [ $state = one ] && state=two || state=one; fi
    rest_is_whole "$2" $state
    tidy
    if ! done_already "$2"; then
        ok attempt "$2"
        [ "$2" = look ] || done_already "$2" || fail "$1: $2 was called again and is not done"
    fi
    [ "$2" = rename ] && rest_is_whole rename two || rest_is_whole "$2" one
    after "$2"
    tidy
}

# walk_steps HOW PART OF: every OFth step.
walk_steps() {
    local step operation at=0
    export KRAUD_FAULT=@$D/fault FAR=yes
    daemon_term "$D"; daemon_start "$D"
    ok kraud pool create far --size 512M
    for step in $STEPS; do
        at=$((at + 1))
        [ $((at % $3)) = "$2" ] || continue
        for operation in $(steps_to "$step"); do
            # One operation has to do where nobody dies: how it fails is the same.
            strike "$step" "$operation" "$1"
            [ -z "$1" ] || break
        done
        echo "    $step"
    done
    docker rm -f user >/dev/null 2>&1 || true
    ok kra volume rm far; ok kraud pool rm far
}
test_steps_kraud_dies_1() { walk_steps '' 0 3; }
test_steps_kraud_dies_2() { walk_steps '' 1 3; }
test_steps_kraud_dies_3() { walk_steps '' 2 3; }
test_steps_fail_1() { walk_steps error 0 2; }
test_steps_fail_2() { walk_steps error 1 2; }

# A removal that an error cut off ends without a start or another call.
test_goes_on_by_itself() {
    export KRAUD_FAULT=@$D/fault
    daemon_term "$D"; daemon_start "$D"
    create data --size 64M; plant data one; snap data one
    create other --size 64M; plant other one
    echo engine.remove_snapshot.gone error >"$D/fault"
    ok kra volume snapshot rm data one
    eq "$(snapshots data)" ''
    echo engine.remove.recorded error >"$D/fault"
    ok kra volume rm other
    exists other && fail "other is still there"
    [ "$(on_disk | wc -l)" -gt 1 ] || fail "nothing is left to go on with"
    until_eq 40 "$(recorded)" on_disk
    ok kra volume snapshot create data one; eq "$(word data@one)" one
    ok kra volume rm data
}

test_kraud_dies_1() { walk btrfs kraud 0 2; }
test_kraud_dies_2() { walk btrfs kraud 1 2; }
test_the_machine_dies_1() { walk btrfs machine 0 2; }
test_the_machine_dies_2() { walk btrfs machine 1 2; }

walk_zfs() {
    POOL=zed
    ok kraud pool create zed --engine zfs --size 2G --file "$D/zed.img"
    walk zfs kraud "$1" 2
    kra volume ls -q | xargs -r kra volume rm >/dev/null
    ok kraud pool rm zed
}
test_kraud_dies_zfs_1() { walk_zfs 0; }
test_kraud_dies_zfs_2() { walk_zfs 1; }

# The points of pools: at the very first start, and when the operator makes or grows one.
test_first_start() {
    local point
    for point in $(echo "$POINTS" | grep '^btrfs.pool'); do
        ! start_at "$point" || fail "the first start does not come to $point"
        rm "$D/kraud.pid"
        daemon_start "$D"
        eq "$(json pool ls '[p["name"] + p["health"] for p in j]')" defaultonline "$point"
        create data --size 64M
        ok kra volume ls-files data
        daemon_destroy "$D"
        rm "$D/kraud.pid"
    done
}

test_pools_of_the_operator() {
    local point loop1 loop2
    for point in $(echo "$POINTS" | grep -E '^btrfs.(pool|grow)'); do
        case $point in
            btrfs.pool.*)
                daemon_term "$D"
                # Some a start comes to, with the pool that there is.
                if start_at "$point"; then
                    run kraud pool create more --size 512M
                    wait_until 5 pid_gone "$(daemon_pid "$D")" || fail "kraud pool create does not come to $point"
                fi
                daemon_start "$D"
                if [[ " $(json pool ls '[p["name"] for p in j]') " != *' more '* ]]; then ok kraud pool create more --size 512M; fi
                ;;
            btrfs.grow.file)
                ok kraud pool create more --size 512M
                daemon_term "$D"
                start_at "$point" || fail "a start comes to $point"
                run kraud pool grow more --size 1G
                wait_until 5 pid_gone "$(daemon_pid "$D")" || fail "kraud pool grow does not come to $point"
                daemon_start "$D"
                ok kraud pool grow more --size 1G
                between "$(json pool inspect more 'j[0]["total"] >> 20')" 900 1024
                ;;
            btrfs.grow.device)
                truncate -s 512M one two
                loop1=$(losetup -f --show one); loop2=$(losetup -f --show two)
                ok kraud pool create more --device "$loop1"
                daemon_term "$D"
                start_at "$point" || fail "a start comes to $point"
                run kraud pool grow more --device "$loop2"
                wait_until 5 pid_gone "$(daemon_pid "$D")" || fail "kraud pool grow does not come to $point"
                daemon_start "$D"
                ok kraud pool grow more --device "$loop2"
                between "$(json pool inspect more 'j[0]["total"] >> 20')" 900 1024
                ;;
        esac
        eq "$(json pool inspect more 'j[0]["health"]')" online "$point"
        create data --pool more --size 64M; plant data one; eq "$(word data)" one
        ok kra volume rm data
        ok kraud pool rm more
        [ ! -e "$D/data/pools/more.img" ] || fail "$point: the file of the removed pool is still there"
    done
    losetup -d "$loop1"; losetup -d "$loop2"
}
