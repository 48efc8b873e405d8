#!/usr/bin/env bash
# Other people's clients against a temporary kraud:
#   docker-py   everyday use of the Python SDK (docker_py.py)
#   docker-py-suite  the integration tests that it ships (python.sh)
#   aiodocker   the tests of the asynchronous Python SDK (python.sh)
#   dockerode   everyday use of the JavaScript SDK (dockerode.mjs)
#   testcontainers  a Python program that waits for a container's log line (testcontainers_py.py)
#   bollard     the test-suite that the Rust SDK ships in its package, against a registry of our own that holds
#               stand-ins for the images it wants; bollard-expected.txt lists what does not pass, and why; and
#               everyday use of it (bollard_everyday.rs)
#
#   tests/sdk/run.sh [docker-py] [docker-py-suite] [aiodocker] [dockerode] [testcontainers] [bollard]
#
# E2E_DOCKER_HOST uses a running daemon instead. BOLLARD_TARGET keeps the suite's build elsewhere.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/common.sh"
. "$here/../lib/registry.sh"
. "$here/python.sh"
BOLLARD=0.21.1
DOCKER_PY=7.1.0
DOCKERODE=4.0.7
TESTCONTAINERS=4.10.0

passed=0 failed=0
verdict() {
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "$1 sdk: $2"
}

docker_py() {
    local venv=$tools/docker-py-$DOCKER_PY log=$work/docker-py.log line
    if [ ! -x "$venv/bin/python" ]; then
        rm -rf "$venv.new"
        python3 -m venv "$venv.new" && "$venv.new/bin/python" -m pip install -q "docker==$DOCKER_PY" >"$work/pip.log" 2>&1 || {
            tail -n 5 "$work/pip.log"; verdict "not ok" "docker-py: it installs from PyPI"; return
        }
        # The scripts of a venv name its path; only its python is used, which does not.
        mv "$venv.new" "$venv"
    fi
    PYTHONDONTWRITEBYTECODE=1 timeout 300 "$venv/bin/python" "$here/docker_py.py" -v >"$log" 2>&1 </dev/null
    # unittest's verbose lines are `name (class) ... ok`, possibly with output in between.
    while read -r line; do
        case $line in
            *' ... ok') verdict ok "docker-py: ${line%% *}" ;;
            *' ... FAIL' | *' ... ERROR') verdict "not ok" "docker-py: ${line%% *}" ;;
        esac
    done < <(grep -E '^test_.* \.\.\. ' "$log")
    grep -q '^Ran [1-9]' "$log" || verdict "not ok" "docker-py: the tests run"
    if ! tail -n 1 "$log" | grep -q '^OK'; then sed -n '/^=====/,$p' "$log" | tail -n 60; fi
}

dockerode() {
    local dir=$tools/dockerode-$DOCKERODE log=$work/dockerode.log line
    command -v npm >/dev/null || { verdict "not ok" "dockerode: there is npm"; return; }
    if [ ! -d "$dir/node_modules/dockerode" ]; then
        rm -rf "$dir.new"; mkdir -p "$dir.new"
        (cd "$dir.new" && npm install --silent --no-audit --no-fund --no-save "dockerode@$DOCKERODE") >"$work/npm.log" 2>&1 || {
            tail -n 5 "$work/npm.log"; verdict "not ok" "dockerode: it installs from npm"; return
        }
        mv "$dir.new" "$dir"
    fi
    NODE_MODULES=$dir/node_modules timeout 120 node "$here/dockerode.mjs" >"$log" 2>"$log.errors" </dev/null
    while read -r line; do verdict "${line% *}" "dockerode: ${line##* }"; done < <(grep -E '^(not )?ok ' "$log")
    [ "$(grep -c '^ok ' "$log")" -ge 6 ] || { tail -n 40 "$log.errors"; verdict "not ok" "dockerode: all steps"; }
}

testcontainers() {
    local venv=$tools/testcontainers-$TESTCONTAINERS
    if [ ! -x "$venv/bin/python" ]; then
        rm -rf "$venv.new"
        python3 -m venv "$venv.new" && "$venv.new/bin/python" -m pip install -q "testcontainers==$TESTCONTAINERS" >"$work/pip.log" 2>&1 || {
            tail -n 5 "$work/pip.log"; verdict "not ok" "testcontainers: it installs from PyPI"; return
        }
        mv "$venv.new" "$venv"
    fi
    # Its reaper is an image of a registry, which there is none of.
    if PYTHONDONTWRITEBYTECODE=1 TESTCONTAINERS_RYUK_DISABLED=true timeout 90 "$venv/bin/python" "$here/testcontainers_py.py" >"$work/tc.log" 2>&1 </dev/null; then
        verdict ok "testcontainers: a container and its log line"
    else
        tail -n 15 "$work/tc.log"; verdict "not ok" "testcontainers: a container and its log line"
    fi
}

