# What one does with a project from day to day.

. "$E2E_SUITES/lib.sh"

test_up_and_down() {
    project shop
    ok dc up -d
    eq "$(dc ps --services --status running | sort | tr '\n' ' ')" 'store web worker '
    eq "$(docker inspect -f '{{.State.ExitCode}}' shop-migrate-1)" 0
    eq "$(docker exec shop-store-1 cat /data/migrated)" $'ready\ns3cret\nmode=test'
    eq "$(curl -s "http://$(dc port web 80)/")" welcome
    eq "$(docker volume inspect -f '{{.Driver}}' shop_data)" nfs
    eq "$(docker exec shop-web-1 nslookup -type=a worker 2>/dev/null | grep -c '^Address: ')" 2
    has "$(docker exec shop-web-1 cat /etc/hosts)" outside.example
    eq "$(docker exec shop-store-1 sh -c 'ulimit -n; ulimit -Hn; stat -f -c %T /scratch; cat /proc/1/comm' | tr '\n' ' ')" '1000 2000 tmpfs docker-init '
    eq "$(ins shop-store-1 '{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}}')" '500000000 67108864'
    until_eq 10 healthy ins shop-web-1 '{{.State.Health.Status}}'
    eq "$(count_of debug)" 0
    # A second time changes nothing.
    local before; before=$(docker ps -q | sort)
    ok dc up -d
    eq "$(docker ps -q | sort)" "$before"
    ok dc down -v
    eq "$(docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom)" ''
}

test_look() {
    project shop
    ok dc up -d
    has "$(dc ps)" shop-web-1
    eq "$(dc ps --format json | jq -r .Service | sort -u | tr '\n' ' ')" 'store web worker '
    until_has 5 'worker-1  | working for shop' dc logs --tail 5 worker
    # Both workers, and what they write after one has begun to follow.
    timeout 2 docker compose logs -f --since "$(date -u +%FT%TZ)" worker >followed 2>&1 || true
    between "$(grep -c 'worker-1 .*working' followed)" 4 20; between "$(grep -c 'worker-2 .*working' followed)" 4 20
    eq "$(dc exec -T store cat /data/ready)" ready
    fails 3 docker compose exec -T store sh -c 'exit 3'
    eq "$(dc run --rm -T worker echo once)" once
    has "$(dc top store)" 'httpd -f -p 6000'
    has "$(dc images)" busybox
    matches "$(dc port web 80)" '^127.0.0.1:[0-9]+$'
    has "$(dc ls)" shop
    has "$(dc config)" 'example.tier: front'
    eq "$(dc config --services | sort | tr '\n' ' ')" 'migrate store web worker '
    (timeout 4 docker compose events --json >happened 2>&1 || true) & local watching=$!
    sleep 0.7; docker restart -t 0 shop-worker-1 >/dev/null
    wait $watching
    has "$(cat happened)" '"action":"start"'
    echo local >file
    ok dc cp file store:/data/file; eq "$(dc exec -T store cat /data/file)" local
    ok dc cp store:/data/file back; eq "$(cat back)" local
    gone
}

test_change() {
    project shop
    ok dc up -d
    ok dc stop -t 1 worker; eq "$(count_of worker)" 0
    ok dc start worker; eq "$(count_of worker)" 2
    ok dc restart -t 1 worker; eq "$(count_of worker)" 2
    ok dc pause worker; eq "$(dc ps -q --status paused | wc -l)" 2
    ok dc unpause worker
    ok dc up -d --scale worker=3; eq "$(count_of worker)" 3
    ok dc scale worker=1; eq "$(count_of worker)" 1
    ok dc kill worker; eq "$(count_of worker)" 0
    ok dc rm -f worker
    # Only what changed is made anew.
    local store web; store=$(one_of store) web=$(one_of web)
    sed -i 's/example.tier: front/example.tier: back/' compose.yaml
    ok dc up -d
    eq "$(one_of store)" "$store"; ne "$(one_of web)" "$web"; eq "$(ins shop-web-1 '{{index .Config.Labels "example.tier"}}')" back
    ok dc --profile debug up -d; eq "$(count_of debug)" 1
    # A service that is not in the file any more.
    sed -i '/^  worker:/,/^      replicas: 2/d' compose.yaml
    run dc up -d; has "$ERR" orphan; eq "$(count_of worker)" 2
    ok dc up -d --remove-orphans; eq "$(count_of worker)" 0
    gone
}

test_wait_and_exit_codes() {
    cat >compose.yaml <<-'EOF'
	services:
	  job: { image: busybox, command: sh -c "sleep 0.5; exit 4" }
	  slow:
	    image: busybox
	    init: true
	    command: sh -c "sleep 1; touch /ok; sleep 1000"
	    healthcheck: { test: test -e /ok, interval: 200ms, retries: 50 }
	EOF
    export COMPOSE_PROJECT_NAME=jobs
    fails 4 docker compose up --exit-code-from job --abort-on-container-exit
    gone
    ok dc up -d --wait slow
    eq "$(ins jobs-slow-1 '{{.State.Health.Status}}')" healthy
    ok dc up -d job
    fails 4 docker compose wait job
    gone
}

