# The test-suites that Python's clients ship in their source packages. Sourced by run.sh.
#   docker-py    the integration tests of the last source package that ships them, with the current client
#   aiodocker    all tests that need neither a swarm, a build nor ssh
# The images they want are stand-ins; what they would pull from Docker Hub is in the lists of what does not pass.
DOCKER_PY_TESTS=7.0.0
AIODOCKER=0.27.0

# python_suite_venv NAME SOURCE-PACKAGE==VERSION PACKAGE…: prints the directory of the unpacked source; its venv is beside it.
python_suite_venv() {
    local dir=$tools/$1 source=$2; shift 2
    if [ ! -x "$dir/venv/bin/python" ]; then
        rm -rf "$dir" "$dir.new"; mkdir -p "$dir.new"
        python3 -m pip download -q --disable-pip-version-check --no-binary :all: --no-deps -d "$dir.new" "$source" >&2 || return 1
        tar -xzf "$dir.new"/*.tar.gz -C "$dir.new" --strip-components=1 || return 1
        rm -f "$dir.new"/*.tar.gz
        mv "$dir.new" "$dir"
        # A venv names its path: it is made where it stays.
        python3 -m venv "$dir/venv.new" && "$dir/venv.new/bin/python" -m pip install -q --disable-pip-version-check "$@" >&2 || return 1
        mv "$dir/venv.new" "$dir/venv"
    fi
    echo "$dir"
}

# python_suite NAME DIR SECONDS ARGUMENT…: runs pytest; NAME-expected.txt lists what does not pass, and why.
python_suite() {
    local name=$1 dir=$2 seconds=$3 log=$work/$1.log test status reason; shift 3
    (cd "$dir" && PYTHONDONTWRITEBYTECODE=1 COLUMNS=300 timeout -k 5 "$seconds" venv/bin/python -m pytest -p no:cacheprovider \
        -c /dev/null --rootdir . -v -rxX --tb=short --timeout 60 "$@") >"$log" 2>&1 </dev/null
    while IFS=$'\t' read -r test status; do
        reason=$(awk -v t="$test" '$1 == t { $1 = ""; print substr($0, 2) }' "$here/$name-expected.txt")
        case $status in
            PASSED | XPASS | XFAIL)
                verdict ok "$name: $test"
                [ -z "$reason" ] || [ "$status" = XFAIL ] || echo "    (passes although $name-expected.txt lists it: take it off)"
                ;;
            FAILED | ERROR)
                if [ -n "$reason" ]; then echo "skipped sdk: $name: $test ($reason)"; else
                    verdict "not ok" "$name: $test"
                    grep -A30 -E "^_+ .*${test##*::}" "$log" | grep '^E ' | tail -n 3 | cut -c1-400
                fi
                ;;
        esac
    done < <(sed -nE 's#^tests/(integration/)?([a-z_0-9]+)\.py::(.*) (PASSED|FAILED|ERROR|XPASS|XFAIL) .*#\2::\3\t\4#p' "$log" | sort -u)
    grep -qE '^=+ .*[0-9]+ passed' "$log" || { tail -n 20 "$log"; verdict "not ok" "$name: its tests run to their end"; }
    [ -z "${E2E_KEEP_LOGS:-}" ] || cp "$log" "$E2E_KEEP_LOGS/$name.log"
}

# What docker-py wants: alpine in two versions, with its user postgres and its /var/opt.
docker_py_images() {
    local root=$work/stand-in tag
    make_rootfs "$root"
    mkdir -p "$root/var/opt"
    echo 'postgres:x:70:70:postgres:/tmp:/bin/sh' >>"$root/etc/passwd"
    for tag in alpine:3.10 alpine:latest; do
        image_archive "$work/i.tar" "$tag" "$root" '{"Cmd":["/bin/sh"]}' && docker load -q -i "$work/i.tar" || return 1
    done
    rm -rf "$root" "$work/i.tar"
}

docker_py_suite() {
    local dir file skip=()
    dir=$(python_suite_venv docker-py-tests-$DOCKER_PY_TESTS "docker==$DOCKER_PY_TESTS" \
        "docker==$DOCKER_PY" pytest==8.4.2 pytest-timeout==2.4.0 paramiko==3.5.1) || { verdict "not ok" "docker-py: its tests are fetched"; return; }
    # The client is the installed one; its contexts of an earlier run are where the tests run.
    rm -rf "$dir/docker" "$dir/contexts"
    docker_py_images >/dev/null || { verdict "not ok" "docker-py: the stand-in images load"; return; }
    # Swarm, plugins of Docker Hub, builds, and helpers of docker login that are no business of the daemon.
    for file in api_build api_config api_plugin api_secret api_service api_swarm models_nodes models_services models_swarm; do
        skip+=(--ignore "tests/integration/${file}_test.py")
    done
    python_suite docker-py "$dir" 300 tests/integration "${skip[@]}" --ignore tests/integration/credentials
}

# A root file system with this machine's own Python in its own places, as python:3.13-alpine has one.
python_rootfs() {
    local root=$1 binary library file
    make_rootfs "$root"
    binary=$(python3 -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
    library=$(python3 -c 'import os, sysconfig; print(os.path.realpath(sysconfig.get_paths()["stdlib"]))')
    mkdir -p "$root$library" "$root/usr/local/bin"
    (cd "$library" && tar -c --exclude __pycache__ --exclude site-packages --exclude dist-packages --exclude ./test \
        --exclude idlelib --exclude tkinter --exclude ensurepip --exclude 'config-*' --exclude '*.a' .) | tar -x -C "$root$library"
    { echo "$binary"; find "$library/lib-dynload" -name '*.so' | xargs ldd "$binary" | grep -oE '/[^ ]+\.so[^ ]*'; } | sort -u | while read -r file; do
        [ ! -e "$file" ] || { mkdir -p "$root$(dirname "$file")" && cp -L "$file" "$root$file"; }
    done
    ln -sf "$binary" "$root/usr/local/bin/python"
    ln -sf "$binary" "$root/usr/local/bin/python3"
}

aiodocker() {
    local dir root=$work/python-root tag
    dir=$(python_suite_venv aiodocker-$AIODOCKER "aiodocker==$AIODOCKER" \
        "aiodocker==$AIODOCKER" pytest==8.4.2 pytest-timeout==2.4.0 pytest-asyncio==1.2.0 testcontainers==4.13.2 async-timeout==5.0.1) || { verdict "not ok" "aiodocker: its tests are fetched"; return; }
    rm -rf "$dir/aiodocker"
    registry_start "$work/registry"
    python_rootfs "$root"
    for tag in python:3.13-alpine python:3.14-alpine; do
        { image_archive "$work/i.tar" "$REGISTRY/$tag" "$root" '{"Cmd":["python3"]}' && docker load -q -i "$work/i.tar" && docker push -q "$REGISTRY/$tag"; } >/dev/null || {
            verdict "not ok" "aiodocker: the stand-in images are pushed"; registry_stop "$work/registry"; return
        }
    done
    docker tag "$REGISTRY/python:3.13-alpine" python:latest
    rm -rf "$root" "$work/i.tar"
    # The tests name images of Docker Hub; here they come from a registry of our own.
    sed -i -E "s#return \"[^\"]*python:3#return \"$REGISTRY/python:3#" "$dir/tests/conftest.py"
    TESTCONTAINERS_RYUK_DISABLED=true python_suite aiodocker "$dir" 300 -o asyncio_mode=auto \
        -o asyncio_default_fixture_loop_scope=session -o asyncio_default_test_loop_scope=session tests \
        -k 'not swarm and not service and not secret and not config and not nodes and not ssh and not TLS and not build and not test_restart'
    registry_stop "$work/registry"
}