# What the suite pulls: hello-world:linux, alpine, fussybeaver/uhttpd. Stand-ins out of busybox.
stand_ins() {
    local root=$work/stand-in name
    make_rootfs "$root"
    mkdir -p "$root/www"
    printf '#!/bin/sh\nexec cat /etc/hello\n' >"$root/hello"
    printf '\nHello from Docker!\n' >"$root/etc/hello"
    mkdir "$root/etc/config"
    printf '# stand-in\nconfig uhttpd main\n' >"$root/etc/config/uhttpd"
    # The flags are uhttpd's; of busybox httpd's they have the same meaning.
    printf '#!/bin/sh\nexec httpd "$@"\n' >"$root/usr/sbin/run_uhttpd"
    chmod +x "$root/hello" "$root/usr/sbin/run_uhttpd"
    echo '<html></html>' >"$root/www/index.html"
    image_archive "$work/i.tar" "$REGISTRY/hello-world:linux" "$root" '{"Cmd":["/hello"]}'; docker load -q -i "$work/i.tar"
    image_archive "$work/i.tar" "$REGISTRY/alpine:latest" "$root" '{"Cmd":["/bin/sh"]}'; docker load -q -i "$work/i.tar"
    image_archive "$work/i.tar" "$REGISTRY/fussybeaver/uhttpd:latest" "$root" '{"Cmd":["/usr/sbin/run_uhttpd","-f","-p","80","-h","/www"],"ExposedPorts":{"80/tcp":{}}}'; docker load -q -i "$work/i.tar"
    for name in hello-world:linux alpine:latest fussybeaver/uhttpd:latest; do
        docker push -q "$REGISTRY/$name" || return 1
        docker rmi "$REGISTRY/$name"
    done
    rm -rf "$root" "$work/i.tar"
}

# The package as published, in a directory of its own; cargo downloads and unpacks it as for any dependency.
bollard_source() {
    local dir=$tools/bollard-$BOLLARD fetch=$tools/bollard-fetch unpacked
    [ ! -e "$dir" ] || { echo "$dir"; return; }
    rm -rf "$fetch"; mkdir -p "$fetch/src"
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\nbollard = "=%s"\n[workspace]\n' "$BOLLARD" >"$fetch/Cargo.toml"
    : >"$fetch/src/lib.rs"
    (cd "$fetch" && cargo fetch --quiet) >&2 || return 1
    unpacked=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name "bollard-$BOLLARD" | head -n 1)
    [ -n "$unpacked" ] || return 1
    cp -r "$unpacked" "$dir.new" && printf '\n[workspace]\n' >>"$dir.new/Cargo.toml"
    mv "$dir.new" "$dir"; rm -rf "$fetch"
    echo "$dir"
}

