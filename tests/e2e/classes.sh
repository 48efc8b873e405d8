# Volume classes: what docker's own commands see of them. What kra does is in kra.sh.

# The native command line, beside the daemon's binary.
kra() { KR_HOST=$DOCKER_HOST "$(dirname "$KRAUD_BIN")/kra" "$@"; }
status_of() { docker volume inspect -f "{{.Status.$2}}" "$1"; }

test_class_options_and_status() {
    ok docker volume create -d nfs -o size=64M -o snapshots=daily:3 cstat
    eq "$(docker volume inspect -f '{{.Driver}}' cstat)" nfs
    eq "$(status_of cstat Class)" nfs
    eq "$(status_of cstat Pool)" default
    has "$(docker volume inspect cstat)" '"Size": 67108864'
    eq "$(status_of cstat Redundancy)" 'none (one node)'
    eq "$(status_of cstat Schedule)" daily:3
    eq "$(status_of cstat Health)" online
    docker run -d --name cstat1 -v cstat:/d $IMG sleep 100 >/dev/null
    eq "$(status_of cstat AttachedTo)" '[cstat1]'
    fails 1 docker volume rm cstat
    has "$ERR" 'volume is in use'
    docker rm -f cstat1 >/dev/null
    ok docker volume rm cstat
    ok docker volume create cplain
    eq "$(docker volume inspect -f '{{.Driver}}' cplain)" local
    eq "$(docker volume inspect -f '{{.Status}}' cplain)" 'map[]'
    docker volume rm cplain >/dev/null
}

test_bad_input() {
    for bad in size=big size=0 size=-1 size=900000T snapshots=sometimes zone=mars pool=nowhere foo=bar fs=ext4 media=hdd; do
        fails 1 docker volume create -d nfs -o "$bad" cbad
        has "$ERR" "${bad%%=*}"
        fails 1 docker volume inspect cbad
    done
    fails 1 docker volume create -d nfs -o foo=bar cbad
    has "$ERR" 'size, snapshots, pool, zone and from'
    fails 1 docker volume create -d floppy cbad
    has "$ERR" 'nfs (also local), lv2, lv1, gfs and rbd'
    fails 1 docker volume create -d rbd cbad
    has "$ERR" Ceph
    fails 1 docker volume create -d lv1 cbad
    has "$ERR" --mirror
    fails 1 docker volume create -d lv2 -o fs=fat cbad
    fails 1 docker volume create -d nfs -o from=nothere cbad
    has "$ERR" 'no such volume'
    ok docker volume create -d gfs cexists
    fails 1 docker volume create -d lv2 cexists
    has "$ERR" 'volume name must be unique'
    docker volume rm cexists >/dev/null
}

test_quota() {
    docker volume create -d nfs -o size=32M cq >/dev/null
    docker volume create -d nfs cneighbour >/dev/null
    fails 1 docker run --rm -v cq:/d $IMG dd if=/dev/zero of=/d/x bs=1M count=64
    matches "$ERR" 'Disk quota exceeded|No space left'
    ok docker run --rm -v cneighbour:/d $IMG dd if=/dev/zero of=/d/x bs=1M count=64
    ok docker run --rm -v cq:/d $IMG rm /d/x
    # What the file took is free again once the file system has written its removal.
    sync -f "$(docker volume inspect -f '{{.Mountpoint}}' cq)"
    ok docker run --rm -v cq:/d $IMG dd if=/dev/zero of=/d/y bs=1M count=16
    ok kra volume snapshot create cq s
    ok kra volume rollback cq s
    fails 1 docker run --rm -v cq:/d $IMG dd if=/dev/zero of=/d/z bs=1M count=64
    matches "$ERR" 'Disk quota exceeded|No space left'
    docker run --rm -v cq:/d $IMG rm -f /d/z
    ok docker volume create -d nfs -o from=cq@s ccopy
    has "$(docker volume inspect ccopy)" '"Size": 33554432'
    fails 1 docker run --rm -v ccopy:/d $IMG dd if=/dev/zero of=/d/z bs=1M count=64
    matches "$ERR" 'Disk quota exceeded|No space left'
    docker volume rm cq ccopy cneighbour >/dev/null
}

