# Volumes: named, anonymous, bind mounts, image VOLUMEs, volumes-from.

test_create_ls_inspect_rm() {
    eq "$(docker volume create vv1)" vv1
    eq "$(docker volume create vv1)" vv1 'creating again is harmless'
    has "$(docker volume ls -q)" vv1
    eq "$(docker volume inspect -f '{{.Driver}} {{.Scope}}' vv1)" 'local local'
    [ -d "$(docker volume inspect -f '{{.Mountpoint}}' vv1)" ] || fail 'no directory'
    eq "$(docker volume rm vv1)" vv1
    fails 1 docker volume inspect vv1
    matches "$ERR" 'no such volume'
    fails 1 docker volume rm vv1
    ok docker volume rm -f vv1
    fails 1 docker volume create 'bad name'
    has "$ERR" 'includes invalid characters for a local volume name'
}

test_data_outlives_containers() {
    docker run --rm -v vdata:/d $IMG sh -c 'echo kept >/d/f'
    eq "$(docker run --rm -v vdata:/other $IMG cat /other/f)" kept
    docker volume rm vdata >/dev/null
}

test_read_only_and_nocopy() {
    docker volume create vro >/dev/null
    fails 1 docker run --rm -v vro:/d:ro $IMG touch /d/f
    has "$ERR" 'Read-only'
    eq "$(docker run --rm -v vro:/etc:nocopy $IMG ls /etc | grep -c passwd || true)" 0
    docker volume rm vro >/dev/null
}

test_filled_from_the_image() {
    eq "$(docker run --rm -v vfill:/home $IMG sh -c 'stat -c %u /home/user')" 1000
    docker run --rm -v vfill:/home $IMG sh -c 'rmdir /home/user; echo 1 >/home/mine'
    eq "$(docker run --rm -v vfill:/home $IMG ls /home)" mine 'filled only while empty'
    docker volume rm vfill >/dev/null
}

test_anonymous() {
    id=$(docker create -v /anon $IMG true)
    name=$(ins "$id" '{{(index .Mounts 0).Name}}')
    matches "$name" '^[0-9a-f]{64}$'
    docker rm "$id" >/dev/null
    has "$(docker volume ls -q)" "$name" 'kept without -v'
    docker volume rm "$name" >/dev/null
    id=$(docker create -v /anon $IMG true)
    name=$(ins "$id" '{{(index .Mounts 0).Name}}')
    docker rm -v "$id" >/dev/null
    hasnt "$(docker volume ls -q)" "$name"
}

test_image_volumes() {
    mkimage withvol '{"Cmd":["true"],"Volumes":{"/data":{}}}' data/seed=planted
    docker run -d --name c1 withvol sh -c 'echo x >>/data/seed; sleep 60' >/dev/null
    eq "$(ins c1 '{{len .Mounts}} {{(index .Mounts 0).Destination}} {{(index .Mounts 0).Type}}')" '1 /data volume'
    until_eq 5 plantedx docker exec c1 cat /data/seed
    docker rm -fv c1 >/dev/null
    eq "$(docker run --rm withvol cat /data/seed)" planted
    docker rmi withvol >/dev/null
}

test_volumes_from() {
    docker create --name donor -v vfrom:/a -v /b $IMG true >/dev/null
    docker run --rm --volumes-from donor $IMG sh -c 'echo 1 >/a/f; echo 2 >/b/f'
    eq "$(docker run --rm --volumes-from donor:ro $IMG sh -c 'cat /a/f /b/f; touch /a/x 2>/dev/null || echo ro' | tr '\n' ' ')" '1 2 ro '
    docker rm -v donor >/dev/null
    eq "$(docker run --rm -v vfrom:/x $IMG cat /x/f)" 1 'a named volume outlives rm -v'
    docker volume rm vfrom >/dev/null
}

