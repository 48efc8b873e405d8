# Bad input: a clear error with docker's status code, and nothing changed.

# refused CODE WORDS METHOD PATH [JSON]: a raw call that fails so.
refused() {
    local code=$1 words=$2; shift 2
    api "$@"
    eq "$CODE" "$code" "of $* | $BODY"
    has "${BODY//\\\"/\"}" "$words"
}
# not_created CODE WORDS DRIVER OPTION=VALUE…: docker volume create that fails so.
not_created() {
    local code=$1 words=$2 driver=$3 options=; shift 3
    for option in "$@"; do options+="${options:+,}\"${option%%=*}\":\"${option#*=}\""; done
    refused "$code" "$words" POST /v1.47/volumes/create "{\"Name\":\"bad\",\"Driver\":\"$driver\",\"DriverOpts\":{$options}}"
    run docker volume create -d "$driver" "${@/#/--opt=}" bad
    eq "$RC" 1; has "$ERR" "$words"
    exists bad && fail 'the volume is there'
    return 0
}
unchanged() { eq "$(json volume ls '[v["name"] for v in j]')" "${1:-}"; tidy; }

test_sizes() {
    local size
    for size in x 10Q G '' '1 0G' 1.2.3G 0x10 '10G;rm' 99999999999999999999999999999; do
        not_created 400 size local "size=$size"
        has "$ERR" 'such as 10G or 512M'
    done
    not_created 400 'a size cannot be zero' local size=0
    not_created 400 'a size cannot be zero' lv2 size=0
    not_created 400 'a size cannot be negative' local size=-1
    not_created 400 'a size cannot be negative' lv2 size=-10G
    not_created 400 '1M is the least' local size=100
    not_created 400 'xfs needs 300M at least' lv2 size=100M fs=xfs
    for class in local gfs lv2; do
        not_created 400 'pool default holds' $class size=1000T
        has "$ERR" 'grow the pool'
    done
    not_created 400 'size' local size=9223372036854775808
    not_created 400 'size' lv2 size=18446744073709551615
    unchanged
}

test_shrinking() {
    create files --size 64M; create block -c lv2 --size 64M; create free
    plant files one; plant block one; plant free one
    for volume in files block; do
        fails 8 kra volume resize $volume 32M
        has "$ERR" "volume $volume has 67108864 bytes and cannot shrink to 33554432"
        fails 8 kra volume resize $volume 0
        run kra volume resize $volume -- -5M; ne "$RC" 0
        fails 8 kra volume resize $volume 1000T
        has "$ERR" 'pool default holds'
        eq "$(json volume inspect $volume 'j[0]["size"]')" 67108864
        eq "$(word $volume)" one
    done
    in_volume free 'head -c 9000000 /dev/urandom >/v/big; sync -f /v'
    fails 8 kra volume resize free 2M
    has "$ERR" 'would be too small'
    fails 3 kra volume resize nosuch 10G
    unchanged 'block files free'
}

test_classes_and_options() {
    not_created 404 'the classes of kraud are' nosuch
    for class in nfs lv2 lv1 gfs; do has "$ERR" $class; done
    not_created 400 'unknown volume option "sise": the options of class nfs are size, snapshots, pool, zone and from' nfs sise=1G
    not_created 400 'unknown volume option "x": the options of class lv2 are size, snapshots, pool, zone, from, fs and rpo' lv2 x=
    not_created 400 'does not apply to class nfs' nfs fs=xfs
    not_created 400 'bind mount' local type=nfs device=:/x
    not_created 400 'fs' lv2 fs=ntfs
    not_created 400 'hourly:24,daily:7' local snapshots=often
    not_created 400 'hourly:24,daily:7' local snapshots=hourly:0
    not_created 400 'twice' local snapshots=hourly:1,hourly:2
    not_created 400 'hourly:24,daily:7' local snapshots=hourly:1001
    not_created 404 'no such pool: nosuch' local pool=nosuch
    not_created 400 'no such zone' local zone=moon
    not_created 404 'nosuch' local from=nosuch
    not_created 400 from local from=a@b/c
    # What this installation lacks is named.
    not_created 503 'needs a Ceph cluster' rbd
    not_created 503 'no Ceph cluster' gfs media=hdd
    not_created 503 'no cold storage' lv2 rpo=15m
    not_created 503 'keeps every block twice' lv1
    unchanged
}

test_names() {
    local name
    for name in a .hidden -dash 'a b' 'a/b' ../up "x\$(id)" 'ü12' "$(printf 'n%.0s' $(seq 300))"; do
        run docker volume create "$name"
        [ "$RC" != 0 ] || fail "a volume can be called '$name'"
    done
    create data --size 16M
    for name in a/b ../x /abs 'a b' '' . .. -x "$(printf 'n%.0s' $(seq 300))" 'x@y' 'x:y'; do
        run kra volume snapshot create data -- "$name"
        [ "$RC" != 0 ] || fail "a snapshot can be called '$name'"
        refused 400 snapshot POST /kr/v1/snapshots "{\"volumes\":[\"data\"],\"name\":\"$name\"}"
    done
    eq "$(snapshots data)" ''
    snap data one
    fails 8 kra volume snapshot rename data one a/b
    fails 4 kra volume snapshot create data one
    has "$ERR" 'has a snapshot one already'
    eq "$(snapshots data)" one
    unchanged data
}

