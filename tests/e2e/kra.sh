# kra and kraud pool: volumes with snapshots, rollback, clones, copies and pools, by the native API.

KRA=${KRA_BIN:-$(dirname "$KRAUD_BIN")/kra}
kra() { KR_HOST=$DOCKER_HOST "$KRA" "$@"; }
kv() { kra volume "$@"; }
ks() { kra volume snapshot "$@"; }
kpool() { "$KRAUD_BIN" pool --data-dir "$KRAUD_TEST_DIR/data" --socket "${DOCKER_HOST#unix://}" "$@"; }
# field NAME-OF-VOLUME JQ-LIKE-KEY…: a field of the JSON that kra prints.
field() {
    kv inspect "$1" -o json | python3 -c '
import json, sys
value = json.load(sys.stdin)[0]
for key in sys.argv[1:]: value = value[int(key) if key.isdigit() else key]
print(value)' "${@:2}"
}
write() { docker run --rm -v "$1":/d $IMG sh -c "$2"; }
read_from() { docker run --rm -v "$1":/d:ro $IMG cat "/d/$2"; }

test_version_and_description() {
    matches "$(out kra version)" 'kraud +[0-9.]+'
    has "$(out kra version -o json)" '"api": "1"'
    api GET /kr/v1/openapi.json
    eq "$CODE" 200
    has "$BODY" '"openapi":"3.1.0"'
    api GET /kr/v1/nothing
    eq "$CODE" 404
    has "$BODY" '"kind":"not_found"'
    # docker's API is where it was.
    api GET /v1.41/_ping
    eq "$CODE" 200
}

test_create_ls_inspect_rm() {
    eq "$(out kv create kc1 --class nfs --size 100M --label a=b)" kc1
    eq "$(docker volume inspect -f '{{.Driver}} {{index .Labels "a"}} {{index .Options "size"}}' kc1)" 'nfs b 100M'
    eq "$(field kc1 size)" 104857600
    eq "$(field kc1 class)" nfs
    eq "$(field kc1 schedule)" 'daily:7,weekly:4,monthly:12'
    eq "$(field kc1 redundancy)" 'none (one node)'
    matches "$(out kv ls)" $'\nkc1 +nfs +default +100MiB'
    has "$(out kv ls -q)" kc1
    hasnt "$(out kv ls -q --class lv2)" kc1
    matches "$(out kv inspect kc1)" 'Redundancy +none'
    # A volume that docker made is the same thing.
    docker volume create kc2 >/dev/null
    has "$(out kv ls -q)" kc2
    name=$(out kv create)
    matches "$name" '^[0-9a-f]{64}$'
    eq "$(out kv rm kc1 kc2 "$name")" "kc1
kc2
$name"
    fails 3 kv inspect kc1
    has "$ERR" 'no such volume'
    has "$ERR" 'hint: kra volume ls'
    fails 3 kv rm kc1
    ok kv rm -f kc1
}

test_bad_input() {
    for bad in '--size 0' '--size -5G' '--size many' '--size 10' '--size 9000P' '--opt sise=1G' '--fs xfs' '--snapshots yearly:1' \
        '--snapshots daily:0' '--pool nowhere' '--from nothing' '--class lv1 --rpo 5m' '--media tape'; do
        # shellcheck disable=SC2086
        run kv create kbad $bad
        [ "$RC" = 8 ] || [ "$RC" = 3 ] || [ "$RC" = 4 ] || [ "$RC" = 2 ] || fail "exit $RC of kra volume create kbad $bad: $ERR"
        hasnt "$(out kv ls -q)" kbad
    done
    fails 8 kv create kbad --opt sise=1G
    has "$ERR" 'size, snapshots, pool, zone and from'
    fails 3 kv create kbad --class zfs
    has "$ERR" 'nfs (also local), lv2, lv1, gfs and rbd'
    ok kv create kbad2 --size 100M
    fails 8 kv resize kbad2 50M
    has "$ERR" 'cannot shrink'
    fails 2 kv resize kbad2 lots
    fails 8 ks create kbad2 a/b
    has "$ERR" 'invalid snapshot name'
    fails 3 kv rollback kbad2 nothing
    has "$ERR" 'kra volume snapshot ls kbad2'
    ok ks create kbad2 one
    fails 4 ks create kbad2 one
    fails 2 ks create a b c
    has "$ERR" '--name'
    fails 2 kv cp ./a ./b
    fails 2 kv cp ./a kbad2@one:/
    has "$ERR" 'never written to'
    KR_HOST=unix:///nowhere/kraud.sock fails 6 "$KRA" volume ls
    has "$ERR" 'KR_HOST='
    KR_HOST=http://x fails 8 "$KRA" volume ls
    ok kv rm kbad2
}

