# kra push: what is sent, what is kept, who may use what.

. "$E2E_SUITES/lib.sh"

test_only_what_changed() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    tree "$T/tree" 1 300; archive "$T/a.tar" app:1 "$T/tree"
    local size; size=$(stat -c %s "$T/a.tar")
    between "$(pushed sent_bytes "$T/a.tar")" $((size / 2)) "$size"
    eq "$(as shop run --rm app:1 sh -c 'cat /t*/f* | sha256sum')" "$(cat "$T"/tree/t*/f* | sha256sum)"
    # A rebuild: all times are new, one file has changed.
    echo 'something else' >"$T/tree/t3/f3"; archive "$T/b.tar" app:1 "$T/tree" -- 2000
    between "$(pushed sent_bytes "$T/b.tar")" 100 $((size / 500))
    eq "$(as shop run --rm app:1 cat /t3/f3)" 'something else'
    eq "$(as shop run --rm app:1 stat -c %Y /t5/f5)" 2000
    # Byte for byte the same image.
    as shop save app:1 | tar -xOf - manifest.json >"$T/manifest"
    python3 - "$T/b.tar" "$(as shop inspect -f '{{.Id}}' app:1)" <<-'PYTHON'
	import hashlib, json, sys, tarfile
	archive = tarfile.open(sys.argv[1])
	config = archive.extractfile(json.load(archive.extractfile("manifest.json"))[0]["Config"]).read()
	assert sys.argv[2] == "sha256:" + hashlib.sha256(config).hexdigest()
	PYTHON
    # Again: nothing.
    eq "$(kra push -o json --archive "$T/b.tar" | jq -c '.[0] | [.known, .sent_bytes, (.layers | length)]')" '[true,0,2]'
    has "$(kra push --archive "$T/b.tar" 2>&1)" 'app:1: there already'
    # A large file with something put in its middle.
    mkdir "$T/large"; head -c 20000000 /dev/urandom >"$T/large/blob"; archive "$T/c.tar" big:1 "$T/large"
    between "$(pushed sent_bytes "$T/c.tar")" 20000000 21000000
    python3 -c 'import sys; p = sys.argv[1]; d = open(p, "rb").read(); open(p, "wb").write(d[:9000000] + b"put in" + d[9000000:])' "$T/large/blob"
    archive "$T/d.tar" big:2 "$T/large"
    between "$(pushed sent_bytes "$T/d.tar")" 1000 600000
    eq "$(as shop run --rm big:2 sha256sum /blob | cut -c1-64)" "$(sha256sum <"$T/large/blob" | cut -c1-64)"
    # Chunks of another image of one's own are found, too.
    archive "$T/e.tar" third:1 "$T/tree" "$T/large" -- 7
    between "$(pushed sent_bytes "$T/e.tar")" 1000 600000
    # What was sent is kept only where the layers are.
    until_eq 10 0 sh -c 'find "$1" -type f | wc -l' - "$KRAUD_TEST_DIR/data/push"
}

