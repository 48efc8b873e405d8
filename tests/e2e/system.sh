# version, info, ping, prune, negotiation.

test_version() {
    ok docker version --format '{{.Server.Os}} {{.Server.Arch}} {{.Server.APIVersion}}'
    matches "$OUT" '^linux [a-z0-9]+ 1\.[0-9]+$'
    legacy || { matches "$OUT" '1\.50$'; eq "$(docker version -f '{{.Server.MinAPIVersion}}')" 1.24; }
}

test_ping() {
    headers=$(curl -sS -i --unix-socket "${DOCKER_HOST#unix://}" http://d/_ping | tr -d '\r')
    for header in api-version docker-experimental ostype server; do matches "${headers,,}" "$header: "; done
    has "$headers" $'\n\nOK'
    eq "$(curl -sS -I --unix-socket "${DOCKER_HOST#unix://}" http://d/_ping | head -n 1 | tr -d '\r')" 'HTTP/1.1 200 OK'
}

test_every_version_answers() {
    for minor in 24 30 35 40 41; do
        api GET /v1.$minor/info
        eq "$CODE" 200
        api GET /v1.$minor/containers/json
        eq "$CODE" 200
        eq "$(DOCKER_API_VERSION=1.$minor docker run --rm $IMG echo $minor)" $minor
    done
}

test_info() {
    docker create --name i1 $IMG true >/dev/null
    ok docker info --format '{{.Containers}} {{.ContainersStopped}} {{.Images}} {{.Driver}} {{.NCPU}} {{.OSType}}'
    matches "$OUT" "^1 1 [1-9][0-9]* overlay2? $(nproc) linux$"
    ok docker info
    has "$OUT" 'Server Version:'
    hasnt "$ERR" 'failed to get'
}

test_container_prune() {
    docker run --name done -l a=1 $IMG true
    docker create --name new $IMG true >/dev/null
    docker run -d --name runs $IMG sleep 60 >/dev/null
    docker container prune -f --filter label=a=2 >/dev/null
    eq "$(docker ps -aq | wc -l)" 3
    id=$(ins done '{{.Id}}')
    ok docker container prune -f
    has "$OUT" "$id"
    eq "$(docker ps -a --format '{{.Names}}')" runs
}

test_system_prune() {
    docker run --name done $IMG true
    ok docker system prune -f
    has "$OUT" 'Deleted Containers'
    ok docker image inspect $IMG
}

test_concurrent_clients() {
    pids=()
    for _ in $(seq 20); do docker ps -a >/dev/null & pids+=($!); done
    for pid in "${pids[@]}"; do wait "$pid"; done
}

test_connection_is_kept() {
    socket=${DOCKER_HOST#unix://}
    eq "$(curl -sS -v --unix-socket "$socket" http://d/_ping http://d/_ping http://d/version 2>&1 >/dev/null | grep -ci 're-using\|reusing')" 2
}

test_garbage_does_no_harm() {
    socket=${DOCKER_HOST#unix://}
    python3 - "$socket" <<'PY'
import socket, sys
for blob in [b"\x00" * 100, b"GET\r\n\r\n", b"POST /containers/create HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
             b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"POST /build HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]:
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(2)
    try:
        s.sendall(blob); s.shutdown(socket.SHUT_WR)
        while s.recv(65536): pass
    except OSError: pass
    s.close()
PY
    ok docker ps
}
