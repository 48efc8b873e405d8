# docker cp, both ways.

test_file_in_and_out() {
    docker create --name c1 $IMG sleep 60 >/dev/null
    echo hello >file
    chmod 640 file; chown 12:34 file
    docker cp -q file c1:/tmp/copy
    docker cp -q c1:/tmp/copy back
    cmp file back
    docker start c1 >/dev/null
    eq "$(docker exec c1 stat -c '%a %u:%g' /tmp/copy)" '640 12:34'
    docker cp -qa file c1:/tmp/archive
    eq "$(docker exec c1 stat -c '%u:%g' /tmp/archive)" 12:34
}

test_directories() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    mkdir -p tree/sub; echo 1 >tree/one; echo 2 >tree/sub/two; ln -s one tree/link
    docker cp -q tree c1:/new
    eq "$(docker exec c1 cat /new/sub/two)" 2
    docker cp -q tree c1:/tmp
    eq "$(docker exec c1 cat /tmp/tree/one)" 1
    docker cp -q tree/. c1:/tmp/
    eq "$(docker exec c1 cat /tmp/one)" 1
    eq "$(docker exec c1 readlink /tmp/link)" one
    docker cp -q c1:/new out
    diff -r tree out
    docker cp -q c1:/new/. .
    eq "$(cat one)" 1
}

test_tar_streams() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    mkdir d; echo x >d/file
    tar -c d | docker cp - c1:/tmp
    eq "$(docker exec c1 cat /tmp/d/file)" x
    eq "$(docker cp c1:/tmp/d - | tar -t | tr '\n' ' ')" 'd/ d/file '
}

test_file_over_directory_rules() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    echo x >f; mkdir d
    fails 1 docker cp f c1:/no/such/dir/f
    has "$ERR" 'Could not find the file /no/such/dir in container c1'
    fails 1 docker cp c1:/no/such .
    has "$ERR" 'Could not find the file /no/such in container c1'
    fails 1 docker cp d c1:/etc/passwd
    fails 1 docker cp f c1:/etc/passwd/
    docker cp -q f c1:/tmp/
    docker cp -q f c1:/etc/passwd
    eq "$(docker exec c1 cat /etc/passwd)" x
}

test_links_stay_inside() {
    docker run -d --name c1 $IMG sh -c 'ln -s / /tmp/root; ln -s ../../../../etc/hostname /tmp/up; ln -s /etc/passwd /tmp/abs; sleep 60' >/dev/null
    until_has 5 up docker exec c1 ls /tmp
    docker cp -qL c1:/tmp/up got
    eq "$(cat got)" "$(docker exec c1 cat /etc/hostname)"
    docker cp -qL c1:/tmp/abs got
    eq "$(cat got)" "$(docker exec c1 cat /etc/passwd)"
    echo evil >file
    docker cp -q file c1:/tmp/root/planted
    eq "$(docker exec c1 cat /planted)" evil
    [ ! -e /planted ] || fail 'written to the host'
    docker cp -q c1:/tmp/abs link
    eq "$(readlink link)" /etc/passwd 'without -L the link itself'
}

test_volumes_are_seen() {
    docker run -d --name c1 -v cpvol:/data --tmpfs /scratch $IMG sh -c 'echo v >/data/f; sleep 60' >/dev/null
    until_eq 5 v docker exec c1 cat /data/f
    docker cp -q c1:/data/f got
    eq "$(cat got)" v
    echo w >file; docker cp -q file c1:/data/g
    eq "$(docker run --rm -v cpvol:/x $IMG cat /x/g)" w
    docker stop -t 0 c1 >/dev/null
    docker cp -q c1:/data/g got
    eq "$(cat got)" w
    docker rm c1 >/dev/null; docker volume rm cpvol >/dev/null
}

test_read_only_destinations() {
    docker run -d --name c1 --read-only -v /anon -v "$T:/host:ro" $IMG sleep 60 >/dev/null
    echo x >file
    fails 1 docker cp file c1:/file
    has "$ERR" 'read-only'
    fails 1 docker cp file c1:/host/file2
    docker cp -q file c1:/anon/file
}

test_large_file() {
    docker run -d --name c1 $IMG sleep 60 >/dev/null
    head -c 40000000 /dev/urandom >big
    docker cp -q big c1:/tmp/big
    docker cp -q c1:/tmp/big back
    cmp big back
}

test_stat_header() {
    docker create --name c1 $IMG true >/dev/null
    header=$(curl -sS -I --unix-socket "${DOCKER_HOST#unix://}" 'http://d/containers/c1/archive?path=/etc/passwd' |
        tr -d '\r' | sed -n 's/^[Xx]-[Dd]ocker-[Cc]ontainer-[Pp]ath-[Ss]tat: //p' | base64 -d)
    has "$header" '"name":"passwd"'
    has "$header" '"size":'
    has "$header" '"linkTarget":""'
}

test_bad_archive_is_refused() {
    docker create --name c1 $IMG true >/dev/null
    echo 'not a tar' >junk
    code=$(curl -sS -o /dev/null -w '%{http_code}' --unix-socket "${DOCKER_HOST#unix://}" -X PUT --data-binary @junk 'http://d/containers/c1/archive?path=/tmp')
    legacy || between "$code" 400 599
    ok docker start c1
}

# The names of a container's users are its own, also while it does not run.
test_archive_mode_gives_files_to_the_containers_user() {
    docker create --name base $IMG sh -c 'echo web:x:1234:1235::/:/bin/sh >>/etc/passwd' >/dev/null
    docker start -a base >/dev/null
    docker commit base withuser >/dev/null
    docker create --name c1 -u web withuser stat -c '%u:%g' /tmp/f >/dev/null
    echo x >f
    docker cp -a f c1:/tmp/f 2>/dev/null
    eq "$(docker start -a c1)" 1234:1235
}

test_into_a_volume_before_the_first_start() {
    # Neither mount point is in the image.
    docker create --name vv -v /data/deep -v named:/other $IMG cat /data/deep/f /other/f >/dev/null
    echo one >f; docker cp f vv:/data/deep/f
    echo two >f; docker cp f vv:/other/f
    docker cp vv:/other/f back
    eq "$(cat back)" two
    eq "$(docker start -a vv)" $'one\ntwo'
    docker rm -v vv >/dev/null; docker volume rm named >/dev/null
}