test_block_volume() {
    docker volume create -d lv2 -o size=128M cblk >/dev/null
    docker run -d --name cblk1 -v cblk:/d $IMG sh -c 'echo one >/d/f; sync; sleep 100' >/dev/null
    until_eq 5 one docker exec cblk1 cat /d/f
    has "$(docker exec cblk1 mount)" '/d type ext4'
    fails 125 docker run --rm -v cblk:/d $IMG true
    has "$ERR" 'one container at a time'
    ok kra volume snapshot create cblk s
    docker exec cblk1 sh -c 'echo two >/d/f'
    eq "$(docker run --rm -v cblk@s:/d:ro $IMG cat /d/f)" one
    fails 1 docker run --rm -v cblk@s:/d $IMG touch /d/x
    has "$ERR" Read-only
    fails 4 kra volume rollback cblk s
    has "$ERR" cblk1
    ok kra volume rollback --restart cblk s
    until_eq 10 one docker exec cblk1 cat /d/f
    docker rm -f cblk1 >/dev/null
    ok docker volume rm cblk
}

test_block_volume_grows() {
    for fs in ext4 xfs; do
        docker volume create -d lv2 -o size=320M -o fs=$fs cgrow >/dev/null
        docker run --rm -v cgrow:/d $IMG sh -c 'echo kept >/d/f'
        ok kra volume resize cgrow 640M
        between "$(docker run --rm -v cgrow:/d $IMG df -m /d | awk 'NR == 2 { print $2 }')" 480 640
        eq "$(docker run --rm -v cgrow:/d $IMG cat /d/f)" kept
        fails 8 kra volume resize cgrow 64M
        has "$ERR" 'cannot shrink'
        docker volume rm cgrow >/dev/null
    done
}

test_xfs_grows_while_mounted() {
    docker volume create -d lv2 -o size=320M -o fs=xfs cxfs >/dev/null
    docker run -d --name cxfs1 -v cxfs:/d $IMG sleep 100 >/dev/null
    ok kra volume resize cxfs 640M
    between "$(docker exec cxfs1 df -m /d | awk 'NR == 2 { print $2 }')" 480 640
    docker rm -f cxfs1 >/dev/null
    docker volume rm cxfs >/dev/null
}

test_raw_device() {
    docker volume create -d lv2 -o size=16M -o fs=raw craw >/dev/null
    docker run --rm -v craw:/x $IMG sh -c 'printf hello | dd of=/dev/volumes/craw bs=512 conv=sync' 2>/dev/null
    eq "$(docker run --rm -v craw:/x $IMG sh -c 'dd if=/dev/volumes/craw bs=5 count=1' 2>/dev/null)" hello
    docker run --rm -v craw:/x:ro $IMG sh -c 'echo no >/dev/volumes/craw' 2>/dev/null && fail 'a read-only device was written'
    docker volume rm craw >/dev/null
}

test_copies_are_independent() {
    docker volume create -d nfs corig >/dev/null
    docker run --rm -v corig:/d $IMG sh -c 'echo a >/d/f'
    ok docker volume create -d nfs -o from=corig cdup
    docker run --rm -v corig:/d $IMG sh -c 'echo b >/d/f'
    docker volume rm corig >/dev/null
    eq "$(docker run --rm -v cdup:/d $IMG cat /d/f)" a
    docker volume rm cdup >/dev/null
    docker volume create -d lv2 -o size=64M corig >/dev/null
    docker run --rm -v corig:/d $IMG sh -c 'echo a >/d/f'
    ok docker volume create -d lv2 -o from=corig cdup
    docker volume rm corig >/dev/null
    eq "$(docker run --rm -v cdup:/d $IMG cat /d/f)" a
    fails 1 docker volume create -d nfs -o from=cdup cwrong
    has "$ERR" 'block volume'
    docker volume rm cdup >/dev/null
}

test_snapshot_mounts() {
    docker volume create csnap >/dev/null
    docker run --rm -v csnap:/d $IMG sh -c 'mkdir /d/sub; echo old >/d/sub/f'
    kra volume snapshot create csnap monday >/dev/null
    docker run --rm -v csnap:/d $IMG sh -c 'echo new >/d/sub/f'
    eq "$(docker run --rm -v csnap@monday:/o:ro -v csnap:/n $IMG cat /o/sub/f /n/sub/f | tr '\n' ' ')" 'old new '
    eq "$(docker run --rm --mount type=volume,source=csnap@monday,target=/o,volume-subpath=sub $IMG cat /o/f)" old
    fails 1 docker run --rm -v csnap@monday:/o $IMG touch /o/x
    fails 125 docker run --rm -v csnap@tuesday:/o $IMG true
    has "$ERR" 'no snapshot'
    docker run -d --name csnap1 -v csnap@monday:/o $IMG sleep 100 >/dev/null
    fails 4 kra volume snapshot rm csnap monday
    has "$ERR" csnap1
    docker rm -f csnap1 >/dev/null
    ok kra volume snapshot rm csnap monday
    docker volume rm csnap >/dev/null
}