test_an_image_that_changed() {
    cat >compose.yaml <<-'EOF'
	services:
	  app: { image: "app:latest", init: true, command: sleep 1000, volumes: ["keep:/keep"] }
	volumes: { keep: }
	EOF
    export COMPOSE_PROJECT_NAME=app
    # version NAME: the image again, with another file in it.
    version() {
        local made; made=$(docker create busybox true)
        echo "$1" >version; docker cp -q version "$made:/version"; docker commit "$made" app:latest >/dev/null; docker rm "$made" >/dev/null
    }
    version one; ok dc up -d
    eq "$(dc exec -T app cat /version)" one
    dc exec -T app sh -c 'echo data >/keep/file'
    version two; ok dc up -d
    eq "$(dc exec -T app cat /version /keep/file | tr '\n' ' ')" 'two data '
    gone
    docker rmi -f app:latest >/dev/null
}

test_pull_and_push() {
    . "$REPO/tests/lib/registry.sh"
    registry_start "$T/registry"
    trap 'registry_stop "$T/registry"; sweep' EXIT
    export COMPOSE_PROJECT_NAME=pushed
    printf 'services:\n  app:\n    image: %s/app:1\n    build: .\n    init: true\n    command: sleep 1000\n' "$REGISTRY" >compose.yaml
    docker tag busybox "$REGISTRY/app:1"
    ok dc push
    has "$(curl -s "http://$REGISTRY/v2/app/tags/list")" '"1"'
    docker rmi "$REGISTRY/app:1" >/dev/null
    ok dc pull
    ok docker image inspect "$REGISTRY/app:1"
    ok dc up -d --pull always
    eq "$(dc ps --services --status running)" app
    sed -i 's/app:1/nosuch:1/' compose.yaml
    run dc pull; ne "$RC" 0; has "$ERR" 'not found'
    sed -i 's/nosuch:1/app:1/' compose.yaml
    gone
    docker rmi "$REGISTRY/app:1" >/dev/null
}

test_watch() {
    export COMPOSE_PROJECT_NAME=watched
    mkdir src; echo one >src/file
    cat >compose.yaml <<-'EOF'
	services:
	  app:
	    image: watched-app
	    build: .
	    init: true
	    command: sleep 1000
	    develop:
	      watch:
	        - { action: sync, path: ./src, target: /src }
	EOF
    docker tag busybox watched-app
    ok dc up -d
    docker compose watch --no-up >watching 2>&1 & local watching=$!
    until_has 10 'enabled' cat watching
    sleep 0.5
    echo two >src/file; echo new >src/other
    content() { dc exec -T app sh -c 'cat /src/file /src/other' | tr '\n' ' '; }
    until_eq 15 'two new ' content
    rm src/other
    content() { dc exec -T app sh -c 'cat /src/file; ls /src' | tr '\n' ' '; }
    until_eq 15 'two file ' content
    kill $watching; wait $watching 2>/dev/null || true
    gone
    docker rmi watched-app >/dev/null
}

test_bad_files() {
    export COMPOSE_PROJECT_NAME=bad
    compose() { printf 'services:\n  a:\n    image: '"${IMAGE:-busybox}"'\n    command: sleep 1000\n%s\n' "$1" >compose.yaml; run dc up -d; ne "$RC" 0; gone; }
    compose '    ports: ["99999:80"]'; matches "$ERR" '[Ii]nvalid hostPort: 99999'
    IMAGE=nosuch.invalid/image compose ''; has "$ERR" nosuch.invalid
    compose $'    networks: {n: {ipv4_address: 10.200.0.9}}\nnetworks: {n: {ipam: {config: [{subnet: 10.201.0.0/24}]}}}'; has "$ERR" 'no configured subnet or ip-range contain the IP address 10.200.0.9'
    compose $'    volumes: ["vol:/v"]\nvolumes: {vol: {driver: nosuch}}'; has "$ERR" nosuch
    compose $'    volumes: ["vol:/v"]\nvolumes: {vol: {driver: nfs, driver_opts: {size: "-1"}}}'; has "$ERR" 'invalid value "-1" of volume option size'
    compose '    mem_limit: 1k'; has "$ERR" 'Minimum memory limit'
    # A port that somebody has.
    ok docker run -d --name holder -p 127.0.0.1:0:80 busybox sleep 1000
    compose "    ports: [\"$(docker port holder 80):80\"]"; has "$ERR" 'port is already allocated'
    gone
    eq "$(docker volume ls -q; docker network ls -q --filter type=custom)" ''
}
