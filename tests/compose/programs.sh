# Real programs: a database, a web site, a queue, out of Debian's packages.

. "$E2E_SUITES/lib.sh"
PATH=$(dirname "$KRAUD_BIN"):$PATH
KR_HOST=$DOCKER_HOST; export KR_HOST

programs() {
    [ -e "${PROGRAMS:-}" ] || fail "no image of Debian's programs: scripts/test.sh compose makes it"
    docker image inspect programs >/dev/null 2>&1 || docker import "$PROGRAMS" programs >/dev/null
}

psql() { dc exec -T client sh -c '/usr/lib/postgresql/*/bin/psql -qAt -v ON_ERROR_STOP=1 -c "$0"' "$1"; }
rows() { psql 'select count(*) || md5(string_agg(id || text, $$,$$ order by id)) from notes'; }
test_postgresql_on_a_block_volume() {
    programs; project postgres
    ok dc up -d --wait
    psql 'create table notes (id int primary key, text text)'
    psql 'insert into notes select i, md5(i::text) from generate_series(1, 20000) i'
    local before; before=$(rows)
    # Everything is there after a clean stop, after the program was killed, and after the daemon was.
    ok dc restart db; ok dc up -d --wait; eq "$(rows)" "$before"
    ok docker kill postgres-db-1; ok dc up -d --wait; eq "$(rows)" "$before"
    # While it writes: what the snapshot holds is a state that the database can start from.
    (psql 'insert into notes select i, md5(i::text) from generate_series(20001, 200000) i' >/dev/null 2>&1 || true) & local writing=$!
    ok kra volume snapshot create postgres_data busy
    wait $writing
    eq "$(psql 'select count(*) from notes')" 200000
    psql 'delete from notes where id > 20000'
    ok kra volume snapshot create postgres_data good
    psql 'drop table notes'
    fails 4 kra volume rollback postgres_data good; has "$ERR" postgres-db-1
    ok kra volume rollback postgres_data good --restart
    until_eq 30 healthy ins postgres-db-1 '{{.State.Health.Status}}'
    eq "$(rows)" "$before"
    ok kra volume rollback postgres_data busy --restart
    until_eq 30 healthy ins postgres-db-1 '{{.State.Health.Status}}'
    matches "$(psql 'select count(*) from notes')" '^(20000|200000)$'
    daemon_kill "$KRAUD_TEST_DIR"; daemon_start "$KRAUD_TEST_DIR"
    ok dc up -d --wait
    psql 'delete from notes where id > 20000'; eq "$(rows)" "$before"
    gone
}

test_a_site_of_three_on_one_volume() {
    programs; project site
    docker volume create --driver gfs --label com.docker.compose.project=site --label com.docker.compose.volume=site -o size=256M site_site >/dev/null
    docker run --rm -v "$PWD:/from:ro" -v site_site:/srv busybox sh -c 'cp /from/visit.php /srv/; mkdir -m 777 /srv/data; echo static >/srv/page.txt'
    ok dc up -d --wait
    eq "$(count_of web) $(count_of php)" '3 3'
    local ports at port; ports=$(docker ps -q --filter label=com.docker.compose.service=web | xargs -n1 docker port | sed 's/.*-> //')
    for at in 1 2 3 4 5 6 7 8; do for port in $ports; do
        curl -sf "http://$port/visit.php" >/dev/null & done; done
    wait
    set -- $ports
    eq "$(curl -sf "http://$1/visit.php")" 25
    eq "$(docker exec site-web-1 sh -c 'ls /srv/data | grep -c by-')" 3 'instances of PHP that were asked'
    docker exec site-php-1 sh -c 'echo changed >/srv/page.txt'
    for port in $ports; do eq "$(curl -sf "http://$port/page.txt")" changed; done
    ok dc up -d --wait --scale web=1 --scale php=1; eq "$(count_of web) $(count_of php)" '1 1'
    gone
}

test_a_queue_and_its_workers() {
    programs; project queue
    ok dc up -d --wait --scale worker=2
    redis() { dc exec -T redis redis-cli "$@"; }
    eq "$(docker logs queue-worker-1 | head -n1)" PONG
    local at
    for at in $(seq 40); do redis rpush jobs "job-$at" >/dev/null; done
    until_eq 20 40 redis scard done
    # The list of what is done outlives redis, and the workers find it again by its name.
    ok dc kill redis; ok dc up -d --wait
    eq "$(redis scard done)" 40
    redis rpush jobs last >/dev/null
    until_eq 20 41 redis scard done
    gone
}
