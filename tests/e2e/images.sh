# Images: load, save, tag, rmi, ls, inspect, history, prune.

test_load_prints_the_tag() {
    mkdir r; echo 1 >r/f
    image_archive "$T/i.tar" one:1 r '{"Cmd":["x"]}'
    eq "$(docker load -i i.tar)" 'Loaded image: one:1'
    eq "$(docker load <i.tar)" 'Loaded image: one:1'
    docker rmi one:1 >/dev/null
}

test_save_gives_back_the_same_layers() {
    docker save -o saved.tar $IMG
    mkdir x; tar -C x -xf saved.tar
    config=x/$(sed 's/.*"Config":"\([^"]*\)".*/\1/' x/manifest.json)
    eq "sha256:$(sha256sum <"$config" | cut -d' ' -f1)" "$(docker image inspect -f '{{.Id}}' $IMG)" 'the config is byte-identical'
    layer=x/$(sed 's/.*"Layers":\["\([^"]*\)".*/\1/' x/manifest.json)
    eq "sha256:$(sha256sum <"$layer" | cut -d' ' -f1)" "$(docker image inspect -f '{{index .RootFS.Layers 0}}' $IMG)" 'the layer is byte-identical'
    has "$(cat x/manifest.json)" "\"RepoTags\":[\"$IMG:latest\"]"
}

test_save_has_an_oci_layout_too() {
    legacy && return 0
    docker save $IMG | tar -x --one-top-level=x
    has "$(cat x/oci-layout)" imageLayoutVersion
    digest=$(sed 's/.*"digest":"sha256:\([0-9a-f]*\)".*/\1/' x/index.json)
    eq "$(sha256sum <"x/blobs/sha256/$digest" | cut -d' ' -f1)" "$digest"
}

test_save_load_round_trip() {
    docker tag $IMG trip:1
    docker save trip:1 >t.tar
    id=$(docker image inspect -f '{{.Id}}' trip:1)
    docker rmi trip:1 >/dev/null
    docker load -q -i t.tar >/dev/null
    eq "$(docker image inspect -f '{{.Id}}' trip:1)" "$id"
    docker rmi trip:1 >/dev/null
}

test_save_many_and_gzip_load() {
    docker tag $IMG many:1; docker tag $IMG many:2
    docker save many:1 many:2 | gzip -1 >m.tgz
    docker rmi many:1 many:2 >/dev/null
    ok docker load -i m.tgz
    has "$OUT" 'Loaded image: many:1'
    has "$OUT" 'Loaded image: many:2'
    docker rmi many:1 many:2 >/dev/null
}

test_hard_links_devices_xattrs_survive() {
    mkdir -p r/bin; cp "$(busybox_static)" r/bin/busybox; ln r/bin/busybox r/bin/sh; ln -s /abs r/link
    ln r/bin/busybox r/bin/stat; ln r/bin/busybox r/bin/cat
    mknod r/null c 1 3; mkfifo r/pipe; chmod 4755 r/bin/busybox; chown 7:8 r/link -h
    printf 'long name' >"r/$(printf 'n%.0s' $(seq 150))"
    image_archive "$T/i.tar" odd:1 r '{"Cmd":["sh"]}'
    want=$(tar -xOf i.tar manifest.json | sed 's/.*"Layers":\["\([^"]*\)".*/\1/')
    want=$(tar -xOf i.tar "$want" | sha256sum)
    docker load -q -i i.tar >/dev/null
    eq "$(docker run --rm odd:1 stat -c '%F %t:%T' /null)" 'character special file 1:3'
    eq "$(docker run --rm odd:1 stat -c '%h %a' /bin/sh)" '4 4755'
    docker save odd:1 >o.tar
    got=$(tar -xOf o.tar manifest.json | sed 's/.*"Layers":\["\([^"]*\)".*/\1/')
    eq "$(tar -xOf o.tar "$got" | sha256sum)" "$want"
    docker rmi odd:1 >/dev/null
}

test_tag_and_untag() {
    docker tag $IMG reg.example:5000/team/app:v1
    has "$(docker images --format '{{.Repository}}:{{.Tag}}')" reg.example:5000/team/app:v1
    ok docker rmi reg.example:5000/team/app:v1
    eq "$OUT" 'Untagged: reg.example:5000/team/app:v1'
    ok docker run --rm $IMG true
    fails 1 docker tag $IMG 'BAD NAME'
    fails 1 docker tag ghost:1 x:1
    has "$ERR" 'No such image: ghost:1'
}