test_snapshots() {
    ok kv create ks1
    eq "$(out ks create ks1 monday)" monday
    matches "$(out ks create ks1)" '^snap-20[0-9-]+T[0-9.]+Z$'
    eq "$(out ks ls ks1 -q | head -n 1)" monday
    matches "$(out ks ls ks1)" $'\nmonday +20[0-9 :-]+.*user'
    eq "$(out ks rename ks1 monday tuesday)" tuesday
    fails 3 ks rm ks1 monday
    eq "$(out ks rm ks1 tuesday)" tuesday
    eq "$(field ks1 snapshots)" 1
    ok kv rm ks1
}

test_several_volumes_at_one_moment() {
    ok kv create kg1
    ok kv create kg2 --class lv2 --size 32M
    eq "$(out ks create kg1 kg2 --name deploy-42)" 'kg1@deploy-42
kg2@deploy-42'
    fails 3 ks create kg1 kmissing --name deploy-43
    hasnt "$(out ks ls kg1 -q)" deploy-43 'all or none'
    ok kv rm kg1 kg2
}

test_rollback_and_undo() {
    for class in nfs lv2; do
        ok kv create kr1 --class $class --size 64M
        write kr1 'echo old >/d/f'
        ok ks create kr1 before
        write kr1 'echo new >/d/f'
        ok ks create kr1 later
        safety=$(out kv rollback kr1 before -q)
        matches "$safety" '^before-rollback-'
        eq "$(read_from kr1 f)" old "$class"
        has "$(out ks ls kr1 -q)" later 'newer snapshots stay'
        ok kv rollback kr1 "$safety"
        has "$OUT" 'to undo this: kra volume rollback kr1'
        eq "$(read_from kr1 f)" new "$class"
        ok kv rm kr1
    done
}

test_rollback_with_running_containers() {
    ok kv create kr2
    write kr2 'echo old >/d/f'
    ok ks create kr2 s
    docker run -d --name kr2c -v kr2:/d $IMG sh -c 'echo new >/d/f; sleep 1000' >/dev/null
    until_eq 5 new docker exec kr2c cat /d/f
    fails 4 kv rollback kr2 s
    has "$ERR" kr2c
    has "$ERR" --restart
    eq "$(docker exec kr2c cat /d/f)" new 'nothing happened'
    matches "$(out kv ls)" 'kr2 .*kr2c'
    started=$(ins kr2c '{{.State.StartedAt}}')
    ok kv rollback kr2 s --restart
    has "$OUT" 'started again: kr2c'
    ne "$(ins kr2c '{{.State.StartedAt}}')" "$started"
    until_eq 5 new docker exec kr2c cat /d/f
    fails 4 kv rm kr2
    has "$ERR" 'docker ps -a --filter volume=kr2'
    docker rm -f kr2c >/dev/null
    ok kv rm kr2
}

test_clone() {
    ok kv create ko
    write ko 'echo one >/d/f'
    ok ks create ko s
    write ko 'echo two >/d/f'
    eq "$(out kv clone ko@s kold)" kold
    eq "$(out kv clone ko know)" know
    fails 4 kv clone ko know
    ok kv rm ko
    eq "$(read_from kold f)" one 'independent of its origin'
    eq "$(read_from know f)" two
    ok kv rm kold know
}