test_rollback_elsewhere() {
    create one --size 16M; create two --size 16M; plant one first; plant two second
    snap one mine; snap two yours
    fails 3 kra volume rollback one yours
    has "$ERR" yours
    fails 3 kra volume rollback nosuch yours
    fails 3 kra volume rollback one 'x/../mine'
    fails 3 kra volume clone one@yours three
    fails 3 kra volume diff one mine yours
    fails 3 kra volume snapshot rm one yours
    fails 125 docker run --rm -v one@yours:/v:ro --pull never $IMG true; has "$ERR" yours
    eq "$(word one) $(word two) $(snapshots one) $(snapshots two)" 'first second mine yours'
    unchanged 'one two'
}

test_in_use() {
    create data --size 16M; plant data one; snap data one; plant data two
    docker run -d --name web -v data:/v $IMG sleep 1000 >/dev/null
    fails 4 kra volume rollback data one
    has "$ERR" 'in use by running containers: web'
    has "$ERR" -- '--restart'
    fails 4 kra volume rm data
    fails 1 docker volume rm data
    has "$ERR" 'volume is in use'
    refused 409 'in use' DELETE /v1.47/volumes/data
    eq "$(docker exec web cat /v/word) $(snapshots data)" 'two one'
    docker run -d --name reader -v data@one:/old:ro $IMG sleep 1000 >/dev/null
    eq "$(docker exec reader cat /old/word)" one
    fails 1 docker exec reader touch /old/x
    fails 4 kra volume snapshot rm data one
    has "$ERR" reader
    fails 4 kra volume snapshot rename data one other
    # A snapshot cannot be had for writing.
    run docker run --rm -v data@one:/old $IMG touch /old/x; ne "$RC" 0
    docker rm -f web reader >/dev/null
    unchanged data
}

test_one_at_a_time() {
    create block -c lv2 --size 32M; plant block one; snap block one
    docker run -d --name first -v block:/v $IMG sleep 1000 >/dev/null
    fails 125 docker run --name second -v block:/v $IMG true
    has "$ERR" 'in use by container'
    has "$ERR" 'one container at a time'
    docker start second >/dev/null 2>&1 && fail 'a second container has the block volume'
    eq "$(docker exec first cat /v/word)" one
    docker run --rm -v block@one:/old:ro $IMG cat /old/word >/dev/null
    docker rm -f second >/dev/null
    docker stop -t 0 first >/dev/null
    # Once the first has ended, another may.
    ok docker run --rm -v block:/v $IMG true
    docker rm -f first >/dev/null
    unchanged block
}

test_origins_with_clones() {
    local class sum
    for class in nfs lv2; do
        create origin -c $class --size 32M; plant origin one; snap origin one; plant origin two
        kra volume clone origin@one old >/dev/null; kra volume clone origin new >/dev/null
        ok kra volume snapshot rm origin one
        ok kra volume rm origin
        eq "$(word old) $(word new)" 'one two' 'copies outlive their origin'
        kra volume clone old old2 >/dev/null; ok kra volume rm old; eq "$(word old2)" one
        # A copy cannot be of another kind or smaller.
        fails 8 kra volume create bad --from new --class "$([ $class = nfs ] && echo lv2 || echo nfs)"
        fails 4 kra volume clone new old2
        [ $class = nfs ] || { fails 8 kra volume create bad --class lv2 --from new --size 16M; has "$ERR" 'cannot be smaller'; }
        unchanged 'new old2'
        ok kra volume rm new old2
    done
    unchanged
}

test_copying_files() {
    create data --size 32M; plant data one; snap data one
    mkdir outside; echo secret >outside/secret
    in_volume data "ln -s $T/outside /v/link; ln -s ../../../../../../..$T/outside /v/up"
    for path in data:/link/secret data:/up/secret data:/../../secret data@one:/nosuch data@nosuch:/word nosuch:/word; do
        run kra volume cp "$path" -; [ "$RC" != 0 ] || fail "kra volume cp reads $path"
    done
    echo planted >f
    for path in data:/link/f data:/up/f; do kra volume cp f "$path" >/dev/null 2>&1 || true; done
    [ ! -e outside/f ] || fail 'kra volume cp writes through a link of the volume'
    fails 2 kra volume cp f data@one:/f; has "$ERR" "never written to"
    in_volume data 'rm -f /v/link /v/up'
    unchanged data
}