test_tag_moves() {
    mkdir r; echo 1 >r/f; image_archive "$T/i.tar" mv:1 r; docker load -q -i i.tar >/dev/null
    old=$(docker image inspect -f '{{.Id}}' mv:1)
    docker tag $IMG mv:1
    ne "$(docker image inspect -f '{{.Id}}' mv:1)" "$old"
    has "$(docker images --no-trunc -f dangling=true -q)" "$old"
    docker rmi mv:1 "$old" >/dev/null
}

test_rmi_of_a_used_image() {
    docker tag $IMG used:1
    docker create --name c1 used:1 true >/dev/null
    ok docker rmi used:1
    mkimage owned '{"Cmd":["true"]}' unique=owned
    docker create --name c2 owned >/dev/null
    fails 1 docker rmi owned
    has "$ERR" 'conflict: unable to remove repository reference "owned" (must force) - container'
    id=$(docker image inspect -f '{{.Id}}' owned)
    fails 1 docker rmi "${id:7:12}"
    has "$ERR" 'conflict: unable to delete'
    docker rm c2 >/dev/null
    ok docker rmi owned
    has "$OUT" 'Untagged: owned:latest'
    has "$OUT" "Deleted: $id"
}

test_rmi_by_id_with_two_tags() {
    mkimage two '{"Cmd":["true"]}' unique=two
    docker tag two two:b
    id=$(docker image inspect -f '{{.Id}}' two)
    fails 1 docker rmi "$id"
    has "$ERR" 'must be forced'
    ok docker rmi -f "$id"
    fails 1 docker image inspect two:b
}

test_ls_filters() {
    mkimage filt:1 '{"Cmd":["true"],"Labels":{"k":"v"}}' unique=filt
    docker tag filt:1 filt:2
    refs() { docker images --format '{{.Repository}}:{{.Tag}}' "$@" | sort | tr '\n' ' '; }
    eq "$(refs filt)" 'filt:1 filt:2 '
    eq "$(refs filt:1)" 'filt:1 '
    eq "$(refs -f reference='fil*:2')" 'filt:2 '
    eq "$(refs -f label=k=v)" 'filt:1 filt:2 '
    eq "$(refs -f label=none)" ''
    hasnt "$(refs -f dangling=true)" filt
    eq "$(refs -f since=$IMG filt)" 'filt:1 filt:2 '
    eq "$(docker images -q filt | sort -u | wc -l)" 1
    fails 1 docker images -f nonsense=1
    docker rmi filt:1 filt:2 >/dev/null
}

