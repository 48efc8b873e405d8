# docker run: each option does what it says.

test_output_and_exit_code() {
    eq "$(docker run --rm $IMG echo hello)" hello
    fails 7 docker run --rm $IMG sh -c 'exit 7'
    fails 0 docker run --rm $IMG true
}

test_streams_stay_apart() {
    ok docker run --rm $IMG sh -c 'echo to-out; echo to-err >&2'
    eq "$OUT" to-out
    eq "$ERR" to-err
}

test_stdin_is_passed_and_ends() {
    eq "$(printf 'a\nb\n' | docker run --rm -i $IMG cat)" $'a\nb'
    eq "$(head -c 3000000 /dev/zero | docker run --rm -i $IMG wc -c)" 3000000
}

test_without_i_stdin_is_empty() {
    eq "$(echo never | docker run --rm $IMG cat)" ''
}

test_name_and_hostname() {
    eq "$(docker run --rm --name box --hostname outpost $IMG hostname)" outpost
    docker run -d --name box $IMG sleep 60 >/dev/null
    eq "$(docker exec box hostname)" "$(docker ps -q)" 'hostname is the short id'
    eq "$(ins box '{{.Name}}')" /box
}

test_hosts_file() {
    ok docker run --rm --hostname outpost --add-host db:10.1.2.3 $IMG cat /etc/hosts
    matches "$OUT" $'10\\.1\\.2\\.3[ \t]+db'
    has "$OUT" localhost
    has "$OUT" outpost
}

test_dns_options() {
    ok docker run --rm --dns 9.9.9.9 --dns-search corp.example --dns-option ndots:3 $IMG cat /etc/resolv.conf
    has "$OUT" 'nameserver 9.9.9.9'
    has "$OUT" 'search corp.example'
    has "$OUT" 'ndots:3'
}

test_environment() {
    printf 'FROM_FILE=one two\n# comment\n\nPLAIN=x\n' >env
    export PASSED=through
    ok docker run --rm -e A=1 -e PASSED -e EMPTY= --env-file env $IMG env
    has "$OUT" A=1
    has "$OUT" PASSED=through
    has "$OUT" 'FROM_FILE=one two'
    has "$OUT" PLAIN=x
    matches "$OUT" $'(^|\n)EMPTY=(\n|$)'
    has "$OUT" PATH=/usr/local/sbin
    has "$OUT" HOME=/root
    has "$OUT" HOSTNAME=
}

test_environment_variable_removed() {
    ok docker run --rm -e PATH=/bin $IMG env
    has "$OUT" PATH=/bin
    hasnt "$OUT" /usr/local/sbin
}

test_workdir_is_made() {
    eq "$(docker run --rm -w /made/here $IMG pwd)" /made/here
}

test_user_forms() {
    eq "$(docker run --rm -u 1000 $IMG id -u)" 1000
    eq "$(docker run --rm -u user $IMG sh -c 'id -u; id -g' | tr '\n' ' ')" '1000 1000 '
    eq "$(docker run --rm -u user:staff $IMG id -g)" 50
    eq "$(docker run --rm -u 12:34 $IMG sh -c 'id -u; id -g' | tr '\n' ' ')" '12 34 '
    eq "$(docker run --rm -u user $IMG sh -c 'echo $HOME')" /home/user
    has "$(docker run --rm -u user $IMG id -G)" 50 'supplementary groups of /etc/group'
    has "$(docker run --rm -u user --group-add 777 $IMG id -G)" 777
}

test_unknown_user_is_refused() {
    fails 125 docker run --rm -u ghost $IMG true
    has "$ERR" 'unable to find user ghost'
}

test_entrypoint_override() {
    eq "$(docker run --rm --entrypoint echo $IMG a b)" 'a b'
    mkimage withentry '{"Entrypoint":["echo","entry"],"Cmd":["cmd"]}'
    eq "$(docker run --rm withentry)" 'entry cmd'
    eq "$(docker run --rm withentry mine)" 'entry mine'
    eq "$(docker run --rm --entrypoint echo withentry only)" only
    fails 125 docker run --rm --entrypoint '' withentry
    docker rmi -f withentry >/dev/null
}

test_image_config_is_used() {
    mkimage configured '{"User":"user","WorkingDir":"/srv/app","Env":["PATH=/bin","COLOR=blue"],"Cmd":["sh","-c","id -u; pwd; echo $COLOR"],"Labels":{"from":"image","both":"image"},"StopSignal":"SIGINT","ExposedPorts":{"8080/tcp":{}}}'
    eq "$(docker run --rm configured | tr '\n' ' ')" '1000 /srv/app blue '
    id=$(docker create -l both=mine configured)
    eq "$(ins "$id" '{{.Config.Labels.from}} {{.Config.Labels.both}}')" 'image mine'
    eq "$(ins "$id" '{{.Config.StopSignal}}')" SIGINT
    has "$(ins "$id" '{{json .Config.ExposedPorts}}')" 8080/tcp
    docker rm "$id" >/dev/null
    docker rmi -f configured >/dev/null
}

