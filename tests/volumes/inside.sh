# Volumes are file systems like any other: fsx and pjdfstest find in them what they find in the bare file system, and
# fio's checksums hold through snapshots, rollbacks and clones.

tool() { [ -x "$KRAUD_TOOLS/bin/$1" ] || fail "no $KRAUD_TOOLS/bin/$1: cargo install --locked --root $KRAUD_TOOLS $1"; }

# with_tools SOURCE COMMAND…: in a container that has SOURCE (a volume or a directory) at /v and the machine's
# libraries and tools.
with_tools() {
    local source=$1 lib; shift
    local -a libs=()
    for lib in /lib /lib64 /usr/lib; do [ ! -e $lib ] || libs+=(-v "$(readlink -f $lib):$lib:ro"); done
    docker run --rm --privileged -v "$source:/v" -v "$KRAUD_TOOLS/bin:/tools:ro" -v /usr/bin/fio:/fio:ro -v /usr/bin/sleep:/usr/local/bin/sleep:ro -v "$T:/t" "${libs[@]}" $IMG "$@"
}

# exercise SOURCE: random reads, writes, mappings, truncations and holes, each read compared with what was written.
exercise() {
    tool fsx
    cat >fsx.toml <<-EOF
	flen = 1048576
	[opsize]
	max = 65536
	[weights]
	close_open = 1.0
	invalidate = 1.0
	read = 10.0
	write = 10.0
	mapread = 5.0
	mapwrite = 5.0
	truncate = 3.0
	fsync = 0.2
	fdatasync = 0.2
	punch_hole = ${HOLES:-2.0}
	EOF
    for seed in ${SEEDS:-1 2}; do
        ok with_tools "$1" /tools/fsx -f /t/fsx.toml -N 4000 -S $seed -P /t "/v/fsx$seed"
    done
}

# posix SOURCE OUT: the names of pjdfstest's tests that fail there.
posix() {
    tool pjdfstest
    cat >pjdfstest.toml <<-EOF
	[features]
	posix_fallocate = {}
	rename_ctime = {}
	utime_now = {}
	utimensat = {}
	[settings]
	naptime = 0.02
	[dummy_auth]
	entries = [["nobody", "nogroup"], ["user", "user"]]
	EOF
    run with_tools "$1" /tools/pjdfstest -c /t/pjdfstest.toml -p /v
    printf '%s\n' "$OUT" "$ERR" | sed 's/\x1b\[[0-9;]*m//g' >"$2.log"
    # Where a file system's times are too coarse for these tests they fail or not, as it happens.
    { grep -oE '[a-z0-9_:]+ +FAILED$' "$2.log" | grep -vE "${COARSE:-^$}" || true; } | awk '{ print $1 }' | LC_ALL=C sort >"$2"
    # A run that did not come to its end has proved nothing.
    matches "$(cat "$2.log")" 'Summary: [0-9]+ failed'
    between "$(sed -n 's/^Summary:.* \([0-9]*\) passed.*/\1/p' "$2.log")" 200 100000
}

# like_bare VOLUME DIRECTORY: what fails in the volume is what fails in a directory of the bare file system.
like_bare() {
    exercise "$1"
    posix "$1" fails-in-volume
    exercise "$2"
    posix "$2" fails-bare
    diff fails-bare fails-in-volume || fail "pjdfstest: < fails in the bare file system, > fails in the volume"
}

# bare KIND: a file system of its own, mounted at $T/bare.
bare() {
    truncate -s 1G "$T/bare.img"
    "mkfs.$1" -q "$T/bare.img" >/dev/null 2>&1
    mkdir "$T/bare"
    mount -o loop "$T/bare.img" "$T/bare"
    CLEANUP=bare_gone
}
bare_gone() { umount "$T/bare"; rm "$T/bare.img"; }

test_files_as_on_btrfs() {
    create data --size 1G
    bare btrfs
    like_bare data "$T/bare"
    create shared -c gfs --size 1G
    exercise shared
    posix shared fails-shared
    diff fails-bare fails-shared || fail "pjdfstest: < fails in the bare file system, > fails in the gfs volume"
}
test_block_as_ext4() {
    create data -c lv2 --size 1G
    bare ext4
    like_bare data "$T/bare"
}
test_block_on_a_mirror() {
    truncate -s 2G one two; HALVES=$(losetup -f --show one)\ $(losetup -f --show two)
    # shellcheck disable=SC2329
    mirror_gone() { losetup -d $HALVES; bare_gone; }
    CLEANUP=mirror_gone
    ok kraud pool create mirror --device "${HALVES% *}" --device "${HALVES#* }" --mirror
    create data -c lv1 --pool mirror --size 1G
    truncate -s 1G "$T/bare.img"; mkfs.ext4 -q "$T/bare.img"; mkdir "$T/bare"; mount -o loop "$T/bare.img" "$T/bare"
    SEEDS=1 like_bare data "$T/bare"
    ok kra volume rm data; ok kraud pool rm mirror
}
test_block_as_xfs() {
    create data -c lv2 --fs xfs --size 1G
    bare xfs
    like_bare data "$T/bare"
}
# zfs-fuse is a FUSE file system: its bare form is a data set beside kraud's.
test_files_as_on_zfs() {
    ok kraud pool create zed --engine zfs --size 2G --file "$D/zed.img"
    create data --pool zed --size 1G
    truncate -s 1G "$D/bare.img"
    zpool create -m "$T/bare" barepool "$D/bare.img"
    CLEANUP="umount -l $T/bare"
    SEEDS=1 HOLES=0.0 COARSE='time|preserve_metadata|utimensat|open_trunc|to_multiply_linked|updates_link_parent' like_bare data "$T/bare"
    kra volume rm data >/dev/null; ok kraud pool rm zed
}