test_inspect_fields() {
    ok docker image inspect $IMG
    for field in Id RepoTags RepoDigests Parent Comment Created Author Config Architecture Os Size GraphDriver RootFS Metadata; do
        has "$OUT" "\"$field\""
    done
    legacy || eq "$(docker image inspect -f '{{.Created}}' $IMG)" 2023-11-14T22:13:20Z
    id=$(docker image inspect -f '{{.Id}}' $IMG)
    eq "$(docker image inspect -f '{{.Id}}' "${id#sha256:}")" "$id"
    eq "$(docker image inspect -f '{{.Id}}' "${id:7:12}")" "$id"
    fails 1 docker image inspect ghost
    has "$ERR" 'No such image: ghost'
}

test_history() {
    ok docker history --no-trunc --format '{{.CreatedBy}}' $IMG
    eq "$OUT" 'test image'
}

test_prune() {
    mkimage gone '{"Cmd":["true"]}' unique=gone
    id=$(docker image inspect -f '{{.Id}}' gone)
    docker tag $IMG gone:latest
    ok docker image prune -f
    has "$OUT" "deleted: $id"
    fails 1 docker image inspect "$id"
    docker rmi gone >/dev/null
    mkimage unused '{"Cmd":["true"]}' unique=unused
    docker create --name keep $IMG true >/dev/null
    ok docker image prune -af
    has "$OUT" 'untagged: unused:latest'
    ok docker image inspect $IMG
}

test_truncated_archive() {
    head -c 700000 "$(busybox_archive)" >cut.tar
    run docker load -i cut.tar
    ne "$RC" 0
    # The daemon's answer is 200 with an error in it, as docker's: SDKs look for that.
    CODE=$(curl -sS --unix-socket "${DOCKER_HOST#unix://}" -H 'Content-Type: application/x-tar' --data-binary abc \
        -o reply -w '%{http_code}' http://d/images/load)
    eq "$CODE" 200
    has "$(cat reply)" '"errorDetail":{"message":'
    ok docker run --rm $IMG true
}

test_corrupt_layer() {
    mkdir -p r w; head -c 200000 /dev/urandom >r/f
    image_archive "$T/i.tar" corrupt:1 r
    tar -C w -xf i.tar
    layer=$(find w -name layer.tar); printf X | dd of="$layer" bs=1 seek=100000 conv=notrunc 2>/dev/null
    tar -C w -cf bad.tar .
    run docker load -i bad.tar
    ne "$RC" 0
    fails 1 docker image inspect corrupt:1
}

# evil TAG PYTHON: an image of one hand-made layer; loading it must not touch the host.
evil() {
    mkdir -p r; python3 - "$2" <<'PY'
import sys, tarfile, io
t = tarfile.open("layer.tar", "w", format=tarfile.GNU_FORMAT)
def add(name, kind=tarfile.REGTYPE, link="", data=b"evil"):
    i = tarfile.TarInfo(name); i.type = kind; i.linkname = link
    i.size = len(data) if kind == tarfile.REGTYPE else 0
    t.addfile(i, io.BytesIO(data) if i.size else None)
exec(sys.argv[1])
t.close()
PY
    rm -rf w; mkdir -p w/l; mv layer.tar w/l/layer.tar
    diff=$(sha256sum <w/l/layer.tar | cut -d' ' -f1)
    printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$(image_arch)" "$diff" >w/c.json
    printf '[{"Config":"c.json","RepoTags":["%s"],"Layers":["l/layer.tar"]}]' "$1" >w/manifest.json
    tar -C w -cf evil.tar manifest.json c.json l
    run docker load -i evil.tar
    docker rmi -f "$1" >/dev/null 2>&1 || true
    ok docker run --rm $IMG true
}

test_layers_that_want_out() {
    name=kraud-e2e-evil-$$
    evil e1:1 "add('../../../../../../../../../tmp/$name')"
    evil e2:1 "add('/tmp/$name')"
    evil e3:1 "add('l', tarfile.SYMTYPE, '/tmp'); add('l/$name')"
    evil e4:1 "add('l', tarfile.SYMTYPE, '../../../../../../../../tmp'); add('l/$name')"
    evil e5:1 "add('h', tarfile.LNKTYPE, '/etc/passwd'); add('h')"
    evil e6:1 "add('h', tarfile.LNKTYPE, '../../../../../../../../etc/passwd')"
    evil e7:1 "add('.wh...'); add('.wh..'); add('.wh.')"
    [ ! -e "/tmp/$name" ] || { rm -f "/tmp/$name"; fail 'written outside'; }
    hasnt "$(cat /etc/passwd)" evil
}

test_whiteouts() {
    docker run --name c1 $IMG sh -c 'rm -rf /var/spool; rm /etc/group; mkdir /etc/new' >/dev/null
    docker commit c1 white:1 >/dev/null
    docker save white:1 >w.tar
    docker rm c1 >/dev/null; docker rmi white:1 >/dev/null
    docker load -q -i w.tar >/dev/null
    eq "$(docker run --rm white:1 sh -c 'ls -d /var/spool /etc/group 2>/dev/null; ls -d /etc/new')" /etc/new
    docker rmi white:1 >/dev/null
}

test_load_oci_layout() {
    legacy && return 0
    mkdir -p o/blobs/sha256 r; echo oci >r/f
    blob() { local d; d=$(sha256sum <"$1" | cut -d' ' -f1); mv "$1" "o/blobs/sha256/$d"; echo "$d"; }
    tar -C r -cf l.tar .; diff=$(sha256sum <l.tar | cut -d' ' -f1); gzip -n l.tar
    size=$(stat -c %s l.tar.gz); layer=$(blob l.tar.gz)
    printf '{"architecture":"%s","os":"linux","config":{"Cmd":["x"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' "$(image_arch)" "$diff" >c
    csize=$(stat -c %s c); config=$(blob c)
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' "$config" "$csize" "$layer" "$size" >m
    msize=$(stat -c %s m); manifest=$(blob m)
    printf '{"imageLayoutVersion":"1.0.0"}' >o/oci-layout
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"docker.io/library/fromoci:1","org.opencontainers.image.ref.name":"1"}}]}' "$manifest" "$msize" >o/index.json
    tar -C o -cf o.tar .
    ok docker load -i o.tar
    has "$OUT" 'fromoci:1'
    docker create --name c1 fromoci:1 >/dev/null
    eq "$(docker cp c1:/f - | tar -xO)" oci
    docker rm c1 >/dev/null; docker rmi fromoci:1 >/dev/null
}

test_df_counts() {
    ok docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}} {{.Size}}'
    matches "$OUT" $'Images [1-9][0-9]* 0 [0-9.]+[kMG]B'
    docker create --name c1 -v dfvol:/x $IMG true >/dev/null
    ok docker system df --format '{{.Type}} {{.TotalCount}} {{.Active}}'
    has "$OUT" 'Containers 1 0'
    has "$OUT" 'Local Volumes 1 1'
    ok docker system df -v
    has "$OUT" dfvol
    docker rm c1 >/dev/null; docker volume rm dfvol >/dev/null
}
