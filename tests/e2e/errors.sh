# Exit codes and messages of failed commands, as scripts match on them.

test_command_not_found_is_127() {
    fails 127 docker run --name nf $IMG no-such-command
    has "$ERR" 'no-such-command'
    has "$ERR" 'executable file not found in $PATH'
    eq "$(ins nf '{{.State.ExitCode}} {{.State.Status}}')" '127 created'
    fails 127 docker run --rm $IMG /no/such/path
    has "$ERR" 'no such file or directory'
}

test_not_executable_is_126() {
    fails 126 docker run --rm $IMG /etc/passwd
    has "$ERR" 'permission denied'
    fails 126 docker run --rm $IMG /tmp
}

test_daemon_refusal_is_125() {
    fails 125 docker run --rm --pull never no-such-image:tag true
    has "$ERR" 'No such image: no-such-image:tag'
}

test_killed_by_signal() {
    id=$(docker run -d $IMG sleep 60)
    docker kill -s KILL "$id" >/dev/null
    eq "$(docker wait "$id")" 137
}

test_name_conflict() {
    first=$(docker create --name taken $IMG true)
    fails 1 docker create --name taken $IMG true
    has "$ERR" "Conflict. The container name \"/taken\" is already in use by container \"$first\""
    fails 125 docker run --name taken $IMG true
}

test_invalid_name() {
    fails 1 docker create --name 'a b' $IMG true
    has "$ERR" 'Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'
}

test_no_such_container() {
    for verb in start stop kill restart pause unpause logs wait top rename port diff export; do
        case $verb in
            rename) fails 1 docker rename ghost other ;;
            *) fails 1 docker $verb ghost ;;
        esac
        has "$ERR" 'No such container: ghost'
    done
    fails 1 docker rm ghost
    has "$ERR" 'No such container: ghost'
    fails 1 docker inspect ghost
    matches "$ERR" 'No such object: ghost'
    fails 1 docker exec ghost true
    has "$ERR" 'No such container: ghost'
    legacy || ok docker rm -f ghost
}

test_rm_of_a_running_container() {
    id=$(docker run -d --name runs $IMG sleep 60)
    fails 1 docker rm runs
    legacy || has "$ERR" 'container is running: stop the container before removing or force remove'
    docker rm -f runs >/dev/null
    fails 1 docker inspect "$id"
}

test_exec_on_a_stopped_container() {
    id=$(docker create --name idle $IMG true)
    fails 1 docker exec idle true
    matches "$ERR" "[Cc]ontainer $id is not running"
}

test_pause_twice_and_kill_stopped() {
    docker run -d --name pp $IMG sleep 60 >/dev/null
    docker pause pp >/dev/null
    fails 1 docker pause pp
    has "$ERR" 'is already paused'
    docker unpause pp >/dev/null
    fails 1 docker unpause pp
    has "$ERR" 'is not paused'
    docker kill pp >/dev/null
    fails 1 docker kill pp
    has "$ERR" 'is not running'
}

test_malformed_json_is_400() {
    api POST /containers/create '{"Image":'
    legacy || eq "$CODE" 400
    has "$BODY" '"message"'
    api POST /containers/create '{"Image":17}'
    legacy || eq "$CODE" 400
}

test_unknown_fields_are_ignored() {
    api POST /containers/create '{"Image":"busybox","Cmd":["true"],"NoSuchField":{"a":[1]},"HostConfig":{"Whatever":1}}'
    eq "$CODE" 201
    has "$BODY" '"Id":"'
}

test_unknown_route_is_404() {
    api GET /no/such/route
    eq "$CODE" 404
    has "$BODY" '{"message":"page not found"}'
    api GET /v1.41/no/such/route
    eq "$CODE" 404
}

test_version_out_of_range() {
    api GET /v9.99/version
    eq "$CODE" 400
    has "$BODY" 'is too new. Maximum supported API version is'
    api GET /v1.1/version
    eq "$CODE" 400
    has "$BODY" 'is too old. Minimum supported API version is'
}

test_empty_command() {
    mkimage nocmd '{"Cmd":null}'
    fails 125 docker run --rm nocmd
    matches "$ERR" '[Nn]o command specified'
    docker rmi nocmd >/dev/null
}

test_port_in_use() {
    port=$(free_port)
    docker run -d -p "$port:80" $IMG sleep 60 >/dev/null
    fails 125 docker run -d --name second -p "$port:80" $IMG sleep 60
    has "$ERR" 'port is already allocated'
    eq "$(state second)" created
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

test_workdir_is_a_file() {
    run docker run --rm -w /etc/passwd $IMG true
    ne "$RC" 0
}

test_mount_source_missing() {
    fails 125 docker run --rm --mount type=bind,source=/no/such/source,target=/x $IMG true
    has "$ERR" 'bind source path does not exist: /no/such/source'
}

test_invalid_mount_target() {
    fails 125 docker run --rm -v vol:relative $IMG true
    has "$ERR" "mount path must be absolute"
}

test_limits_that_make_no_sense() {
    fails 125 docker run --rm --cpus 4096 $IMG true
    has "$ERR" 'ange of CPUs is from 0.01 to'
    fails 125 docker run --rm --restart always $IMG true
    fails 125 docker run --rm --memory 64m --memory-swap 32m $IMG true
    has "$ERR" 'Minimum memoryswap limit should be larger than memory limit'
    fails 125 docker run --rm --cpuset-cpus 999 $IMG true
}

# What a create refuses; "not found" would make the client pull the image.
test_refusals_of_a_create() {
    fails 125 docker run --volumes-from ghost $IMG true
    hasnt "$ERR" 'Unable to find image'
    has "$ERR" 'No such container: ghost'
    fails 125 docker run --mount type=volume,src=drv,dst=/b,volume-driver=nope $IMG true
    hasnt "$ERR" 'Unable to find image'
    fails 125 docker run -v /tmp:/b:ro,rw $IMG true
    has "$ERR" 'invalid mode: ro,rw'
    fails 125 docker run --oom-score-adj 2000 $IMG true
    has "$ERR" 'Invalid value 2000, range for oom score adj is [-1000, 1000]'
    fails 125 docker run --cpuset-mems 800 $IMG true
    has "$ERR" 'Requested memory nodes are not available - requested 800'
    fails 125 docker run --storage-opt size=1G $IMG true
    has "$ERR" '--storage-opt is supported only for'
    fails 125 docker run --ip 172.17.0.99 $IMG true
    has "$ERR" 'user specified IP address is supported on user defined networks only'
    api POST /containers/create '{"Image":"busybox","NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["a"]}}}}'
    eq "$CODE" 400
    has "$BODY" 'network-scoped alias is supported only for containers in user defined networks'
    fails 125 docker run --log-driver asdf $IMG true
    has "$ERR" "logger: no log driver named 'asdf' is registered"
    fails 125 docker run --network nosuchnet $IMG true
    has "$ERR" 'failed to set up container networking: network nosuchnet not found'
    api POST /images/create?fromImage=UPPER
    has "$BODY" 'invalid reference format: repository name (library/UPPER) must be lowercase'
    # A weight that the kernel does not know is no reason to fail.
    ok docker run --rm --blkio-weight 500 $IMG true
}
