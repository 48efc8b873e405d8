# Restart policies and healthchecks.

count() { ins "$1" '{{.RestartCount}}'; }
health() { ins "$1" '{{.State.Health.Status}}'; }

test_no() {
    docker run -d --name r1 $IMG false >/dev/null
    docker wait r1 >/dev/null
    sleep 0.5
    eq "$(state r1) $(count r1)" 'exited 0'
}

test_on_failure_gives_up() {
    docker run -d --name r1 --restart on-failure:2 $IMG sh -c 'echo run; exit 3' >/dev/null
    until_eq 15 'exited 2' sh -c "docker inspect -f '{{.State.Status}} {{.RestartCount}}' r1"
    eq "$(docker logs r1 | wc -l)" 3
    eq "$(ins r1 '{{.State.ExitCode}}')" 3
}

test_on_failure_leaves_success() {
    docker run -d --name r1 --restart on-failure $IMG true >/dev/null
    sleep 1
    eq "$(state r1) $(count r1)" 'exited 0'
}

test_always_restarts() {
    docker run -d --name r1 --restart always $IMG sh -c 'echo run; sleep 0.1' >/dev/null
    until_has 15 $'run\nrun\nrun' docker logs r1
    docker stop -t 1 r1 >/dev/null
    sleep 1
    eq "$(state r1)" exited 'a stop by hand is final'
}

test_back_off() {
    docker run -d --name r1 --restart always $IMG cat /proc/uptime >/dev/null
    lines() { docker logs r1 | wc -l; }
    until_eq 20 5 lines
    docker stop -t 0 r1 >/dev/null
    docker logs r1 | awk 'NR > 1 { gap = ($1 - last) * 1000; if (NR == 2) first = gap } { last = $1 } END { exit !(gap > 1.5 * first && gap > 600) }' || fail 'the gaps do not grow'
}

test_status_restarting() {
    docker run -d --name r1 --restart always $IMG false >/dev/null
    until_eq 15 restarting state r1
    until_has 15 Restarting docker ps --format '{{.Status}}'
    ok docker stop r1
    docker rm r1 >/dev/null
}

test_kill_is_final_but_crash_is_not() {
    docker run -d --name r1 --restart unless-stopped $IMG sleep 100 >/dev/null
    kill -KILL "$(ins r1 '{{.State.Pid}}')"
    until_eq 15 'running 1' sh -c "docker inspect -f '{{.State.Status}} {{.RestartCount}}' r1"
    docker kill r1 >/dev/null
    sleep 1
    eq "$(state r1)" exited
}

test_rm_while_restarting() {
    docker run -d --name r1 --restart always $IMG false >/dev/null
    sleep 0.5
    ok docker rm -f r1
    sleep 1
    fails 1 docker inspect r1
}

test_healthy() {
    docker run -d --name h1 --health-cmd 'echo probe; test -e /tmp/up' --health-interval 200ms --health-retries 2 $IMG sleep 100 >/dev/null
    eq "$(health h1)" starting
    docker exec h1 touch /tmp/up
    until_eq 10 healthy health h1
    has "$(docker ps --format '{{.Status}}')" '(healthy)'
    eq "$(ins h1 '{{(index .State.Health.Log 0).Output}}')" probe
    docker exec h1 rm /tmp/up
    until_eq 10 unhealthy health h1
    [ "$(ins h1 '{{.State.Health.FailingStreak}}')" -ge 2 ] || fail 'no failing streak'
    docker exec h1 touch /tmp/up
    until_eq 10 healthy health h1
}

test_health_timeout() {
    docker run -d --name h1 --health-cmd 'sleep 30' --health-interval 200ms --health-timeout 300ms --health-retries 1 $IMG sleep 100 >/dev/null
    until_eq 10 unhealthy health h1
    eq "$(ins h1 '{{(index .State.Health.Log 0).ExitCode}}')" -1
    has "$(ins h1 '{{(index .State.Health.Log 0).Output}}')" 'Health check exceeded timeout (300ms)'
    until_eq 5 0 sh -c 'docker top h1 | grep -c "sleep 30" || true'
}

test_start_period() {
    docker run -d --name h1 --health-cmd false --health-interval 100ms --health-retries 1 --health-start-period 2s $IMG sleep 100 >/dev/null
    sleep 1
    eq "$(health h1)" starting
    until_eq 10 unhealthy health h1
}

test_image_healthcheck() {
    mkimage healthy '{"Cmd":["sleep","100"],"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":200000000}}'
    docker run -d --name h1 healthy >/dev/null
    until_eq 10 healthy health h1
    docker run -d --name h2 --no-healthcheck healthy >/dev/null
    sleep 0.5
    eq "$(ins h2 '{{json .State.Health}}')" null
    docker rm -f h1 h2 >/dev/null; docker rmi healthy >/dev/null
}

test_wait_ends_at_the_first_exit() {
    docker run -d --name ww --restart always $IMG sh -c 'sleep 0.5; exit 3' >/dev/null
    eq "$(timeout 20 docker wait ww)" 3
    fails 1 docker rm ww
    docker rm -f ww >/dev/null
}