test_bind() {
    mkdir host; echo 1 >host/f
    eq "$(docker run --rm -v "$T/host:/in" $IMG cat /in/f)" 1
    docker run --rm -v "$T/host:/in" $IMG sh -c 'echo 2 >/in/g'
    eq "$(cat host/g)" 2
    fails 1 docker run --rm -v "$T/host:/in:ro" $IMG touch /in/h
    eq "$(docker run --rm -v "$T/host/f:/file" $IMG cat /file)" 1 'a single file'
    docker run --rm -v "$T/made/by/daemon:/x" $IMG touch /x/f
    [ -e made/by/daemon/f ] || fail 'a missing source is made for -v'
    eq "$(docker run --rm --mount type=bind,src="$T/host",dst=/m,readonly $IMG cat /m/f)" 1
}

test_bind_inspect() {
    mkdir host
    id=$(docker create -v "$T/host:/in:ro" --mount type=tmpfs,dst=/t,tmpfs-size=1m $IMG true)
    eq "$(ins "$id" '{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}};{{end}}' | tr ';' '\n' | sort | tr '\n' ';')" ';bind /in false;tmpfs /t true;'
    eq "$(ins "$id" '{{json .HostConfig.Binds}}')" "[\"$T/host:/in:ro\"]"
}

test_propagation() {
    mkdir host
    id=$(docker create -v "$T/host:/in:rslave" $IMG true)
    eq "$(ins "$id" '{{(index .Mounts 0).Propagation}}')" rslave
}

test_mount_types() {
    ok docker run --rm --mount type=volume,src=vmt,dst=/v --mount type=tmpfs,dst=/t,tmpfs-size=1048576,tmpfs-mode=1750 $IMG sh -c 'stat -c %a /t; df -k /t | tail -n 1; touch /v/f'
    has "$OUT" 1750
    has "$OUT" 1024
    docker volume rm vmt >/dev/null
}

test_volume_in_use() {
    docker create --name c1 -v vuse:/d $IMG true >/dev/null
    fails 1 docker volume rm vuse
    has "$ERR" 'volume is in use'
    docker rm c1 >/dev/null
    docker volume rm vuse >/dev/null
}

test_labels_filters_prune() {
    docker volume create --label keep=yes vl1 >/dev/null
    docker volume create vl2 >/dev/null
    docker create --name c1 -v vl3:/d -v /anon $IMG true >/dev/null
    list() { docker volume ls -q "$@" | grep ^vl | tr '\n' ' '; }
    eq "$(list -f label=keep)" 'vl1 '
    eq "$(list -f name=vl)" 'vl1 vl2 vl3 '
    eq "$(list -f dangling=true)" 'vl1 vl2 '
    eq "$(list -f dangling=false)" 'vl3 '
    eq "$(list -f driver=local)" 'vl1 vl2 vl3 '
    fails 1 docker volume ls -f nonsense=1
    docker rm c1 >/dev/null
    legacy || { ok docker volume prune -f; eq "$(list)" 'vl1 vl2 vl3 ' 'only anonymous ones'; }
    local all=-af
    legacy && all=-f
    ok docker volume prune $all --filter label!=keep
    eq "$(list)" 'vl1 '
    ok docker volume prune $all
    eq "$(list)" ''
}

test_nested_mounts_in_order() {
    mkdir outer; mkdir outer/in
    eq "$(docker run --rm -v nest:/a/in -v "$T/outer:/a" $IMG sh -c 'touch /a/in/f; ls /a')" in
    [ ! -e outer/in/f ] || fail 'the inner volume was hidden by the outer'
    docker volume rm nest >/dev/null
}

test_duplicate_target() {
    fails 125 docker run --rm --mount type=volume,src=dup1,dst=/d --mount type=volume,src=dup2,dst=/d $IMG true
    has "$ERR" 'Duplicate mount point'
}

test_unknown_driver() {
    fails 1 docker volume create -d nosuchdriver vx
    matches "$ERR" nosuchdriver
}

test_volume_through_a_link_in_the_image() {
    mkimage linked '{"Cmd":["true"]}'
    docker run --name c1 $IMG ln -s /etc /link
    docker commit c1 linked:2 >/dev/null
    docker run --rm -v vlink:/link/sub linked:2 touch /link/sub/f
    [ ! -e /etc/sub ] || { rmdir /etc/sub 2>/dev/null; fail 'a link of the image was followed on the host'; }
    docker rm c1 >/dev/null; docker rmi linked linked:2 >/dev/null; docker volume rm vlink >/dev/null
}