test_forms() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    tree "$T/tree" 2 30; archive "$T/docker.tar" one:1 "$T/tree"
    gzip -k "$T/docker.tar"; zstd -q "$T/docker.tar"
    FORMAT=oci archive "$T/oci.tar" two:1 "$T/tree"; mkdir "$T/layout"; tar -C "$T/layout" -xf "$T/oci.tar"
    run kra push --archive "$T/docker.tar.gz"; eq "$RC" 0; matches "$OUT" 'one:1: sent [0-9.]+ MB of [0-9.]+ MB, [0-9.]+ s'
    eq "$(kra push -o json --archive "$T/docker.tar.zst" | jq '.[0].known')" true
    kra push --archive - <"$T/docker.tar" >/dev/null 2>&1
    kra push --archive "$T/oci.tar" >/dev/null 2>&1; eq "$(as shop run --rm two:1 ls /t3 | wc -l)" 2
    kra push --archive "$T/layout" --as three:x >/dev/null 2>&1
    eq "$(as shop images --format '{{.Repository}}:{{.Tag}}' | sort | tr '\n' ' ')" 'one:1 three:x two:1 '
    eq "$(as shop inspect -f '{{.Id}}' one:1)" "$(as shop inspect -f '{{.Id}}' two:1)"
    # From this machine's engine: here the operator's own kraud.
    docker load -q -i "$T/docker.tar" >/dev/null; docker tag one:1 local:1
    export KR_ENGINE=${OPERATOR#unix://}
    as shop rmi one:1 two:1 three:x >/dev/null
    run kra push local:1; eq "$RC" 0; has "$OUT" 'local:1: sent'
    eq "$(as shop run --rm local:1 ls /t3 | wc -l)" 2
    run kra push local:1; has "$OUT" 'there already'
    run kra push --engine "$T/none" local:1; eq "$RC" 6; has "$ERR" 'cannot connect to the engine at'
    run kra push nosuch:1; eq "$RC" 3; has "$ERR" 'no such image: nosuch:1'
    # The images of a project.
    if docker compose version >/dev/null 2>&1; then
        mkdir "$T/project"; printf 'name: shop\nservices:\n  web: { image: local:1 }\n  db: { image: not-here:1 }\n  built: { build: . }\n' >"$T/project/compose.yaml"
        docker tag one:1 shop-built; (cd "$T/project" && kra push) >"$T/out" 2>"$T/err"
        has "$(cat "$T/out")" 'local:1: there already'; has "$(cat "$T/out")" 'shop-built:latest: '; has "$(cat "$T/err")" 'not-here:1: not on this machine'
        run kra push -f "$T/nosuch.yaml"; eq "$RC" 2
        # Without the plugin the common part of compose is understood.
        (cd "$T/project" && DOCKER_CONFIG=$T/none kra push -o json | jq -c '[.[].image]') >"$T/out" 2>"$T/err"
        eq "$(cat "$T/out")" '["local:1","shop-built:latest"]'
        (cd "$T/project"; DOCKER_CONFIG=$T/none run kra up; eq "$RC" 2; has "$ERR" 'compose plugin')
    fi
    docker rmi one:1 local:1 shop-built:latest >/dev/null 2>&1 || true
    # What is no image.
    echo hello >"$T/junk"; run kra push --archive "$T/junk"; ne "$RC" 0
    run kra push --archive "$T/missing"; eq "$RC" 1; has "$ERR" 'No such file'
    head -c 20000 "$T/docker.tar" >"$T/cut"; run kra push --archive "$T/cut"; ne "$RC" 0
}

# What engines give out: layers in folders (old dockerd), and compressed ones of images that are called by their indexes
# (containerd's store). It is read once, and not again when the image is known.
test_engines() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    tree "$T/tree" 3 20; local form engine
    for form in docker oci; do
        FORMAT=$form archive "$T/$form.tar" "$form:1" "$T/tree" -- "$((1000 + ${#form}))"
        python3 "$E2E_SUITES/engine.py" "$T/$form.sock" "$T/$form.tar" >"$T/$form.log" & engine=$!
        wait_until 10 test -S "$T/$form.sock"
        run kra push --engine "$T/$form.sock" "$form:1"; eq "$RC" 0; has "$OUT" "$form:1: sent"
        eq "$(as shop run --rm "$form:1" sh -c 'cat /t*/f* | sha256sum')" "$(cat "$T"/tree/t*/f* | sha256sum)"
        run kra push --engine "$T/$form.sock" "$form:1"; eq "$RC" 0; has "$OUT" "$form:1: there already"
        eq "$(grep -c saved "$T/$form.log")" 1
        kill $engine; wait $engine || true
    done
}

# A push that is cut off goes on where it stopped; nothing of it is seen before.
test_interrupted() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    mkdir "$T/large"; head -c 60000000 /dev/urandom >"$T/large/blob"; archive "$T/a.tar" app:1 "$T/large"
    python3 "$E2E_SUITES/dribble.py" "$KR_HOST" 30000000 "$T/port" & local proxy=$!
    wait_until 10 test -s "$T/port"
    KR_HOST="https://127.0.0.1:$(cat "$T/port")" run kra push --archive "$T/a.tar"; ne "$RC" 0
    kill $proxy 2>/dev/null || true
    eq "$(as shop images -q)" ''
    local kept; kept=$(find "$KRAUD_TEST_DIR/data/push/shop" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }')
    between "$kept" 10000000 40000000
    # Over a crash, and by another program of theirs.
    daemon_restart; kra setup docker --name shop >/dev/null 2>&1
    between "$(pushed sent_bytes "$T/a.tar")" 15000000 $((63000000 - kept))
    eq "$(as shop run --rm app:1 sha256sum /blob | cut -c1-64)" "$(sha256sum <"$T/large/blob" | cut -c1-64)"
    until_eq 10 0 sh -c 'find "$1" -type f | wc -l' - "$KRAUD_TEST_DIR/data/push"
}

