# A registry of one's own on loopback: Debian's docker-registry. Sourced after common.sh.

# registry_start DIR [USER PASSWORD]: sets REGISTRY to its address; with a user it wants a login.
registry_start() {
    local dir=$1 port auth= binary
    binary=${DOCKER_REGISTRY_BIN:-}
    [ -x "$binary" ] || binary=$(command -v docker-registry) || die "no docker-registry; see scripts/test.sh"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    mkdir -p "$dir"
    if [ $# -ge 3 ]; then
        python3 "$REPO/tests/lib/htpasswd.py" "$2" "$3" >"$dir/htpasswd"
        auth="auth: {htpasswd: {realm: test, path: $dir/htpasswd}}"
    fi
    cat >"$dir/config.yml" <<-END
	version: 0.1
	log: {level: warn}
	storage: {filesystem: {rootdirectory: $dir/data}, delete: {enabled: true}}
	http: {addr: "127.0.0.1:$port"}
	$auth
	END
    "$binary" serve "$dir/config.yml" >"$dir/log" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    disown
    REGISTRY=localhost:$port
    wait_until 10 curl -sS --noproxy '*' "http://$REGISTRY/v2/" || { cat "$dir/log" >&2; die "the registry does not answer"; }
}

registry_stop() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 0
    kill "$pid" 2>/dev/null
    wait_until 5 pid_gone "$pid" || kill -KILL "$pid"
    rm -rf "$1"
}
