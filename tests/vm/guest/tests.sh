# What is particular to control groups of version 2, seen from both sides: what docker says, and what the kernel has.
# Run by cgroup2.sh inside the machine, each in a shell of its own; $KRAUD_TEST_DIR has the daemon.

# The container's own group; group FILE NAME prints a file of it.
directory() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$(ins "$1" '{{.State.Pid}}')/cgroup")"; }
group() { cat "$(directory "$2")/$1"; }
crash() { daemon_kill "$KRAUD_TEST_DIR"; daemon_start "$KRAUD_TEST_DIR"; }

test_only_version_2_is_here() {
    eq "$(stat -f -c %T /sys/fs/cgroup)" cgroup2fs
    fails 1 grep -q ' cgroup ' /proc/self/mounts
}

test_docker_info() {
    ok docker info
    has "$OUT" 'Cgroup Version: 2'
    has "$OUT" 'Cgroup Driver: cgroupfs'
    # What is missing would be a warning.
    hasnt "$OUT$ERR" 'No memory limit'; hasnt "$OUT$ERR" 'No cpuset'; hasnt "$OUT$ERR" 'No swap limit'
    eq "$(docker info --format '{{.MemoryLimit}} {{.SwapLimit}} {{.PidsLimit}} {{.CPUShares}} {{.CPUSet}} {{.CPUCfsQuota}}')" 'true true true true true true'
}

test_doctor_is_content() {
    ok kraud doctor --data-dir "$KRAUD_TEST_DIR/data"
    has "$OUT" '0 missing, 0 warnings'
    matches "$OUT" 'control groups +version 2'
}

test_run_logs_and_exec() {
    docker run -d --name c1 $IMG sh -c 'echo out; echo err >&2; exec sleep 100' >/dev/null
    until_eq 10 out sh -c 'docker logs c1 2>/dev/null'
    eq "$(docker logs c1 2>&1 >/dev/null)" err
    eq "$(docker exec -i c1 cat <<<typed)" typed
    fails 3 docker exec c1 sh -c 'exit 3'
}

test_a_group_of_its_own() {
    docker run -d --name c1 $IMG sleep 100 >/dev/null
    matches "$(directory c1)" "/kraud-$(instance_of "$KRAUD_TEST_DIR/data")/$(ins c1 '{{.Id}}')\$"
    # A control group namespace: the container sees its own group as the root, and cannot write to it.
    eq "$(docker exec c1 cat /proc/self/cgroup)" 0::/
    eq "$(docker exec c1 cat /proc/1/cgroup)" 0::/
    docker exec c1 grep -q '^1$' /sys/fs/cgroup/cgroup.procs
    fails 1 docker exec c1 mkdir /sys/fs/cgroup/inner
    has "$ERR" 'Read-only'
    eq "$(ins c1 '{{.HostConfig.CgroupnsMode}}')" private
}

test_the_hosts_namespace_when_asked() {
    docker run -d --name c1 --cgroupns host $IMG sleep 100 >/dev/null
    has "$(docker exec c1 cat /proc/1/cgroup)" "/kraud-$(instance_of "$KRAUD_TEST_DIR/data")/"
}

test_all_limits_at_once() {
    docker run -d --name c1 --memory 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 --cpu-shares 512 \
        --cpuset-cpus 1 --pids-limit 55 $IMG sleep 100 >/dev/null
    eq "$(group memory.max c1)" 67108864
    eq "$(group memory.swap.max c1)" 33554432
    eq "$(group memory.low c1)" 33554432
    eq "$(group cpu.max c1)" '50000 100000'
    between "$(group cpu.weight c1)" 15 25
    eq "$(group cpuset.cpus c1)" 1
    eq "$(group pids.max c1)" 55
    eq "$(docker exec c1 grep Cpus_allowed_list /proc/self/status | tr -d '\t')" Cpus_allowed_list:1
}

test_no_limits_unless_asked() {
    docker run -d --name c1 $IMG sleep 100 >/dev/null
    eq "$(group memory.max c1) $(group pids.max c1) $(group cpu.max c1)" 'max max max 100000'
}

test_update_changes_the_group() {
    docker run -d --name c1 --memory 64m --cpus 1 $IMG sleep 100 >/dev/null
    docker update --memory 128m --memory-swap 256m --memory-reservation 16m --cpus 0.25 --cpu-shares 2048 --cpuset-cpus 0 --pids-limit 77 c1 >/dev/null
    eq "$(group memory.max c1)" 134217728
    eq "$(group memory.swap.max c1)" 134217728
    eq "$(group memory.low c1)" 16777216
    eq "$(group cpu.max c1)" '25000 100000'
    between "$(group cpu.weight c1)" 70 90
    eq "$(group cpuset.cpus c1) $(group pids.max c1)" '0 77'
    docker update --memory 32m --memory-swap 32m --pids-limit -1 c1 >/dev/null
    eq "$(group memory.max c1) $(group memory.swap.max c1) $(group pids.max c1)" '33554432 0 max'
    eq "$(ins c1 '{{.HostConfig.PidsLimit}}')" 0
}