# fio_in SOURCE MODE…: fio's own checksums in every block it writes.
fio_in() {
    local source=$1; shift
    ok with_tools "$source" /fio --name=blocks --filename=/v/blocks --size=24m --bsrange=4k-64k --rw=randwrite --ioengine=psync \
        --verify=crc32c --verify_fatal=1 --randseed="$SEED" --norandommap=0 --fallocate=none --output-format=terse "$@"
}
written() { SEED=$1 fio_in "$2" --do_verify=0 --end_fsync=1; }
# Verifies what a run with this seed wrote, without writing.
verified() { SEED=$1 fio_in "$2" --verify_only; }
sum() { in_volume "$1" 'sha256sum </v/blocks'; }

# checked CLASS OPTIONS…: content goes through snapshots, rollbacks and clones, under checksums of its own.
checked() {
    local first second
    create data -c "$@" --size 320M
    written 11 data; snap data first; first=$(sum data)
    written 22 data; snap data second; second=$(sum data)
    ne "$first" "$second"
    verified 22 data
    kra volume rollback data first >/dev/null; verified 11 data; eq "$(sum data)" "$first"
    kra volume clone data@second copy >/dev/null; verified 22 copy; eq "$(sum copy)" "$second"
    written 33 copy; verified 33 copy
    verified 11 data
    kra volume rollback data second >/dev/null; verified 22 data; eq "$(sum data)" "$second"
    # While fio writes, snapshots are taken; each can be read, and fio finds what it wrote.
    SEED=44 fio_in data --do_verify=1 --loops=2 & local pid=$!
    for _ in 1 2 3 4; do snap data; sleep 0.3; done
    wait $pid
    for name in $(snapshots data); do ok docker run --rm -v "data@$name:/v:ro" $IMG sh -c 'sha256sum /v/blocks >/dev/null'; done
    kra volume rollback data first >/dev/null; verified 11 data; eq "$(sum data)" "$first"
    verified 33 copy
    ok kra volume rm data copy
}
test_checksums_files() { checked nfs; checked gfs; }
test_checksums_block() { checked lv2; checked lv2 --fs xfs; }
test_checksums_zfs() {
    ok kraud pool create zed --engine zfs --size 2G --file "$D/zed.img"
    checked nfs --pool zed
    checked lv2 --pool zed
    ok kraud pool rm zed
}

# A raw device, which no file system of kraud's looks after.
test_checksums_raw() {
    create data -c lv2 --fs raw --size 32M
    raw() { docker run --rm -v data:/ignored $IMG sh -c "$1"; }
    raw 'head -c 20000000 /dev/urandom >/tmp/x; dd if=/tmp/x of=/dev/volumes/data bs=64k conv=fsync 2>/dev/null; sha256sum </tmp/x' >want
    read_back() { raw 'head -c 20000000 /dev/volumes/data | sha256sum'; }
    eq "$(read_back)" "$(<want)"
    snap data one
    raw 'dd if=/dev/zero of=/dev/volumes/data bs=64k count=300 conv=fsync 2>/dev/null'
    ne "$(read_back)" "$(<want)"
    kra volume clone data@one copy >/dev/null
    kra volume rollback data one >/dev/null
    eq "$(read_back)" "$(<want)"
    eq "$(docker run --rm -v copy:/ignored $IMG sh -c 'head -c 20000000 /dev/volumes/copy | sha256sum')" "$(<want)"
    ok kra volume resize data 48M
    eq "$(raw 'blockdev --getsize64 /dev/volumes/data')" 50331648
}

# What changed between two states, by whatever a volume is kept on, and the same of the live volume while a container has it.
differs() {
    create data "$@"
    in_volume data 'cd /v; mkdir -p same old/in dir; echo 1 >same/file; echo 1 >old/in/file; echo 1 >touched; echo 1 >mode; echo 1 >"a name"; ln -s touched link; echo 1 >replaced; sync -f .'
    snap data one
    in_volume data 'cd /v; rm -r old; echo 2 >>touched; chmod 600 mode; chmod 700 dir; mkdir -p new/in; echo 1 >new/in/file; rm link; ln -s mode link; rm replaced; mkdir replaced; echo 1 >replaced/file; mv "a name" "another name"; sync -f .'
    snap data two
    local wanted='+ another name,+ new,+ new/in,+ new/in/file,+ replaced/file,- a name,- old,- old/in,- old/in/file,M dir,M link,M mode,M replaced,M touched'
    differences() {
        kra volume diff data "$@" -o json | $PYTHON -c 'import json, sys
print(",".join(sorted({"added": "+", "removed": "-", "changed": "M"}[c["kind"]] + " " + c["path"] for c in json.load(sys.stdin))))'
    }
    eq "$(differences one two)" "$wanted"
    docker run -d --name user -v data:/v $IMG sleep 1000 >/dev/null
    eq "$(differences one)" "$wanted"
    eq "$(differences two)" ''
    docker rm -f user >/dev/null
    ok kra volume rm data
}
test_differences_files() { differs --size 64M; }
test_differences_ext4() { differs -c lv2 --size 64M; }
test_differences_xfs() { differs -c lv2 --size 512M --fs xfs; }
