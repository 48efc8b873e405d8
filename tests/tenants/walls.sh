# What a tenant cannot do: to the machine, and to others.

. "$E2E_SUITES/lib.sh"

test_what_is_not_offered() {
    tenant shop; image_for shop
    refused() { run as shop run --rm "$@"; ne "$RC" 0; has "$ERR" 'is not offered'; }
    refused --privileged "$IMG" true
    refused --network host "$IMG" true
    refused --pid host "$IMG" true
    refused --ipc host "$IMG" true
    refused --uts host "$IMG" true
    refused --userns host "$IMG" true
    refused --cgroupns host "$IMG" true
    refused -v /etc:/x "$IMG" true
    refused -v /:/x:ro "$IMG" true
    refused --mount type=bind,source=/etc,target=/x "$IMG" true
    refused --device /dev/null "$IMG" true
    refused --cap-add SYS_ADMIN "$IMG" true
    refused --cap-add ALL "$IMG" true
    refused --security-opt seccomp=unconfined "$IMG" true
    refused --security-opt systempaths=unconfined "$IMG" true
    refused --sysctl kernel.msgmax=1 "$IMG" true
    refused --cgroup-parent /x "$IMG" true
    refused --ulimit rtprio=50 "$IMG" true
    refused --ulimit nice=30 "$IMG" true
    refused --runtime runc "$IMG" true
    refused --annotation run.oci.hooks=x "$IMG" true
    run as shop network create -d macvlan m; has "$ERR" 'is not offered'
    run as shop network create -o com.docker.network.bridge.name=eth0 m; has "$ERR" 'is not offered'
    run as shop network create --subnet 8.8.8.0/24 m; has "$ERR" 'not private'
    run as shop volume create -o pool=default vol; has "$ERR" 'is not offered'
    run as shop pull localhost:5000/x; has "$ERR" 'is not offered'
    as shop run -d --name here "$IMG" sleep 1000 >/dev/null
    run as shop exec --privileged here true; has "$ERR" 'is not offered'
    run as shop update --cpu-rt-runtime 1 here; ne "$RC" 0
    https "$TOKEN" GET /kr/v1/pools; eq "$CODE" 403
    https "$TOKEN" POST /kr/v1/tenants -H 'Content-Type: application/json' -d '{"name":"mine"}'; eq "$CODE" 403
    # The operator still can.
    eq "$(docker run --rm --privileged -v /etc/hostname:/x:ro "$IMG" cat /x)" "$(cat /etc/hostname)"
}

test_apart() {
    tenant one; image_for one; tenant two; image_for two
    local name; for name in one two; do
        as $name run -d --name web -p 127.0.0.1::80 -v data:/data "$IMG" sh -c "echo $name >/data/who; exec httpd -f -p 80 -h /data" >/dev/null
        as $name network create inner >/dev/null
    done
    eq "$(as one ps --format '{{.Names}}')" web
    ne "$(as one ps -q --no-trunc)" "$(as two ps -q --no-trunc)"
    local theirs; theirs=$(as two ps -q --no-trunc)
    for what in "inspect $theirs" "logs $theirs" "stop $theirs" "rm $theirs" "exec $theirs true" "top $theirs" "cp $theirs:/etc/passwd -" "network inspect $(as two network inspect -f '{{.ID}}' inner)"; do
        # shellcheck disable=SC2086
        run as one $what; ne "$RC" 0
        matches "$ERR" '[Nn]o such|not found'
    done
    eq "$(as two inspect -f '{{.State.Running}}' web)" true
    eq "$(as one exec web cat /data/who; as two exec web cat /data/who)" $'one\ntwo'
    # Not by their networks, neither by name nor by address.
    local address; address=$(as two inspect -f '{{.NetworkSettings.IPAddress}}' web)
    eq "$(as one exec web sh -c "nc -w 2 $address 80 </dev/null; true" 2>&1)" 'nc: timed out'
    eq "$(as one network ls -q | wc -l) $(as one volume ls -q | wc -l) $(as one image ls -q | wc -l)" '4 1 1'
    # Nothing of it is seen in events, df and prune.
    timeout 3 env -u DOCKER_HOST docker --context one events --format '{{json .}}' >"$T/events" 2>&1 & local watching=$!
    sleep 0.7; as two restart -t 0 web >/dev/null; as two volume create theirs >/dev/null
    wait $watching || true
    eq "$(cat "$T/events")" ''
    eq "$(as one system df --format '{{.TotalCount}}' | tr '\n' ' ')" '1 1 1 0 '
    as one system prune -af --volumes >/dev/null
    eq "$(as two volume ls -q | sort | tr '\n' ' ')" 'data theirs '
    eq "$(as two image ls -q | wc -l)" 1
    eq "$(docker ps -q; docker volume ls -q)" ''
}