bollard() {
    local source log=$work/bollard.log name status reason
    source=$(bollard_source) || { verdict "not ok" "bollard: its package is fetched"; return; }
    cp "$here/bollard_everyday.rs" "$source/tests/everyday.rs"
    grep -q everyday "$source/Cargo.toml" || printf '\n[[test]]\nname = "everyday"\npath = "tests/everyday.rs"\n' >>"$source/Cargo.toml"
    (cd "$source" && CARGO_TARGET_DIR=${BOLLARD_TARGET:-$tools/bollard-build} cargo test --locked --tests --no-run --quiet) >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log"; verdict "not ok" "bollard: its tests build"; return
    }
    registry_start "$work/registry" bollard secret
    docker login -u bollard -p secret "$REGISTRY" >/dev/null 2>&1 || verdict "not ok" "bollard: login to the registry"
    stand_ins >/dev/null 2>"$work/stand-ins.log" || { cat "$work/stand-ins.log"; verdict "not ok" "bollard: the stand-in images are pushed"; }
    # Some tests connect to docker's own place whatever DOCKER_HOST says; here it is a mount of this process only.
    # shellcheck disable=SC2016
    local own_run='mount -t tmpfs none /run && ln -s "${DOCKER_HOST#unix://}" /run/docker.sock && exec "$0" "$@"'
    (cd "$source" && REGISTRY_PASSWORD=secret REGISTRY_HTTP_ADDR=$REGISTRY RUST_BACKTRACE=0 \
        CARGO_TARGET_DIR=${BOLLARD_TARGET:-$tools/bollard-build} \
        timeout -k 5 "${BOLLARD_TIMEOUT:-420}" unshare -m sh -c "$own_run" cargo test --locked --tests --no-fail-fast -- --test-threads 1) >"$log" 2>&1 </dev/null
    registry_stop "$work/registry"
    while read -r name status; do
        reason=$(sed -n "s/^$name[[:space:]]\{1,\}//p" "$here/bollard-expected.txt")
        case $status in
            ok*)
                verdict ok "bollard: $name"
                [ -z "$reason" ] || echo "    (passes although bollard-expected.txt lists it: take it off)"
                ;;
            FAILED*)
                if [ -n "$reason" ]; then echo "skipped sdk: bollard: $name ($reason)"; else
                    verdict "not ok" "bollard: $name"
                    grep -A4 -F "thread '$name'" "$log" | tail -n 4 | cut -c1-400
                fi
                ;;
        esac
    done < <(sed -nE 's/^test ([a-z_0-9:]+) .*\.\.\. (.*)$/\1 \2/p; s/^test ([a-z_0-9:]+) \.\.\. (ok|FAILED|ignored).*$/\1 \2/p' "$log" | sort -u)
    grep -q '^test everyday ' "$log" || verdict "not ok" "bollard: everyday use of it runs"
    grep -q '^test ' "$log" || { tail -n 20 "$log"; verdict "not ok" "bollard: its tests run"; }
    [ -z "${E2E_KEEP_LOGS:-}" ] || cp "$log" "$E2E_KEEP_LOGS/bollard.log"
}

[ "$(id -u)" = 0 ] || die "the tests need root"
work=$(scratch_dir)
tools=${KRAUD_TOOLS:-$REPO/target/tools}
mkdir -p "$tools" "$work/cache" "$work/docker-config"
export KRAUD_TEST_CACHE=$work/cache DOCKER_CONFIG=$work/docker-config
finish() { registry_stop "$work/registry"; [ -n "${E2E_DOCKER_HOST:-}" ] || daemon_destroy "$work/kraud" >/dev/null 2>&1; rm -rf --one-file-system "$work"; }
trap finish EXIT
if [ -n "${E2E_DOCKER_HOST:-}" ]; then export DOCKER_HOST=$E2E_DOCKER_HOST; else
    find_kraud
    daemon_start "$work/kraud"
fi
docker load -q -i "$(busybox_archive)" >/dev/null || verdict "not ok" "the test image loads"
# What one suite leaves behind is not what the next one counts.
clear_daemon() {
    local ids
    [ -z "${E2E_DOCKER_HOST:-}" ] || return 0
    ids=$(docker ps -aq)
    # shellcheck disable=SC2086
    [ -z "$ids" ] || docker rm -fv $ids >/dev/null 2>&1
    docker system prune -f --volumes >/dev/null 2>&1
}
for suite in "$@"; do
    case $suite in docker-py | docker-py-suite | aiodocker | dockerode | testcontainers | bollard) ;; *) die "no suite $suite" ;; esac
done
wanted=" ${*:-docker-py docker-py-suite aiodocker dockerode testcontainers bollard} "
if [[ $wanted == *" docker-py "* ]]; then docker_py; clear_daemon; fi
if [[ $wanted == *" docker-py-suite "* ]]; then docker_py_suite; clear_daemon; fi
if [[ $wanted == *" aiodocker "* ]]; then aiodocker; clear_daemon; fi
if [[ $wanted == *" dockerode "* ]]; then dockerode; clear_daemon; fi
if [[ $wanted == *" testcontainers "* ]]; then testcontainers; clear_daemon; fi
if [[ $wanted == *" bollard "* ]]; then bollard; fi
if [ -z "${E2E_DOCKER_HOST:-}" ]; then
    ! grep -q "panicked at" "$work/kraud/kraud.log" || { grep -A2 "panicked at" "$work/kraud/kraud.log" | head -n 9; verdict "not ok" "the daemon did not panic"; }
    [ -z "${E2E_KEEP_LOGS:-}" ] || cp "$work/kraud/kraud.log" "$E2E_KEEP_LOGS/sdk.log"
    daemon_destroy "$work/kraud" || verdict "not ok" "the daemon stops and leaves nothing behind"
fi
echo "sdk: $passed passed, $failed failed"
[ "$failed" = 0 ]