test_block_io_limits() {
    docker run -d --name c1 --device-write-bps /dev/vdb:1mb --device-read-iops /dev/vdb:50 $IMG sleep 100 >/dev/null
    matches "$(group io.max c1)" 'rbps=max wbps=1048576 riops=50 wiops=max'
    docker run -d --name c2 --blkio-weight 300 $IMG sleep 100 >/dev/null
    # Without the scheduler BFQ, whose range docker's is, it is the cost model's weight.
    eq "$(group io.weight c2 | head -n 1)" 'default 2930'
    docker update --blkio-weight 505 c2 >/dev/null
    eq "$(group io.weight c2 | head -n 1) $(ins c2 '{{.HostConfig.BlkioWeight}}')" 'default 5000 505'
}

test_cpu_limit_is_real() {
    docker run -d --name c1 --cpus 0.2 $IMG sh -c 'while :; do :; done' >/dev/null
    sleep 3
    [ "$(group cpu.stat c1 | sed -n 's/nr_throttled //p')" -ge 5 ] || fail "not throttled: $(group cpu.stat c1)"
    local before; before=$(group cpu.stat c1 | sed -n 's/usage_usec //p')
    local from; from=$(date +%s%N)
    sleep 3
    local share; share=$((($(group cpu.stat c1 | sed -n 's/usage_usec //p') - before) * 100000 / ($(date +%s%N) - from)))
    between "$share" 8 30
}

test_oom_of_the_first_process() {
    docker run -d --name c1 --memory 16m --memory-swap 16m $IMG sh -c 'tail /dev/zero' >/dev/null
    eq "$(timeout 30 docker wait c1)" 137
    eq "$(ins c1 '{{.State.OOMKilled}} {{.State.Status}}')" 'true exited'
    docker run --name c2 $IMG true
    eq "$(ins c2 '{{.State.OOMKilled}}')" false
}

test_oom_of_another_process() {
    docker run -d --name c1 --memory 24m --memory-swap 24m $IMG sleep 100 >/dev/null
    fails 137 docker exec c1 tail /dev/zero
    eq "$(state c1)" running
    between "$(group memory.events c1 | sed -n 's/^oom_kill //p')" 1 9
}

test_oom_while_the_daemon_is_away() {
    docker run -d --name c1 --memory 16m --memory-swap 16m $IMG sh -c 'until [ -e /tmp/go ]; do sleep 0.1; done; tail /dev/zero' >/dev/null
    local pid; pid=$(ins c1 '{{.State.Pid}}')
    daemon_kill "$KRAUD_TEST_DIR"
    touch "/proc/$pid/root/tmp/go"
    wait_until 30 pid_gone "$pid"
    daemon_start "$KRAUD_TEST_DIR"
    eq "$(ins c1 '{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}')" 'exited 137 true'
}

test_devices_are_denied() {
    # Version 2 has no files for this: a BPF program decides.
    ok docker run --rm --cap-add MKNOD $IMG sh -c 'mknod /tmp/vda b 254 0; head -c 1 /tmp/vda; mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg; head -c 3 /dev/zero | wc -c; echo x >/dev/null'
    eq "$OUT" 3
    eq "$(grep -c 'Operation not permitted' <<<"$ERR")" 2
    ok docker run --rm --device /dev/vdb $IMG sh -c 'head -c 5 /dev/vdb | wc -c'
    eq "$OUT" 5
}

test_pause_is_the_kernels_freezer() {
    docker run -d --name c1 $IMG sh -c 'while :; do date +%s >/tmp/now; sleep 0.1; done' >/dev/null
    docker pause c1 >/dev/null
    eq "$(group cgroup.freeze c1) $(group cgroup.events c1 | sed -n 's/frozen //p') $(state c1)" '1 1 paused'
    crash
    eq "$(state c1) $(group cgroup.freeze c1)" 'paused 1'
    docker unpause c1 >/dev/null
    eq "$(group cgroup.freeze c1) $(state c1)" '0 running'
}

test_stats_and_top() {
    docker run -d --name c1 --memory 64m --pids-limit 50 $IMG sh -c 'dd if=/dev/zero of=/f bs=1M count=4 conv=fsync; while :; do :; done' >/dev/null
    until_has 15 '4+0 records out' docker logs c1
    sleep 1
    api GET '/containers/c1/stats?stream=false'
    for field in '"limit":67108864' '"online_cpus":2' '"pids_stats":{"current":1,"limit":50}' '"inactive_file"' '"rx_bytes"'; do has "$BODY" "$field"; done
    # Fields that only version 1 has.
    hasnt "$BODY" max_usage; hasnt "$BODY" failcnt; hasnt "$BODY" percpu_usage
    matches "$BODY" '"total_usage":[1-9][0-9]{7}'
    matches "$BODY" '"op":"write","value":[1-9]'
    ok docker stats --no-stream --format '{{.CPUPerc}} {{.MemUsage}}' c1
    matches "$OUT" '^[1-9][0-9.]*% .* / 64MiB'
    has "$(docker top c1)" 'while :'
}