test_the_machine_is_out_of_reach() {
    tenant shop; image_for shop
    as shop run -d --name web -p 0:80 "$IMG" sh -c 'echo here >/index.html; exec httpd -f -p 80 -h /' >/dev/null
    as shop run -d --name client "$IMG" sleep 1000 >/dev/null
    local gateway port; gateway=$(as shop inspect -f '{{.NetworkSettings.Gateway}}' client)
    # try ADDRESS PORT: what answers.
    try() { as shop exec client sh -c "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 $1 $2; true" 2>&1 | tr -d '\r'; }
    python3 -m http.server 0 --bind 0.0.0.0 >"$T/server" 2>&1 & local server=$!
    wait_until 10 grep -q 'port [0-9]' "$T/server" || true
    port=$(ss -ltnpH | sed -n "s/.*:\([0-9]*\) .*pid=$server,.*/\1/p" | head -n 1)
    [ -n "$port" ] || fail "the host's service does not run"
    matches "$(curl -s "http://127.0.0.1:$port/" | head -c 20)" DOCTYPE
    eq "$(try "$gateway" "$port")" 'nc: timed out'
    eq "$(try "$gateway" "${KR_HOST##*:}")" 'nc: timed out'
    eq "$(try 169.254.169.254 80)" 'nc: timed out'
    # What is published is.
    has "$(try "$gateway" "$(as shop port web 80 | head -n 1 | sed 's/.*://')")" here
    as shop exec client ping -c 1 -W 2 "$gateway" >/dev/null
    kill $server
    # /proc and /sys, devices, mounts.
    fails_in() { run as shop exec client sh -c "$1"; [ "$RC" != 0 ] || fail "a tenant can: $1"; }
    fails_in 'echo x >/proc/sys/kernel/core_pattern'
    fails_in 'echo 1 >/proc/sys/vm/drop_caches'
    fails_in 'echo b >/proc/sysrq-trigger'
    fails_in 'mount -t tmpfs none /mnt'
    fails_in 'mknod /sda b 8 0 && head -c 1 /sda'
    fails_in 'for limit in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do [ ! -e $limit ] || echo 1000000000 >$limit || exit 1; done'
    fails_in 'hostname other'
    fails_in 'head -c 1 /proc/kcore'
}

# Root of a tenant is nobody on the machine, and on disk its files are root's all the same.
test_users_of_their_own() {
    tenant shop; image_for shop; local image=$IMG; tenant other; image_for other
    as shop run -d --name web --ipc shareable -v data:/data "$IMG" sleep 1000 >/dev/null
    as other run -d --name web "$IMG" sleep 1000 >/dev/null
    id_of() { awk '/^Uid/ { print $2 }' "/proc/$(as "$1" inspect -f '{{.State.Pid}}' web)/status"; }
    local first; first=$(id_of shop)
    [ "$first" -ge 1879048192 ] || fail "root of a tenant is user $first of the machine"
    ne "$first" "$(id_of other)"
    eq "$(as shop exec web cat /proc/self/uid_map | tr -s ' ')" " 0 $first 65536"
    as shop exec web sh -c 'id -u; adduser -D -u 1000 ada 2>/dev/null; mkdir /mine; for dir in /mine /data; do echo hi >$dir/file; chown 1000:1000 $dir/file; done; stat -c %u:%g /mine /mine/file /data /data/file /etc/hosts /dev/shm' >"$T/seen"
    eq "$(tr '\n' ' ' <"$T/seen")" '0 0:0 1000:1000 0:0 1000:1000 0:0 0:0 '
    has "$(as shop info -f '{{.SecurityOptions}}')" name=userns; hasnt "$(docker info -f '{{.SecurityOptions}}')" name=userns
    # On disk: the same, seen by the operator and by another container of theirs.
    local upper; upper=$KRAUD_TEST_DIR/data/containers/$(as shop inspect -f "{{.Id}}" web)/disk/upper
    eq "$(stat -c %u:%g "$upper/mine" "$upper/mine/file")" $'0:0\n1000:1000'
    eq "$(KR_ACCESS_TOKEN= as shop run --rm -v data:/x:ro "$IMG" stat -c %u:%g /x/file)" 1000:1000
    # Archives, of what runs and of what does not.
    owners() { tar -tv --numeric-owner -f - | awk '{ print $2, $NF }' | sed 's|^\([^ ]*\) .*/|\1 |' | sort | tr '\n' ' '; }
    mkdir "$T/in"; echo x >"$T/in/sent"; chown 7:8 "$T/in/sent"
    local state; for state in runs ended; do
        eq "$(as shop cp web:/mine - | owners)" '0/0  1000/1000 file '
        eq "$(as shop cp web:/data/file - | owners)" '1000/1000 file '
        has "$(as shop export web | tar -tv --numeric-owner -f - | tr -s ' ')" 'rw-r--r-- 1000/1000 3'
        tar -C "$T/in" --numeric-owner -cf - sent | as shop cp -a - web:/mine
        [ "$state" = ended ] || eq "$(as shop exec web stat -c %u:%g /mine/sent)" 7:8
        eq "$(stat -c %u:%g "$upper/mine/sent")" 7:8
        as shop cp "$T/in/sent" web:/data/copied; eq "$(as shop cp web:/data/copied - | owners)" '7/8 copied '
        rm "$upper/mine/sent" 2>/dev/null || true
        as shop stop -t 0 web >/dev/null
    done
    as shop start web >/dev/null
    as shop commit web made >/dev/null
    eq "$(as shop run --rm made stat -c %u:%g /mine /mine/file)" $'0:0\n1000:1000'
    # Streams can be opened again, by any user; names, ping and low ports work.
    eq "$(as shop run --rm -u 1000:1000 "$IMG" sh -c 'echo out >/dev/stdout; echo err >/dev/stderr; id -u' 2>&1 | sort | tr '\n' ' ')" '1000 err out '
    eq "$(echo in | as shop run -i --rm -u 1000 "$IMG" sh -c 'cat /dev/stdin')" in
    eq "$(as shop exec -u 1000 web sh -c 'echo out >/dev/stdout')" out
    eq "$(as shop run --rm -t "$IMG" sh -c 'echo tty >/dev/tty; id -u' | tr -d '\r' | tr '\n' ' ')" 'tty 0 '
    as shop run --rm "$IMG" ping -c 1 -W 2 127.0.0.1 >/dev/null
    as shop run --rm -u 1000 "$IMG" httpd -p 80 -h /
    # Pings without privileges; busybox does not know how.
    eq "$(as shop run --rm "$IMG" cat /proc/sys/net/ipv4/ping_group_range)" $'0\t65535'
    nsenter --net="$(as shop inspect -f '{{.NetworkSettings.SandboxKey}}' web)" python3 -c "import os, socket
os.setgroups([]); os.setgid($first + 6); os.setuid($first + 5); socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    # They share with one another.
    as shop exec web sh -c 'echo shared >/dev/shm/word'
    eq "$(as shop run --rm --ipc container:web --pid container:web --network container:web "$IMG" sh -c 'cat /dev/shm/word; ps | grep -c "[s]leep 1000"; ip -o link | grep -c eth0')" $'shared\n1\n1'
    as shop run --rm --ulimit nofile=512:1024 --ulimit core=0 --read-only --init --tmpfs /t:size=1m,uid=5 --sysctl net.core.somaxconn=99 "$IMG" \
        sh -c '[ "$(ulimit -n)/$(cat /proc/sys/net/core/somaxconn)" = 512/99 ] && touch /t/x && ! touch /x 2>/dev/null'
    # Block volumes, raw ones too: the node is theirs.
    as shop volume create -d lv2 -o size=64M disk >/dev/null; as shop volume create -d lv2 -o size=64M -o fs=raw raw >/dev/null
    eq "$(as shop run --rm -v disk:/disk -v raw:/raw "$IMG" sh -c 'touch /disk/x; stat -c %u /disk/x; node=$(ls /dev/volumes/*); echo hello | dd of=$node bs=512 conv=sync 2>/dev/null && head -c 5 $node')" $'0\nhello'
    # A device that an archive brings opens nothing.
    mkdir "$T/dev"; mknod "$T/dev/disk" b 7 0; mknod "$T/dev/mem" c 1 1
    tar -C "$T/dev" -cf - disk mem | as shop cp - web:/mine
    run as shop exec web head -c 1 /mine/disk; ne "$RC" 0; run as shop exec web head -c 1 /mine/mem; ne "$RC" 0
    # The shim, kraud and the processes of others are out of sight and reach.
    local shim; shim=$(pgrep -n kraud-shim)
    run as shop exec web sh -c "ls /proc/$shim 2>&1"; ne "$RC" 0
    run as shop exec web kill -9 "$shim"; ne "$RC" 0; run as shop exec web sh -c "echo x >/proc/$shim/mem"; ne "$RC" 0
    [ -d "/proc/$shim" ] || fail 'a tenant has ended a shim'
    # What is not needed while it runs is not kept; nothing is kept afterwards.
    local run; run=/run/kraud/instances/$(instance_of "$KRAUD_TEST_DIR/data")
    eq "$(ls "$run/users/$(as shop inspect -f '{{.Id}}' web)" | tr '\n' ' ')" 'root shm '
    eq "$(ls "$run/userns" | wc -l)" 2
    # Nobody else of the machine gets to their files.
    run setpriv --reuid 1234 --clear-groups ls "$run/users"; ne "$RC" 0
    run setpriv --reuid 1234 --clear-groups ls "$run/users/$(as shop inspect -f '{{.Id}}' web)/root"; ne "$RC" 0
    kraud tenant rm --force shop other >/dev/null
    eq "$(ls "$run/users" "$run/userns" | grep -vc : || true)" 1
}

test_paths_that_lead_out() {
    tenant shop; image_for shop
    as shop run -d --name box -v data:/data "$IMG" sh -c 'ln -s /etc/shadow /link; ln -s ../../../../../../etc /data/up; ln -s / /data/root; sleep 1000' >/dev/null
    wait_until 5 as shop exec box test -L /data/root
    # What the link names is the container's own.
    run as shop cp box:/link -; hasnt "$OUT" "$(head -n 1 /etc/shadow)"
    run as shop cp -L box:/link -; hasnt "$OUT" "$(head -n 1 /etc/shadow)"
    run as shop cp box:/data/up/hostname -; hasnt "$OUT" "$(cat /etc/hostname)"
    run as shop cp box:/../../../../../../etc/hostname -; hasnt "$OUT" "$(cat /etc/hostname)"
    export KR_ACCESS_TOKEN=$TOKEN
    run kra volume cp data:/up/hostname -; ne "$RC" 0
    run kra volume cp data:/root/etc/hostname -; ne "$RC" 0
    run kra volume cp data:../../../etc/hostname -; hasnt "$OUT" "$(cat /etc/hostname)"
    run as shop run --rm --mount type=volume,source=data,target=/x,volume-subpath=up "$IMG" cat /x/shadow; ne "$RC" 0
    run as shop run --rm --mount type=volume,source=data,target=/x,volume-subpath=../.. "$IMG" ls /x; ne "$RC" 0
    run as shop run --rm -v data/root:/x "$IMG" ls /x; ne "$RC" 0
    # A VOLUME of an image whose path is a link: what is filled in and mounted is the container's own.
    as shop run --name linked "$IMG" sh -c 'ln -s ../../../../../../etc /vol; ln -s /proc/1/root/etc /vol2' >/dev/null
    as shop commit --change 'VOLUME /vol' --change 'VOLUME /vol2' linked evil >/dev/null
    run as shop run --rm evil sh -c 'cat /vol/shadow /vol2/shadow /etc/shadow; echo hacked >/vol/kraud-was-here; echo hacked >/vol2/kraud-was-here'
    hasnt "$OUT" "$(head -n 1 /etc/shadow)"; [ ! -e /etc/kraud-was-here ] || fail 'a link in an image leads to the machine'
    # A name of a volume that is a path is none.
    run as shop volume create ../../etc; ne "$RC" 0
    run as shop run --rm -v ../../etc:/x "$IMG" ls /x; ne "$RC" 0
}

test_two_at_once() {
    ARCHIVE=$(busybox_archive) IMG=$IMG python3 "$E2E_SUITES/hammer.py" 20 || fail 'see above'
    eq "$(kraud tenant ls -q | grep -c '^hammer' || true)" 0
}

# A digest is no proof that one has the content.
test_layers_of_others() {
    tenant owner; image_for owner; tenant thief; image_for thief
    as owner run --name made "$IMG" sh -c 'echo "the secret" >/secret' >/dev/null
    as owner commit made private >/dev/null
    as owner save private -o "$T/private.tar"
    python3 - "$T/private.tar" "$T" <<-'PYTHON'
	import io, json, sys, tarfile
	source, out = sys.argv[1:]
	archive = tarfile.open(source)
	manifest = json.load(archive.extractfile("manifest.json"))[0]
	files = {name: archive.extractfile(name).read() for name in [manifest["Config"], *manifest["Layers"]]}
	empty = io.BytesIO()
	tarfile.open(fileobj=empty, mode="w").close()
	def write(name, layer):
	    with tarfile.open(f"{out}/{name}.tar", "w") as made:
	        blobs = {path: layer(path, content) for path, content in files.items()}
	        blobs["manifest.json"] = json.dumps([{**manifest, "RepoTags": ["stolen:latest"]}]).encode()
	        for path, content in blobs.items():
	            if content is not None:
	                entry = tarfile.TarInfo(path); entry.size = len(content)
	                made.addfile(entry, io.BytesIO(content))
	last = manifest["Layers"][-1]
	write("garbage", lambda path, content: b"x" * 1024 if path == last else content)
	write("empty", lambda path, content: empty.getvalue() if path == last else content)
	write("missing", lambda path, content: None if path == last else content)
	write("whole", lambda path, content: content)
	PYTHON
    local kind; for kind in garbage empty missing; do
        run as thief load -i "$T/$kind.tar"; ne "$RC" 0
        run as thief run --rm stolen cat /secret; ne "$RC" 0
    done
    eq "$(as thief image ls -q | sort -u | wc -l)" 1
    # Who has all of it may use it, and keeps it when the other's goes.
    as thief load -q -i "$T/whole.tar" >/dev/null
    kraud tenant rm --force owner >/dev/null
    eq "$(as thief run --rm stolen cat /secret)" 'the secret'
    # The operator's own loads are not read twice.
    docker load -q -i "$T/whole.tar" >/dev/null; docker rmi stolen >/dev/null
}

test_quotas() {
    tenant shop; image_for shop
    export KR_ACCESS_TOKEN=$TOKEN
    over() { ne "$RC" 0; has "$ERR" "the quota of shop is $1"; }
    ok kraud tenant quota shop containers=3 ports=2 snapshots=2 nfs=100M memory=64M cpus=0.5 pids=40
    as shop run -d --name one -p 127.0.0.1::80 -p 127.0.0.1::81 "$IMG" sleep 1000 >/dev/null
    run as shop run -d --name two -p 127.0.0.1::80 "$IMG" sleep 1000; over '2 published ports: 2 are in use'
    as shop create --name three "$IMG" true >/dev/null
    run as shop create --name four "$IMG" true; over '3 containers: 3 are in use, and 1 more'
    as shop rm two three >/dev/null
    # Twenty at once: as many as fit.
    seq 20 | xargs -P 10 -I{} env -u DOCKER_HOST docker --context shop create --name many{} "$IMG" true >/dev/null 2>&1 || true
    eq "$(as shop ps -aq | wc -l)" 3
    as shop ps -aq --filter name=many | xargs env -u DOCKER_HOST docker --context shop rm >/dev/null
    run as shop create --memory 1g "$IMG" true; over '67108864 bytes of memory'
    run as shop create --cpus 2 "$IMG" true; over '0.5 processors'
    run as shop update --memory 1g --memory-swap 1g one; over '67108864 bytes of memory'
    run as shop update --cpus 2 one; over '0.5 processors'
    # Volumes need a size then.
    run as shop volume create data; ne "$RC" 0; has "$ERR" 'needs a size'
    as shop volume create -o size=60M data >/dev/null
    run as shop volume create -o size=60M more; over '104857600 bytes of volumes of class nfs: 62914560 are in use'
    run kra volume resize data 200M; ne "$RC" 0; has "$ERR" 'the quota of shop'
    ok kra volume resize data 100M
    as shop volume create -d lv2 -o size=60M other >/dev/null
    ok kra volume snapshot create data one; ok kra volume snapshot create data two
    run kra volume snapshot create data three; over '2 snapshots'
    has "$(kra usage)" 'containers'
    eq "$(kra usage -o json | jq -c '[.containers, .ports, .snapshots, .volumes.nfs, .quota.containers]')" '[1,2,2,104857600,3]'
    # What all have together. A fork bomb ends at the quota, and memory too.
    as shop rm -f one >/dev/null
    as shop run -d --name bomb "$IMG" sh -c '(while :; do sleep 1000 & done); exec sleep 1000' >/dev/null 2>&1
    as shop run -d --name quiet "$IMG" sleep 1000 >/dev/null 2>&1 || true
    sleep 1
    between "$(kra usage -o json | jq .pids)" 20 40
    as shop rm -f bomb quiet >/dev/null
    run as shop run --name big --tmpfs /t:size=300m "$IMG" dd if=/dev/zero of=/t/x bs=1M count=200; ne "$RC" 0
    # A change is there at once, for what runs too.
    as shop run -d --name there "$IMG" sleep 1000 >/dev/null
    local group; group=$(find /sys/fs/cgroup -name pids.max -path "*/tenant-shop/pids.max" -path "*kraud-$(instance_of "$KRAUD_TEST_DIR/data")*")
    eq "$(cat "$group")" 40
    ok kraud tenant quota shop pids=50; eq "$(cat "$group")" 50
    # Reading is as fast as that and no faster: 8 MB, past the cache, at 4 MB a second.
    ok kraud tenant quota shop io=4M iops=4000
    has "$(kraud tenant quota shop)" 'disk operations/s'
    as shop exec there dd if=/dev/zero of=/slow bs=1M count=8 conv=fsync 2>/dev/null
    sync; echo 1 >/proc/sys/vm/drop_caches
    local begun; begun=$(date +%s%N); as shop exec there dd if=/slow of=/dev/null bs=1M 2>/dev/null
    between $((($(date +%s%N) - begun) / 1000000)) 1000 10000
    ok kraud tenant quota shop io=none iops=none
    echo 1 >/proc/sys/vm/drop_caches
    begun=$(date +%s%N); as shop exec there dd if=/slow of=/dev/null bs=1M 2>/dev/null
    between $((($(date +%s%N) - begun) / 1000000)) 0 900
    ok kraud tenant quota shop io=2M; as shop restart -t 0 there >/dev/null
    echo 1 >/proc/sys/vm/drop_caches
    begun=$(date +%s%N); as shop exec there dd if=/slow of=/dev/null bs=1M 2>/dev/null
    between $((($(date +%s%N) - begun) / 1000000)) 1000 20000
    ok kraud tenant quota shop io=none
    as shop rm -f there >/dev/null
    # The operator has no quota; without one nothing is limited.
    docker run --rm "$IMG" true
    ok kraud tenant quota shop containers=none ports=none snapshots=none nfs=none memory=none cpus=none pids=none
    as shop volume create free >/dev/null
    as shop rm -f big >/dev/null
    as shop run --rm "$IMG" true
    eq "$(cat "$group")" 8192
    run kraud tenant quota shop apples=3; ne "$RC" 0; has "$ERR" 'no quota for apples'
    run kraud tenant quota nosuch; ne "$RC" 0
    kraud tenant rm --force shop >/dev/null
    [ ! -e "$group" ] || fail "the control group of a tenant outlives it"
}

# What is written outside of volumes, and logs, have an end: in bytes and in files.
test_disk() {
    tenant shop; image_for shop
    export KR_ACCESS_TOKEN=$TOKEN
    used() { kra usage -o json | jq ".${1:-disk}"; }
    ok kraud tenant quota shop disk=64M
    as shop run -d --name box "$IMG" sleep 1000 >/dev/null
    eq "$(kra usage -o json | jq .quota.disk)" 67108864
    run as shop exec box dd if=/dev/zero of=/big bs=1M count=200; ne "$RC" 0; has "$ERR" 'uota exceeded'
    sync; between "$(used)" 50000000 67108864
    # Removing works when it is full, and makes room again.
    ok as shop exec box rm /big
    wait_until 20 as shop exec box dd if=/dev/zero of=/again bs=1M count=40 2>/dev/null
    as shop exec box rm /again
    # Files without content take room, too.
    local before; before=$(df --output=iused "$KRAUD_TEST_DIR/data" | tail -n 1)
    run as shop exec box sh -c 'mkdir /many && cd /many && i=0; while [ $i -lt 400 ]; do mkdir $i && (cd $i && seq 1000 | xargs touch) || exit 1; i=$((i+1)); done'; ne "$RC" 0; has "$ERR" 'uota exceeded'
    [ "$(df --output=iused "$KRAUD_TEST_DIR/data" | tail -n 1)" -lt $((before + 10000)) ] || fail "files of a tenant take the machine's inodes"
    # Full: a new container is refused with a reason or works; the old one can be removed.
    run as shop create --name other "$IMG" true; [ "$RC" = 0 ] || has "$ERR" 'disk quota'
    ok as shop rm -f box
    wait_until 20 as shop run --rm "$IMG" sh -c 'dd if=/dev/zero of=/x bs=1M count=40 2>/dev/null'
    # A log that would grow without an end: the container goes on, and what is logged stays whole.
    as shop run -d --name chatty --log-opt max-size=-1 "$IMG" sh -c 'yes "$(seq 200 | tr -d "\n")" | head -c 150000000; echo done >/dev/shm/done; sleep 1000' >/dev/null
    wait_until 60 as shop exec chatty test -e /dev/shm/done
    [ "$(used)" -le 67108864 ] || fail "a log is larger than the quota: $(used)"
    local log; log=$(as shop inspect -f '{{.LogPath}}' chatty)
    [ "$(stat -c %s "$log")" -lt 67108864 ] || fail "the log has $(stat -c %s "$log") bytes"
    # What is shown of it are whole lines.
    eq "$(as shop logs --tail 2000 chatty 2>/dev/null | sort -u)" "$(seq 200 | tr -d '\n')"
    as shop rm -f chatty other >/dev/null 2>&1 || true
    # The operator's containers have nothing to do with it.
    docker run --rm "$IMG" dd if=/dev/zero of=/x bs=1M count=80 2>/dev/null
    # It goes on with the same files after kraud is killed.
    wait_until 20 as shop run --name kept "$IMG" sh -c 'echo word >/word'
    daemon_restart; kra setup docker --name shop >/dev/null 2>&1
    eq "$(as shop cp kept:/word - | tar -xOf -)" word
    # What is used is known, and a limit holds, before anything is made again.
    between "$(used)" 1 67108864; ok kraud tenant quota shop disk=4M
    as shop start kept >/dev/null; as shop run -d --name fills "$IMG" sh -c 'dd if=/dev/zero of=/x bs=1M count=40; sleep 1000' >/dev/null
    sleep 2; sync; [ "$(used)" -le 5000000 ] || fail "a limit that was set after a restart does not hold: $(used)"
    as shop rm -f fills >/dev/null; ok kraud tenant quota shop disk=64M
    wait_until 10 as shop start -a kept
    ok kraud tenant quota shop disk=none; eq "$(kra usage -o json | jq .quota.disk)" 10737418240
    run kraud pool rm default; ne "$RC" 0; has "$ERR" 'files of containers of tenants: shop'
}

test_image_bytes() {
    tenant shop; image_for shop
    export KR_ACCESS_TOKEN=$TOKEN
    used() { kra usage -o json | jq .images; }
    local first; first=$(used); between "$first" 100000 20000000
    mkdir "$T/tree"; dd if=/dev/urandom of="$T/tree/data" bs=1M count=8 2>/dev/null
    tar -C "$T/tree" -cf "$T/big.tar" data
    ok kraud tenant quota shop images=$((first + 4000000))
    over() { ne "$RC" 0; has "$ERR$OUT" "the quota of shop is $((first + 4000000)) bytes of layers of images: $first are in use"; }
    run as shop import "$T/big.tar" big; over
    docker import "$T/big.tar" big >/dev/null; docker save big -o "$T/saved.tar"; docker rmi big >/dev/null
    run as shop load -i "$T/saved.tar"; over
    eq "$(used)" "$first"
    # Layers that were refused are not kept.
    eq "$(find "$KRAUD_TEST_DIR/data/layers" -name data -size +1M | wc -l)" 0
    # Many empty files are not little.
    mkdir "$T/many"; (cd "$T/many" && seq 3000 | xargs touch); tar -C "$T/many" -cf "$T/many.tar" .
    run as shop import "$T/many.tar" many; over
    as shop run --name writes "$IMG" dd if=/dev/urandom of=/data bs=1M count=8 2>/dev/null
    run as shop commit writes made; over
    as shop rm writes >/dev/null
    # What is there already counts once.
    image_for shop; as shop tag "$IMG" another; eq "$(used)" "$first"
    ok kraud tenant quota shop images=none
    as shop import "$T/big.tar" big >/dev/null; between "$(used)" $((first + 8000000)) $((first + 9000000))
    as shop rmi big >/dev/null; eq "$(used)" "$first"
}