# Two builds of a tenant that have a new layer in common, at the same time.
test_two_at_once() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    local round; for round in 1 2 3; do
        mkdir "$T/common" "$T/a" "$T/b"; head -c 12000000 /dev/urandom >"$T/common/blob"; head -c 3000000 /dev/urandom >"$T/a/own"; echo b >"$T/b/own"
        archive "$T/a.tar" "a:$round" "$T/common" "$T/a"; archive "$T/b.tar" "b:$round" "$T/b" "$T/common"
        "$KRA" push --archive "$T/a.tar" >"$T/a.out" 2>&1 & local first=$!
        "$KRA" push --archive "$T/b.tar" >"$T/b.out" 2>&1 || { cat "$T/b.out"; fail 'the second push failed'; }
        wait $first || { cat "$T/a.out"; fail 'the first push failed'; }
        eq "$(as shop run --rm "a:$round" sha256sum /blob | cut -c1-64)" "$(sha256sum <"$T/common/blob" | cut -c1-64)"
        eq "$(as shop run --rm "b:$round" cat /own)" b
        rm -r "$T/common" "$T/a" "$T/b" "$T/a.tar" "$T/b.tar"
    done
    until_eq 10 0 sh -c 'find "$1" -type f | wc -l' - "$KRAUD_TEST_DIR/data/push"
}

# Nobody uses, or learns of, what only others have.
test_possession() {
    tenant owner; local owner=$TOKEN; tenant thief; local thief=$TOKEN
    mkdir "$T/secret"; head -c 3000000 /dev/urandom >"$T/secret/blob"; archive "$T/a.tar" private:1 "$T/secret"
    KR_ACCESS_TOKEN=$owner kra push --archive "$T/a.tar" >/dev/null 2>&1
    # The thief knows all digests and all hashes, and has not the content.
    python3 "$E2E_SUITES/liar.py" "$KR_HOST" "$thief" "$(as owner inspect -f '{{json .RootFS.Layers}}' private:1)" "$T/a.tar"
    eq "$(as thief images -q)" ''
    # Who has it sends all of it, though it is on the disk.
    between "$(KR_ACCESS_TOKEN=$thief pushed sent_bytes "$T/a.tar")" 3000000 5000000
    eq "$(as thief run --rm private:1 sha256sum /blob | cut -c1-64)" "$(sha256sum <"$T/secret/blob" | cut -c1-64)"
    until_eq 10 0 sh -c 'find "$1" -type f | wc -l' - "$KRAUD_TEST_DIR/data/push"
}

test_roles_and_quotas() {
    tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    mkdir "$T/large"; head -c 9000000 /dev/urandom >"$T/large/blob"; archive "$T/a.tar" app:1 "$T/large"
    local ci reader; ci=$(kra token create --role push -q); reader=$(kra token create --role reader -q)
    KR_ACCESS_TOKEN=$reader run kra push --archive "$T/a.tar"; eq "$RC" 5
    ok kraud tenant quota shop images=4M
    KR_ACCESS_TOKEN=$ci run kra push --archive "$T/a.tar"; eq "$RC" 5; matches "$ERR" 'quota of shop|room for'
    eq "$(as shop images -q)" ''
    # Layers that no image has yet count, too: of two of nine megabytes the second does not fit.
    ok kraud tenant quota shop images=14M
    head -c 9000000 /dev/urandom >"$T/large/blob2"; mkdir "$T/one" "$T/two"; mv "$T/large/blob2" "$T/two/"; cp "$T/large/blob" "$T/one/"
    archive "$T/both.tar" both:1 "$T/one" "$T/two"
    run kra push --archive "$T/both.tar"; eq "$RC" 5; matches "$ERR" 'quota of shop|room for'
    eq "$(as shop images -q)" ''
    # What was refused is in nobody's way.
    KR_ACCESS_TOKEN=$ci kra push --archive "$T/a.tar" >/dev/null 2>&1
    as shop run --rm app:1 test -s /blob
    # A tenant that goes leaves nothing that it had sent.
    mkdir -p "$KRAUD_TEST_DIR/data/push/shop"
    kraud tenant rm --force shop >/dev/null
    [ ! -e "$KRAUD_TEST_DIR/data/push/shop" ] || fail 'what a tenant sent outlives it'
}