test_tmpfs() {
    ok docker run --rm --tmpfs /scratch:size=1m,mode=1770 $IMG sh -c 'grep " /scratch " /proc/mounts; stat -c %a /scratch'
    has "$OUT" tmpfs
    has "$OUT" size=1024k
    has "$OUT" 1770
    has "$OUT" noexec
}

test_read_only_root() {
    fails 1 docker run --rm --read-only $IMG touch /file
    has "$ERR" 'Read-only file system'
    ok docker run --rm --read-only --tmpfs /tmp $IMG touch /tmp/file
}

test_capabilities() {
    eff() { docker run --rm "$@" $IMG grep CapEff /proc/self/status | tr -d ' \t'; }
    eq "$(eff)" CapEff:00000000a80425fb
    eq "$(eff --cap-drop ALL)" CapEff:0000000000000000
    eq "$(eff --cap-drop ALL --cap-add NET_ADMIN)" CapEff:0000000000001000
    eq "$(eff --cap-add CAP_SYS_TIME)" CapEff:00000000aa0425fb
    eq "$(eff --cap-drop net_raw)" CapEff:00000000a80405fb
    host=$(awk '$1 == "CapBnd:" { print "CapEff:" $2 }' /proc/self/status)
    # dockerd asks for capabilities that a confined host may not have; we give those that there are.
    legacy || eq "$(eff --cap-add ALL)" "$host"
    legacy || eq "$(eff --privileged)" "$host"
    fails 125 docker run --rm --cap-add NOT_A_CAP $IMG true
    has "$ERR" 'unknown capability'
}

test_user_loses_capabilities() {
    has "$(docker run --rm -u 1000 $IMG grep CapEff /proc/self/status)" 0000000000000000
}

test_no_new_privileges() {
    has "$(docker run --rm --security-opt no-new-privileges $IMG grep NoNewPrivs /proc/self/status)" 1
    has "$(docker run --rm $IMG grep NoNewPrivs /proc/self/status)" 0
}

test_seccomp() {
    has "$(docker run --rm $IMG grep Seccomp: /proc/self/status)" 2
    has "$(docker run --rm --security-opt seccomp=unconfined $IMG grep Seccomp: /proc/self/status)" 0
    fails 1 docker run --rm $IMG unshare -n true
    printf '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}' >profile.json
    fails 1 docker run --rm --security-opt seccomp=profile.json $IMG mkdir /made
    has "$ERR" 'not permitted'
}

test_ulimits() {
    eq "$(docker run --rm --ulimit nofile=123:456 $IMG sh -c 'ulimit -Sn; ulimit -Hn' | tr '\n' ' ')" '123 456 '
}

test_sysctl() {
    eq "$(docker run --rm --sysctl net.ipv4.ip_forward=0 --sysctl net.core.somaxconn=99 $IMG cat /proc/sys/net/core/somaxconn)" 99
}

test_memory_limit_is_real() {
    id=$(docker run -d --memory 16m --memory-swap 16m $IMG sh -c 'tail /dev/zero')
    eq "$(timeout 30 docker wait "$id")" 137
    eq "$(ins "$id" '{{.State.OOMKilled}}')" true
    eq "$(ins "$id" '{{.HostConfig.Memory}}')" 16777216
}

test_memory_limit_too_small() {
    fails 125 docker run --rm --memory 1m $IMG true
    has "$ERR" 'Minimum memory limit allowed is 6MB'
}

# The limit as the container itself sees it, on either cgroup layout.
limit() {
    local options=$1 v1=$2 v2=$3
    # shellcheck disable=SC2086
    docker run --rm $options $IMG sh -c "cat /sys/fs/cgroup/$v1 2>/dev/null || cat /sys/fs/cgroup/$v2"
}

test_limits_reach_the_cgroup() {
    eq "$(limit '--memory 64m' memory/memory.limit_in_bytes memory.max)" 67108864
    eq "$(limit '--pids-limit 40' pids/pids.max pids.max)" 40
    eq "$(limit '--cpuset-cpus 0' cpuset/cpuset.cpus cpuset.cpus)" 0
    matches "$(limit '--cpus 0.5' cpu/cpu.cfs_quota_us cpu.max)" '^50000'
}

test_pids_limit_is_real() {
    fails 2 docker run --rm --pids-limit 8 $IMG sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done; wait'
    has "$ERR" "can't fork"
}

