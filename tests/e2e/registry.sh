# pull and push against a real registry (Debian's docker-registry).

. "$REPO/tests/lib/registry.sh"

# with_registry [USER PASSWORD]: a registry for this test; it ends with it.
with_registry() {
    registry_start "$T/registry" "$@"
    trap 'registry_stop "$T/registry"; sweep' EXIT
}

test_push_and_pull() {
    with_registry
    id=$(docker image inspect -f '{{.Id}}' $IMG)
    docker tag $IMG "$REGISTRY/team/app:v1"
    ok docker push "$REGISTRY/team/app:v1"
    matches "$OUT" 'v1: digest: sha256:[0-9a-f]{64} size: [0-9]+'
    digest=$(sed -n 's/.*digest: \(sha256:[0-9a-f]*\) .*/\1/p' <<<"$OUT")
    docker rmi "$REGISTRY/team/app:v1" >/dev/null
    ok docker pull "$REGISTRY/team/app:v1"
    has "$OUT" "Digest: $digest"
    has "$OUT" "Status: Downloaded newer image for $REGISTRY/team/app:v1"
    eq "$(docker image inspect -f '{{.Id}}' "$REGISTRY/team/app:v1")" "$id"
    eq "$(docker image inspect -f '{{index .RepoDigests 0}}' "$REGISTRY/team/app:v1")" "$REGISTRY/team/app@$digest"
    ok docker pull "$REGISTRY/team/app:v1"
    has "$OUT" 'Status: Image is up to date'
    eq "$(docker run --rm "$REGISTRY/team/app:v1" echo pulled)" pulled
    docker rmi "$REGISTRY/team/app:v1" >/dev/null
    ok docker pull "$REGISTRY/team/app@$digest"
    ok docker run --rm "$REGISTRY/team/app@$digest" true
    docker rmi "$REGISTRY/team/app@$digest" >/dev/null
}

test_run_pulls_what_is_missing() {
    with_registry
    docker tag $IMG "$REGISTRY/app"; docker push -q "$REGISTRY/app" >/dev/null; docker rmi "$REGISTRY/app" >/dev/null
    eq "$(docker run --rm "$REGISTRY/app" echo yes 2>/dev/null)" yes
    docker rmi "$REGISTRY/app" >/dev/null
}

test_a_new_layer_only_is_sent() {
    with_registry
    docker tag $IMG "$REGISTRY/app:1"; docker push -q "$REGISTRY/app:1" >/dev/null
    docker run --name c1 $IMG touch /new
    docker commit c1 "$REGISTRY/app:2" >/dev/null
    ok docker push "$REGISTRY/app:2"
    matches "$OUT" 'Layer already exists'
    docker rm c1 >/dev/null
    docker rmi "$REGISTRY/app:1" "$REGISTRY/app:2" >/dev/null
    ok docker run --rm "$REGISTRY/app:2" ls /new
    docker rmi "$REGISTRY/app:2" >/dev/null
}

test_all_tags() {
    with_registry
    for n in 1 2; do docker tag $IMG "$REGISTRY/many:$n"; done
    ok docker push -a "$REGISTRY/many"
    docker rmi "$REGISTRY/many:1" "$REGISTRY/many:2" >/dev/null
    ok docker pull -a "$REGISTRY/many"
    docker rmi "$REGISTRY/many:1" "$REGISTRY/many:2" >/dev/null
}

test_login() {
    with_registry alice secret
    docker tag $IMG "$REGISTRY/private:1"
    fails 1 docker push "$REGISTRY/private:1"
    matches "$ERR$OUT" 'no basic auth credentials|unauthorized|authentication required'
    fails 1 docker login -u alice -p wrong "$REGISTRY"
    ok docker login -u alice -p secret "$REGISTRY"
    has "$OUT" 'Login Succeeded'
    ok docker push "$REGISTRY/private:1"
    docker rmi "$REGISTRY/private:1" >/dev/null
    ok docker pull "$REGISTRY/private:1"
    docker rmi "$REGISTRY/private:1" >/dev/null
    docker logout "$REGISTRY" >/dev/null
    fails 1 docker pull "$REGISTRY/private:1"
}

test_missing_things() {
    with_registry
    fails 1 docker pull "$REGISTRY/nothing:here"
    matches "$ERR" 'not found|manifest unknown'
    fails 125 docker run --rm "$REGISTRY/nothing:here" true
    fails 1 docker push "$REGISTRY/never-tagged:1"
    has "$OUT$ERR" 'does not exist locally'
    fails 1 docker pull localhost:1/nobody:home
    has "$ERR" 'connection refused'
}

test_multi_arch_index_and_zstd() {
    with_registry
    # Two platforms, of which only this machine's has a layer that can be run.
    python3 "$REPO/tests/lib/push_index.py" "$REGISTRY" multi 1 "$(image_arch)" "$KRAUD_TEST_CACHE/rootfs"
    ok docker pull "$REGISTRY/multi:1"
    eq "$(docker run --rm "$REGISTRY/multi:1" echo arch)" arch
    eq "$(docker image inspect -f '{{.Architecture}}' "$REGISTRY/multi:1")" "$(image_arch)"
    docker rmi "$REGISTRY/multi:1" >/dev/null
    if command -v zstd >/dev/null && ! legacy; then
        python3 "$REPO/tests/lib/push_index.py" "$REGISTRY" multi z "$(image_arch)" "$KRAUD_TEST_CACHE/rootfs" zstd
        ok docker pull "$REGISTRY/multi:z"
        eq "$(docker run --rm "$REGISTRY/multi:z" echo zstd)" zstd
        docker rmi "$REGISTRY/multi:z" >/dev/null
    fi
    fails 1 docker pull --platform linux/s390x "$REGISTRY/multi:1"
    matches "$ERR" 'no matching manifest for linux/s390x'
}

test_layer_that_lies_about_its_digest() {
    with_registry
    docker tag $IMG "$REGISTRY/lie:1"; docker push -q "$REGISTRY/lie:1" >/dev/null; docker rmi "$REGISTRY/lie:1" >/dev/null
    # Another image, so that the layer is not there yet.
    mkimage lie2 '{"Cmd":["true"]}' unique=lie2
    docker tag lie2 "$REGISTRY/lie:2"; docker push -q "$REGISTRY/lie:2" >/dev/null; docker rmi "$REGISTRY/lie:2" lie2 >/dev/null
    blob=$(find "$T/registry/data/docker/registry/v2/blobs" -name data -size +500k -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
    printf corrupt | dd of="$blob" bs=1 seek=300000 conv=notrunc 2>/dev/null
    run docker pull "$REGISTRY/lie:2"
    ne "$RC" 0
    fails 1 docker image inspect "$REGISTRY/lie:2"
}

test_parallel_pulls_of_one_image() {
    with_registry
    mkimage par '{"Cmd":["true"]}' unique=par
    docker tag par "$REGISTRY/par"; docker push -q "$REGISTRY/par" >/dev/null; docker rmi "$REGISTRY/par" par >/dev/null
    pids=()
    for _ in 1 2 3 4; do docker pull -q "$REGISTRY/par" >/dev/null & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid"; done
    ok docker run --rm "$REGISTRY/par" true
    docker rmi "$REGISTRY/par" >/dev/null
}