test_several_at_one_moment() {
    docker volume create ca >/dev/null
    docker volume create cb >/dev/null
    # The same number goes to both, first to a: at one moment, b is equal or one behind.
    docker run -d --name cboth -v ca:/a -v cb:/b $IMG sh -c 'i=0; while :; do i=$((i+1)); echo $i >/a/n; echo $i >/b/n; done' >/dev/null
    for round in 1 2 3 4 5; do
        ok kra volume snapshot create ca cb --name "round$round"
        a=$(docker run --rm -v "ca@round$round:/d" $IMG cat /d/n)
        b=$(docker run --rm -v "cb@round$round:/d" $IMG cat /d/n)
        [ -z "$a" ] || [ -z "$b" ] || between "$((a - b))" 0 1
    done
    eq "$(state cboth)" running
    docker rm -f cboth >/dev/null
    docker volume rm ca cb >/dev/null
}

test_hooks() {
    docker volume create chook >/dev/null
    docker run -d --name chook1 -v chook:/d --label kr.snapshot.pre='echo flushed >/d/pre' \
        --label kr.snapshot.post='echo resumed >/d/post' $IMG sleep 100 >/dev/null
    ok kra volume snapshot create chook one
    eq "$(docker run --rm -v chook@one:/d $IMG ls /d)" pre
    eq "$(docker exec chook1 cat /d/post)" resumed
    docker run -d --name chook2 -v chook:/d --label kr.snapshot.pre='echo sorry; exit 3' $IMG sleep 100 >/dev/null
    fails 4 kra volume snapshot create chook two
    has "$ERR" sorry
    hasnt "$(kra volume snapshot ls chook)" two
    docker rm -f chook1 chook2 >/dev/null
    docker volume rm chook >/dev/null
}

test_what_was_attached_outlives_the_daemon() {
    docker volume create -d lv2 -o size=64M clive >/dev/null
    docker run -d --name clive1 -v clive:/d $IMG sh -c 'while :; do date >>/d/log; sync; sleep 0.2; done' >/dev/null
    kra volume snapshot create clive s >/dev/null
    daemon_kill "$KRAUD_TEST_DIR"
    daemon_start "$KRAUD_TEST_DIR"
    before=$(docker exec clive1 wc -c </dev/null /d/log | cut -d' ' -f1)
    sleep 1
    [ "$(docker exec clive1 wc -c /d/log | cut -d' ' -f1)" -gt "$before" ] || fail 'the log stands still'
    fails 125 docker run --rm -v clive:/d $IMG true
    has "$ERR" 'one container at a time'
    ok kra volume rollback --restart clive s
    docker rm -f clive1 >/dev/null
    eq "$(docker run --rm -v clive:/d $IMG sh -c 'ls /d | grep -c log')" 1
    ok docker volume rm clive
}

test_pools() {
    ok "$KRAUD_BIN" pool ls --socket "${DOCKER_HOST#unix://}"
    has "$OUT" default
    truncate -s 400M "$T/one" "$T/two"
    one=$(losetup -f --show "$T/one") two=$(losetup -f --show "$T/two")
    trap 'losetup -d $one $two 2>/dev/null || true' EXIT
    kraud_pool() { "$KRAUD_BIN" pool "$@" --socket "${DOCKER_HOST#unix://}"; }
    ok kraud_pool create mirror --engine btrfs --device "$one" --device "$two" --mirror
    ok docker volume create -d lv1 -o size=64M -o pool=mirror cm
    has "$(status_of cm Redundancy)" 'mirror (2 copies'
    docker run --rm -v cm:/d $IMG sh -c 'echo safe >/d/f'
    fails 1 kraud_pool rm mirror
    has "$ERR" cm
    daemon_kill "$KRAUD_TEST_DIR"
    daemon_start "$KRAUD_TEST_DIR"
    eq "$(docker run --rm -v cm:/d $IMG cat /d/f)" safe
    docker volume rm cm >/dev/null
    ok kraud_pool rm mirror
    hasnt "$(kraud_pool ls)" mirror
    fails 1 kraud_pool create default --size 1G
    has "$ERR" 'exists already'
}