test_device() {
    ok docker run --rm --device /dev/zero:/dev/nothing $IMG sh -c 'head -c 9 /dev/nothing | wc -c'
    eq "$OUT" 9
    fails 127 docker run --rm --device /dev/no-such-device $IMG true
    has "$ERR" 'no-such-device'
}

test_privileged() {
    legacy && return 0
    ok docker run --rm --privileged $IMG sh -c 'mkdir /m && mount -t tmpfs none /m && grep -c " /m " /proc/mounts'
    eq "$OUT" 1
    fails 1 docker run --rm $IMG sh -c 'mkdir /m && mount -t tmpfs none /m'
}

test_default_devices_and_masks() {
    ok docker run --rm $IMG sh -c 'ls /dev; ls -d /dev/pts /dev/shm; cat /proc/kcore | head -c 1 | wc -c; touch /proc/sys/kernel/x 2>&1 || true'
    for device in null zero full random urandom tty; do has "$OUT" $device; done
    hasnt "$OUT" vda
}

test_shm_size() {
    has "$(docker run --rm $IMG df -k /dev/shm)" 65536
    has "$(docker run --rm --shm-size 8m $IMG df -k /dev/shm)" 8192
}

test_init() {
    ok docker run --rm --init $IMG cat /proc/1/cmdline
    has "$OUT" init 'the command is a child of init'
    fails 9 docker run --rm --init $IMG sh -c 'exit 9'
}

test_stop_uses_its_signal() {
    docker run -d --name ssig --stop-signal USR1 $IMG sh -c 'trap "exit 5" USR1; echo up; while :; do sleep 0.1; done' >/dev/null
    until_has 10 up docker logs ssig
    docker stop ssig >/dev/null
    eq "$(ins ssig '{{.State.ExitCode}}')" 5
}

test_stop_timeout_then_kill() {
    docker run -d --name stubborn --stop-timeout 1 $IMG sh -c 'trap "" TERM; echo up; while :; do sleep 0.1; done' >/dev/null
    until_has 10 up docker logs stubborn
    from=$SECONDS
    docker stop stubborn >/dev/null
    between $((SECONDS - from)) 0 5
    eq "$(ins stubborn '{{.State.ExitCode}}')" 137
}

test_labels() {
    printf 'from.file=yes\n' >labels
    id=$(docker create -l a=1 -l b --label-file labels $IMG true)
    eq "$(ins "$id" '{{json .Config.Labels}}')" '{"a":"1","b":"","from.file":"yes"}'
}

test_host_namespaces() {
    eq "$(docker run --rm --uts host $IMG readlink /proc/self/ns/uts)" "$(readlink /proc/self/ns/uts)"
    eq "$(docker run --rm --ipc host $IMG readlink /proc/self/ns/ipc)" "$(readlink /proc/self/ns/ipc)"
    eq "$(docker run --rm --pid host $IMG readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
    ne "$(docker run --rm $IMG readlink /proc/self/ns/pid)" "$(readlink /proc/self/ns/pid)"
}

test_namespaces_of_a_container() {
    docker run -d --name first --ipc shareable $IMG sleep 60 >/dev/null
    has "$(docker run --rm --pid container:first $IMG ps)" 'sleep 60'
    eq "$(docker run --rm --ipc container:first $IMG readlink /proc/self/ns/ipc)" "$(docker exec first readlink /proc/self/ns/ipc)"
    eq "$(docker run --rm --network container:first $IMG readlink /proc/self/ns/net)" "$(docker exec first readlink /proc/self/ns/net)"
}

test_platform() {
    case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) return 0 ;; esac
    ok docker run --rm --platform linux/$arch $IMG true
}

test_runtime_missing() {
    fails 125 docker run --rm --runtime no-such-runtime $IMG true
    matches "$ERR" 'no-such-runtime'
}

test_cidfile() {
    docker run --rm --cidfile cid $IMG true
    matches "$(cat cid)" '^[0-9a-f]{64}$'
}

test_annotation_and_domainname() {
    legacy && return 0
    id=$(docker create --annotation a=b --domainname corp.example $IMG true)
    eq "$(ins "$id" '{{.HostConfig.Annotations.a}} {{.Config.Domainname}}')" 'b corp.example'
}

test_oom_score_and_group() {
    eq "$(docker run --rm --oom-score-adj 321 $IMG cat /proc/self/oom_score_adj)" 321
}

test_cgroup_parent() {
    id=$(docker run -d --cgroup-parent /kraud-e2e-parent $IMG sleep 30)
    has "$(cat /proc/"$(ins "$id" '{{.State.Pid}}')"/cgroup)" "/kraud-e2e-parent/"
    docker rm -f "$id" >/dev/null
    find /sys/fs/cgroup -depth -type d -name kraud-e2e-parent -exec rmdir {} \; 2>/dev/null || true
}