# Whether this machine lets us grow a mounted ext4: that takes CAP_SYS_RESOURCE, which some containers lack.
may_grow_ext4() { (($((16#$(awk '/^CapEff/ { print $2 }' /proc/self/status))) >> 24 & 1)); }

test_resize_while_in_use() {
    for fs in xfs ext4; do
        [ $fs != ext4 ] || may_grow_ext4 || continue
        ok kv create kz --class lv2 --size 320M --fs $fs
        docker run -d --name kzc -v kz:/d $IMG sleep 1000 >/dev/null
        has "$(out kv resize kz +128M)" 448MiB
        eq "$(field kz size)" 469762048
        between "$(docker exec kzc df -k /d | awk 'END { print $2 }')" 340000 458752
        docker exec kzc dd if=/dev/zero of=/d/f bs=1M count=350 2>/dev/null || fail "$fs is not larger"
        docker rm -f kzc >/dev/null
        ok kv rm kz
    done
}

test_resize_while_not_in_use() {
    local fs=ext4
    may_grow_ext4 || fs=xfs
    ok kv create kz --class lv2 --size 320M --fs $fs
    write kz 'echo kept >/d/f'
    has "$(out kv resize kz 448M)" 448MiB
    eq "$(read_from kz f)" kept
    between "$(write kz 'df -k /d' | awk 'END { print $2 }')" 340000 458752
    ok kv rm kz
    ok kv create kz --size 32M
    write kz 'dd if=/dev/urandom of=/d/f bs=1M count=60 2>/dev/null' 2>/dev/null && fail 'more was written than the size'
    ok kv resize kz 200M
    write kz 'dd if=/dev/urandom of=/d/g bs=1M count=60 2>/dev/null' || fail 'the new size is not in force'
    ok kv rm kz
}

test_usage() {
    ok kv create ku --size 1G
    write ku 'dd if=/dev/urandom of=/d/f bs=1M count=20 2>/dev/null; sync'
    between "$(field ku usage live)" 20900000 21300000
    ok ks create ku s
    write ku 'rm /d/f; sync'
    between "$(field ku usage snapshots)" 20900000 21300000
    matches "$(out kv usage ku)" 'ku +1GiB .*20MiB'
    ok ks rm ku s
    until_eq 30 0 field ku usage snapshots
    ok kv rm ku
}

test_reading_files() {
    ok kv create kf
    write kf 'mkdir /d/etc; echo old >/d/etc/app.conf; ln -s app.conf /d/etc/link; chown -R 7:8 /d/etc'
    ok ks create kf monday
    write kf 'echo new >/d/etc/app.conf; rm /d/etc/link; echo x >/d/added'
    eq "$(out kv ls-files kf@monday:/etc -q)" 'app.conf
link'
    matches "$(out kv ls-files kf@monday:/etc)" 'link -> app.conf'
    matches "$(out kv ls-files kf@monday:/etc)" '-rw-r--r-- +7 +8'
    fails 3 kv ls-files kf@monday:/nothing
    eq "$(out kv diff kf monday | grep -v '^C etc$')" 'A added
C etc/app.conf
D etc/link'
    has "$(out kv diff kf monday -o json)" '"kind": "removed"'
    ok ks create kf tuesday
    eq "$(out kv diff kf tuesday)" ''
    has "$(out kv diff kf monday tuesday -q)" etc/link
    eq "$(docker run --rm -v kf@monday:/old:ro $IMG cat /old/etc/app.conf)" old
    ok kv rm kf
}

test_copying() {
    ok kv create kp --class nfs
    ok kv create kq --class lv2 --size 32M
    mkdir -p "$T/src/sub"
    echo hello >"$T/src/f"
    ln "$T/src/f" "$T/src/hard"
    ln -s f "$T/src/soft"
    dd if=/dev/urandom of="$T/src/sub/big" bs=1M count=3 2>/dev/null
    for volume in kp kq; do
        ok kv cp "$T/src" $volume:/tree
        eq "$(read_from $volume tree/f)" hello
        ok ks create $volume s
        ok kv cp $volume@s:/tree "$T/back-$volume"
        diff -r "$T/src" "$T/back-$volume" || fail "what came back from $volume differs"
        eq "$(stat -c %h "$T/back-$volume/hard")" 2
        eq "$(readlink "$T/back-$volume/soft")" f
    done
    # Into a directory under its own name; the contents alone; a file under a new name.
    ok kv cp "$T/src" kp:/tree
    eq "$(read_from kp tree/src/f)" hello
    ok kv cp "$T/src/." kp:/
    eq "$(read_from kp f)" hello
    ok kv cp "$T/src/f" kp:/g
    eq "$(read_from kp g)" hello
    echo changed >"$T/src/f"
    ok kv cp "$T/src/f" kp:/g
    eq "$(read_from kp g)" changed
    # One file of a snapshot, back into the live volume, with its owner.
    write kp 'chown 5:6 /d/g; chmod 640 /d/g'
    ok ks create kp g
    write kp 'rm /d/g'
    ok kv cp kp@g:/g kp:/g
    eq "$(write kp 'stat -c %u:%g:%a /d/g')" 5:6:640
    ok kv cp kp@g:/g kp:/renamed
    eq "$(read_from kp renamed)" changed
    # From volume to volume, whatever their classes.
    ok kv cp kp:/tree/sub kq:/moved
    cmp "$T/src/sub/big" <(read_from kq moved/big) || fail 'a copy differs'
    ok kv cp kq:/moved/big "$T/back-kp/f"
    cmp "$T/src/sub/big" "$T/back-kp/f" || fail 'a file that was there is not replaced'
    fails 2 kv cp kp:/tree "$T/src/f"
    fails 2 kv cp kp:/g "$T/nowhere/g"
    fails 3 kv cp kp:/nothing "$T/"
    fails 1 kv cp "$T/nothing" kp:/
    eq "$(find "$T" -name '.kra-cp-*' | wc -l)" 0
    ok kv rm kp kq
}

test_copying_streams() {
    ok kv create kt
    mkdir -p "$T/in"
    echo streamed >"$T/in/f"
    tar c -C "$T" in | kv cp - kt:/ || fail 'no stream in'
    eq "$(read_from kt in/f)" streamed
    kv cp kt:/in - | tar x -C "$T" --transform 's/^in/out/' || fail 'no stream out'
    eq "$(cat "$T/out/f")" streamed
    head -c 700 <(tar c -C "$T" in) | kv cp - kt:/half 2>/dev/null && fail 'half a tar was taken'
    ok kv rm kt
}

test_paths_stay_inside() {
    ok kv create ki
    write ki 'ln -s /etc /d/out; ln -s ../../../../etc/passwd /d/file'
    eq "$(out kv ls-files ki:/out -q)" out 'a link is not followed'
    fails 3 kv ls-files ki:/out/
    fails 3 kv ls-files ki:/out/hostname
    fails 3 kv cp ki:/out/hostname "$T/got"
    ok kv cp ki:/file "$T/link"
    eq "$(readlink "$T/link")" ../../../../etc/passwd 'the link itself'
    echo evil >"$T/evil"
    run kv cp "$T/evil" ki:/out/kra-evil
    [ ! -e /etc/kra-evil ] || fail 'written out of the volume'
    run kv cp "$T/evil" "ki:/../../../../tmp/kra-evil"
    [ ! -e /tmp/kra-evil ] || fail 'written out of the volume'
    mkdir -p "$T/bad/x"
    tar c -P -C "$T/bad" --transform 's|^x|../../../kra-evil|' x | kv cp - ki:/ 2>/dev/null || true
    [ -z "$(find "$KRAUD_TEST_DIR/data/pools" -name kra-evil -not -path '*/volumes/*' 2>/dev/null)" ] || fail 'written beside the volume'
    ok kv rm ki
}

test_pools() {
    eq "$(out kra pool ls -q)" default
    eq "$(out kpool create second --size 1G)" second
    fails 1 kpool create second --size 1G
    matches "$(out kra pool ls)" $'\nsecond +btrfs .* online'
    ok kv create kpl --pool second --size 10M
    eq "$(field kpl pool)" second
    fails 1 kpool rm second
    has "$ERR" kpl
    matches "$(out kpool grow second --size 2G)" '^second: (1\.[5-9].*|2)GiB'
    fails 1 kpool grow second --size 1G
    matches "$(out kra pool inspect second)" 'Volumes +1'
    has "$(out kpool ls -o json)" '"kind": "file"'
    ok kv rm kpl
    eq "$(out kpool rm second)" second
    fails 3 kra pool inspect second
    fails 2 kpool create nothing
}

test_mirrored_pool() {
    truncate -s 512M "$T/one" "$T/two"
    one=$(losetup -f --show "$T/one"); two=$(losetup -f --show "$T/two")
    trap 'losetup -d "$one" "$two"' EXIT
    fails 7 kv create km --class lv1 --size 32M --pool default
    has "$ERR" 'kraud pool create NAME --device A --device B --mirror'
    ok kpool create safe --device "$one" --device "$two" --mirror
    fails 1 kpool create again --device "$one"
    ok kv create km --class lv1 --size 32M
    eq "$(field km pool)" safe
    eq "$(field km redundancy)" 'mirror (2 copies, one node)'
    eq "$(field km schedule)" none
    write km 'echo kept >/d/f'
    eq "$(read_from km f)" kept
    ok kv rm km
    ok kpool rm safe
}

test_output_for_programs() {
    ok kv create kj
    ok ks create kj s
    for what in 'volume ls' 'volume inspect kj' 'volume usage' 'volume snapshot ls kj' 'volume ls-files kj' 'pool ls' 'version'; do
        # shellcheck disable=SC2086
        out kra $what -o json | python3 -m json.tool >/dev/null || fail "kra $what -o json is no JSON"
    done
    # Whoever reads may stop reading.
    kv ls -o json | head -c 1 >/dev/null
    eq "${PIPESTATUS[0]}" 0
    has "$(out kra completions bash)" 'kra'
    mkdir -p "$T/man"
    ok kra man "$T/man"
    [ -s "$T/man/kra-volume-rollback.1" ] || fail 'no page for kra volume rollback'
    ok kv rm kj
}
