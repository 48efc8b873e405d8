# kra up: a project with its images and the files that it mounts.

. "$E2E_SUITES/lib.sh"

# project: one in $T/project that mounts a file, a folder, a config and a secret; the operator's kraud is the local engine.
project() {
    docker load -q -i "$(busybox_archive)" >/dev/null; docker tag "$IMG" local:1
    mkdir -p "$T/project/site/sub" "$T/project/site/node_modules"; cd "$T/project"
    echo first >site/index.html; echo deep >site/sub/page; echo junk >site/node_modules/x; echo '**/node_modules' >.dockerignore
    echo 'the configuration' >app.conf; echo 'the secret' >key; chmod 640 key; ln -s index.html site/link
    cat >compose.yaml <<-'YAML'
	name: shop
	services:
	  web:
	    image: local:1
	    command: httpd -f -p 80 -h /site
	    stop_signal: KILL
	    volumes: [ "./site:/site", "./app.conf:/etc/app.conf:ro", "data:/data" ]
	    configs: [ { source: conf, target: /conf } ]
	    secrets: [ key ]
	    ports: [ "127.0.0.1::80" ]
	configs: { conf: { file: ./app.conf } }
	secrets: { key: { file: ./key } }
	volumes: { data: {} }
	YAML
    export KR_ENGINE=${OPERATOR#unix://}
}

test_up_with_files() {
    has_compose; tenant shop; export KR_ACCESS_TOKEN=$TOKEN; project
    # Without what has been uploaded a path of the host means nothing, and never the server's own.
    ok kra push local:1
    (remote; run docker compose up -d; ne "$RC" 0; has "$ERR$OUT" 'kra push uploads'; docker compose down -v >/dev/null 2>&1)
    as shop rmi local:1 >/dev/null
    run kra up --dry-run; has "$ERR" 'to push'; has "$ERR" 'to send'
    eq "$(as shop ps -aq; as shop image ls -q)" ''
    run kra up; eq "$RC" 0; has "$ERR" 'local:1: sent'
    eq "$(kra exec -T web cat /site/index.html /site/sub/page /etc/app.conf /conf /run/secrets/key | tr '\n' ' ')" 'first deep the configuration the configuration the secret '
    eq "$(kra exec -T web sh -c 'ls /site; readlink /site/link; stat -c %a /run/secrets/key' | tr '\n' ' ')" 'index.html link sub index.html 640 '
    run kra exec -T web sh -c 'echo x >/etc/app.conf'; ne "$RC" 0
    kra exec -T web sh -c 'echo written >/site/from-inside'
    has "$(kra ps --format '{{.Name}}')" shop-web-1
    # What docker compose does is its own, with this kraud.
    timeout 20 "$KRA" events --json >"$T/events" 2>&1 & local listening=$!
    kra exec -T web sh -c 'echo spoken >/proc/1/fd/1'
    timeout 20 "$KRA" logs -f web >"$T/logs" 2>&1 & local following=$!
    wait_until 10 grep -q spoken "$T/logs"
    seen() { kra exec -T web true; grep -q exec_ "$T/events"; }
    wait_until 10 seen
    kill $listening $following 2>/dev/null; wait $listening $following || true
    # Nothing has changed.
    run kra up; eq "$RC" 0; has "$ERR" 'there already'; has "$ERR" 'nothing has changed'
    # A change is there at once, what is gone is gone, what was written inside stays.
    echo second >site/index.html; rm site/sub/page; mkdir site/new; echo n >site/new/file
    run kra up; has "$ERR" 'files: 3 to send'; has "$ERR" '1 to remove'
    eq "$(kra exec -T web sh -c 'cat /site/index.html /site/new/file /site/from-inside; ls /site/sub | wc -l' | tr '\n' ' ')" 'second n written 0 '
    # Watched.
    "$KRA" sync 2>"$T/sync" & local watching=$!
    sleep 1; echo third >site/index.html
    until_eq 10 third kra exec -T web cat /site/index.html
    # A file that is mounted by itself is changed in its place: the container sees it.
    echo 'another configuration' >app.conf
    until_eq 10 'another configuration' kra exec -T web cat /etc/app.conf
    echo short >app.conf
    until_eq 10 short kra exec -T web cat /etc/app.conf
    # It outlasts a restart of kraud.
    daemon_kill "$KRAUD_TEST_DIR"; echo fourth >site/index.html; wait_until 20 grep -q 'tried again' "$T/sync"
    KRAUD_TEST_LISTEN=${KR_HOST#https://} daemon_start "$KRAUD_TEST_DIR"
    until_eq 20 fourth kra exec -T web cat /site/index.html; echo third >site/index.html; until_eq 20 third kra exec -T web cat /site/index.html
    kill $watching; has "$(cat "$T/sync")" 'site/index.html'
    # Of a large file what is new in it is sent, and nobody sees half of it.
    head -c 8000000 /dev/urandom >site/blob; kra up >/dev/null 2>&1
    python3 -c 'import sys; p = sys.argv[1]; d = open(p, "rb").read(); open(p, "wb").write(d[:3000000] + b"put in" + d[3000000:])' site/blob; chmod 600 site/blob
    run kra up; matches "$ERR" 'files: sent [0-9.]+(B|KiB)'
    eq "$(kra exec -T web sh -c 'sha256sum </site/blob; stat -c %a /site/blob' | tr -d ' -' | tr '\n' ' ')" "$(sha256sum <site/blob | tr -d ' -') 600 "
    # Also of one that has been changed inside.
    kra exec -T web sh -c 'echo other >/site/blob'; echo more >>site/blob; run kra up; eq "$RC" 0
    eq "$(kra exec -T web sha256sum /site/blob | cut -c1-64)" "$(sha256sum <site/blob | cut -c1-64)"; rm site/blob
    # Plain docker compose finds the files, too.
    kra down >/dev/null 2>&1; eq "$(as shop ps -aq)" ''
    (remote; docker compose up -d --wait >/dev/null 2>&1; eq "$(docker compose exec -T web cat /site/index.html)" third; docker compose down -v >/dev/null 2>&1)
    # Too much is said to be.
    head -c 3000000 /dev/zero >site/large; run kra up --upload-limit 1M; eq "$RC" 2; has "$ERR" 'site alone has'; rm site/large
    # What has no end is not read to it, and what is no file is named.
    truncate -s 1T site/large; run timeout 20 "$KRA" up; eq "$RC" 2; has "$ERR" 'site alone has 1'; rm site/large
    sed "s#./app.conf:/etc/app.conf:ro#$KR_ENGINE:/s#" compose.yaml >socket.yaml; run kra up -f socket.yaml; eq "$RC" 2; has "$ERR" 'neither a file nor a folder'
    # Another project, and another tenant, do not.
    run as shop run --rm -v "$T/project/site:/x" local:1 true; ne "$RC" 0; has "$ERR" 'kra push uploads'
    tenant other; image_for other
    run as other run --rm --label com.docker.compose.project=shop -v "$T/project/site:/x" "$IMG" true; ne "$RC" 0
    # Links of what was uploaded lead nowhere else.
    run as shop run --rm --label com.docker.compose.project=shop -v "/etc/passwd:/x" local:1 true; ne "$RC" 0; has "$ERR" 'kra push uploads'
}

# Containers of a service are replaced one by one, and by those that work.
test_one_by_one() {
    has_compose; tenant shop; export KR_ACCESS_TOKEN=$TOKEN
    docker load -q -i "$(busybox_archive)" >/dev/null; docker tag "$IMG" local:1; export KR_ENGINE=${OPERATOR#unix://}
    mkdir "$T/project"; cd "$T/project"
    stack() { cat >compose.yaml <<-YAML
	name: roll
	services:
	  web:
	    image: local:1
	    command: sh -c 'echo $1 >/index.html; exec httpd -f -p 80 -h /'
	    stop_signal: KILL
	    deploy: { replicas: 3 }
	    healthcheck: { test: "$2", interval: 300ms, retries: 3, start_period: 1s }
	    volumes: [ "slots:/slots" ]
	  client: { image: local:1, command: sleep 1000, stop_signal: KILL }
	volumes: { slots: {} }
	YAML
    }
    # Healthy is who answers.
    local answers='wget -q -O /dev/null http://127.0.0.1/index.html'
    web() { as shop ps -q "$@" --filter label=com.docker.compose.service=web; }
    stack one "$answers"; ok kra up
    local before; before=$(web | sort)
    eq "$(echo "$before" | wc -l)" 3
    # Asked all the time, somebody answers all the time.
    # ask: the page, from the first that answers of those that have the name, as clients do; asked again once, as one may
    # end while it answers.
    cat >"$T/ask" <<-'ASK'
	once() { for ip in $(nslookup web 2>/dev/null | sed -n '/^Name/,$s/^Address[^:]*: *\([0-9.]*\).*/\1/p'); do printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc -w 2 "$ip" 80 2>/dev/null | tail -n 1 | grep . && return; done; return 1; }
	once || once || echo lost
	ASK
    as shop cp "$T/ask" roll-client-1:/ask
    as shop exec roll-client-1 sh -c 'while ! [ -e /stop ]; do sh /ask >>/seen; usleep 50000; done' & local asking=$!
    (while ! [ -e "$T/enough" ]; do web | wc -l >>"$T/running"; done) & local counting=$!
    sleep 1; stack two "$answers"
    run kra up; has "$ERR" '3 of 3'; eq "$RC" 0
    touch "$T/enough"; wait $counting || true
    # There is one more at a time, and never one less.
    eq "$(sort -n "$T/running" | sed -n '1p;$p' | tr '\n' ' ')" '3 4 '
    sleep 1; as shop exec roll-client-1 touch /stop; wait $asking || true
    local after; after=$(web | sort)
    eq "$(echo "$after" | wc -l)" 3
    eq "$(comm -12 <(echo "$before") <(echo "$after") | wc -l)" 0
    eq "$(web -a | wc -l)" 3
    as shop exec roll-client-1 sort /seen | uniq -c >"$T/seen"
    run kra up; eq "$RC" 0; hasnt "$ERR" 'taken over'; eq "$(web | sort)" "$after"
    matches "$(cat "$T/seen")" ' one'; matches "$(cat "$T/seen")" ' two'; hasnt "$(cat "$T/seen")" lost
    # One that does not become healthy: the old ones go on, and nothing of the new is left.
    stack three false
    run kra up --wait-timeout 20; ne "$RC" 0; has "$ERR" 'has not become healthy'
    eq "$(web | sort)" "$after"
    eq "$(web -a | wc -l)" 3
    eq "$(as shop exec roll-client-1 sh /ask)" two
    # One that works, then one that does not: the old one that has stopped is back.
    stack three 'test -e /ok'; sed -i "s#sh -c '#&mkdir /slots/first \&\& touch /ok; #" compose.yaml
    run kra up --wait-timeout 20; ne "$RC" 0; has "$ERR" '1 of 3'; has "$ERR" 'has not become healthy'; has "$ERR" 'the old containers are back'
    eq "$(web | sort)" "$after"; eq "$(web -a | wc -l)" 3
    eq "$(as shop exec roll-client-1 sh /ask)" two
    # Where the project wants it there is one less, and never one more.
    rm "$T/enough" "$T/running"; (while ! [ -e "$T/enough" ]; do web | wc -l >>"$T/running"; done) & counting=$!
    stack three "$answers"; sed -i 's/replicas: 3/&, update_config: { order: stop-first }/' compose.yaml
    run kra up; eq "$RC" 0; has "$ERR" '3 of 3'; touch "$T/enough"; wait $counting || true
    eq "$(sort -n "$T/running" | sed -n '1p;$p' | tr '\n' ' ')" '2 3 '
    # What docker compose writes into containers itself is there in the new ones, too.
    stack kept "$answers"; sed -i 's/^    volumes:/    configs: [ { source: note, target: \/note } ]\n&/; $a configs: { note: { content: "by compose" } }' compose.yaml
    run kra up; eq "$RC" 0; has "$ERR" '3 of 3'; eq "$(kra exec -T --index "$(as shop inspect -f '{{index .Config.Labels "com.docker.compose.container-number"}}' "$(web | head -n 1)")" web cat /note)" 'by compose'
    # What is needed has been run before, and what docker compose run has made is left alone.
    (remote; docker compose run -d --name once web sleep 1000 >/dev/null 2>&1)
    stack needs "$answers"; sed -i 's/^    volumes:/    depends_on: { migrate: { condition: service_completed_successfully } }\n&/; s/^  client:/  migrate: { image: "local:1", command: sh -c "sleep 1; touch \/slots\/migrated", volumes: [ "slots:\/slots" ] }\n&/; s#sh -c .echo#&  $(ls /slots | grep migrated)#' compose.yaml
    run kra up; eq "$RC" 0; has "$ERR" '3 of 3'; eq "$(as shop exec roll-client-1 sh /ask)" 'migrated needs'
    eq "$(as shop ps --format '{{.Names}}' --filter name=once)" once; as shop rm -f once >/dev/null
    # Interrupted while one has stopped for one that does not become healthy.
    after=$(web | sort)
    stack five false; sed -i 's/replicas: 3/&, update_config: { order: stop-first }/; s/retries: 3/retries: 300/' compose.yaml
    "$KRA" up >"$T/up.out" 2>&1 & local updating=$!
    others() { web | sort | comm -13 <(echo "$after") - | wc -l; }
    until_eq 30 1 others
    kill -INT $updating; wait $updating && fail 'what was interrupted has not failed' || eq "$?" 130
    has "$(cat "$T/up.out")" 'the old containers are back'; eq "$(web | sort)" "$after"; eq "$(web -a | wc -l)" 3
    # Killed on the way: the next one goes on, and nothing is left over.
    stack six "$answers"; sed -i 's/start_period: 1s/start_period: 3s/; s/interval: 300ms/interval: 2s/' compose.yaml
    "$KRA" up >"$T/up.out" 2>&1 & updating=$!
    until_eq 30 1 others
    kill -KILL $updating; wait $updating || true
    run kra up; eq "$RC" 0; eq "$(web | wc -l)" 3; eq "$(web -a | wc -l)" 3
    local one; for one in $(web); do eq "$(as shop exec "$one" cat /index.html)" six; done
    # As docker compose does it.
    stack four "$answers"; ok kra up --strategy recreate
    eq "$(as shop exec roll-client-1 sh /ask)" four
    ok kra down
}

# What a workflow of CI does, with nothing but two variables: where kraud is and what it is known by, and a token.
test_ci() {
    has_compose; tenant shop; project
    local host=$KR_HOST token=$TOKEN fingerprint=$KR_FINGERPRINT engine=$KR_ENGINE
    sed -n '/^```sh ci$/,/^```$/p' "$REPO/docs/ci.md" | sed '1d;$d' >"$T/ci.sh"; [ -s "$T/ci.sh" ]
    docker tag local:1 shop-web; sed -i 's/image: local:1/image: shop-web/' compose.yaml
    mkdir "$T/home"
    env -i PATH="$(dirname "$KRA"):$PATH" HOME="$T/home" DOCKER_CONFIG="$DOCKER_CONFIG" KR_ENGINE="$engine" KR_HOST="$host#$fingerprint" KR_ACCESS_TOKEN="$token" \
        bash -euo pipefail "$T/ci.sh" >"$T/ci.out" 2>&1 || { cat "$T/ci.out"; fail "the workflow fails"; }
    eq "$(as shop ps --format '{{.Names}}')" shop-web-1
    as shop stop -t 0 shop-web-1 >/dev/null
}