test_kill_9_with_a_running_container() {
    docker run -d --name c1 --memory 64m $IMG sleep 1000 >/dev/null
    local pid; pid=$(ins c1 '{{.State.Pid}}')
    crash
    eq "$(ins c1 '{{.State.Status}} {{.State.Pid}}')" "running $pid"
    docker update --memory 80m --memory-swap 80m c1 >/dev/null
    eq "$(group memory.max c1)" 83886080
    eq "$(docker exec c1 echo alive)" alive
    docker restart -t 0 c1 >/dev/null
    eq "$(group memory.max c1)" 83886080
}

test_the_group_goes_with_the_container() {
    docker run -d --name c1 --init $IMG sh -c 'sleep 1000 & sleep 1000 & wait' >/dev/null
    local where; where=$(directory c1)
    [ -d "$where" ] || fail "no $where"
    docker rm -f c1 >/dev/null
    [ ! -e "$where" ] || fail "$where is still there"
}

test_groups_made_by_a_container_go_too() {
    # What a docker in a container, or a systemd, does: it moves away from its root and hands the controllers down.
    docker run -d --name c1 --privileged $IMG sh -c 'cd /sys/fs/cgroup && mkdir -p inner/most && echo 0 >inner/most/cgroup.procs && echo +memory +pids >cgroup.subtree_control && exec sleep 1000' >/dev/null
    local where; where=$(directory c1 | sed 's,/inner.*,,')
    matches "$where" "/$(ins c1 '{{.Id}}')\$"
    until_has 10 memory cat "$where/cgroup.subtree_control"
    has "$(docker top c1)" 'sleep 1000'
    eq "$(docker exec c1 echo alive)" alive
    docker pause c1 >/dev/null; docker unpause c1 >/dev/null
    docker stop -t 0 c1 >/dev/null
    [ ! -e "$where" ] || fail "$where is still there"
}

test_network() {
    docker run -d --name c1 -p 127.0.0.1:8080:80 $IMG sh -c 'echo hello >/tmp/index.html; exec httpd -f -h /tmp -p 80' >/dev/null
    until_has 15 hello curl -sS --max-time 3 http://127.0.0.1:8080/
    until_has 15 hello curl -sS --max-time 3 "http://$(ins c1 '{{.NetworkSettings.Networks.bridge.IPAddress}}')/"
}

test_many_at_once() {
    local i
    for i in 1 2 3 4 5 6; do docker run -d --name p$i --memory 32m $IMG sh -c "exit $i" >/dev/null & done
    wait
    for i in 1 2 3 4 5 6; do eq "$(docker wait p$i)" "$i"; done
}

# Tenants: what all their containers have together is one group's, users are theirs, also on kernels whose overlays
# do not take detached mounts.
test_tenants() {
    local token first group
    export KRAUD_SOCKET=${DOCKER_HOST#unix://}
    token=$(kraud tenant create shop -q)
    mkdir -p "$T/config"; printf '{"HttpHeaders":{"Authorization":"Bearer %s"}}' "$token" >"$T/config/config.json"
    shop() { docker --config "$T/config" "$@"; }
    quota() { kraud tenant quota shop "$@" >/dev/null; }
    shop load -q -i "$(busybox_archive)" >/dev/null
    shop run -d --name box -v data:/data $IMG sleep 1000 >/dev/null
    first=$(awk '/^Uid/ { print $2 }' "/proc/$(shop inspect -f '{{.State.Pid}}' box)/status")
    [ "$first" -ge 1879048192 ] || fail "root of a tenant is user $first"
    eq "$(shop exec box sh -c 'touch /x /data/x && chown 5:6 /x /data/x && stat -c %u:%g /x /data/x /bin/busybox' | tr '\n' ' ')" '5:6 5:6 0:0 '
    eq "$(shop run --rm --ulimit nofile=1000000:1000000 --ulimit memlock=-1:-1 $IMG sh -c 'ulimit -n; ulimit -l' | tr '\n' ' ')" '1000000 unlimited '
    shop run --rm $IMG ping -c 1 -W 5 127.0.0.1 >/dev/null
    group=/sys/fs/cgroup/kraud-$(instance_of "$KRAUD_TEST_DIR/data")/tenant-shop
    quota memory=64M cpus=0.5 pids=40 io=4M iops=100
    eq "$(cat "$group/memory.max" "$group/cpu.max" "$group/pids.max" | tr '\n' ' ')" '67108864 50000 100000 40 '
    has "$(cat "$group/io.max")" 'rbps=4194304 wbps=4194304 riops=100 wiops=100'
    run shop run --name big --tmpfs /t:size=300m $IMG dd if=/dev/zero of=/t/x bs=1M count=200; ne "$RC" 0
    run shop exec box sh -c 'for i in $(seq 100); do sleep 100 & done; wait'; ne "$RC" 0
    quota memory=none cpus=none pids=none io=none iops=none
    eq "$(cat "$group/memory.max" "$group/io.max" "$group/pids.max" | tr '\n' ' ')" 'max 8192 '
    crash
    eq "$(shop exec box stat -c %u /x)" 5
    kraud tenant rm --force shop >/dev/null
    [ ! -e "$group" ] || fail 'the group of a tenant outlives it'
}
