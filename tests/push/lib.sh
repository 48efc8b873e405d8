# Words for the suites about pushes; sourced after e2e/lib.sh. Those of the suites about tenants are used.
. "$REPO/tests/tenants/lib.sh"

# archive OUT NAME TREE… [-- MTIME]: an archive as docker save writes it, each tree a layer over busybox's, all times MTIME.
archive() { python3 "$REPO/tests/push/archive.py" "$(busybox_archive)" "$@"; }
# pushed JSON-PATH ARCHIVE…: pushes, and prints something of what was done.
pushed() { kra push -o json --archive "$2" | jq -r ".[0].$1"; }
# tree DIR SEED FILES: a directory with files of made-up bytes.
tree() { python3 -c 'import os, random, sys
base, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made = random.Random(seed)
for n in range(count):
    os.makedirs(f"{base}/t{n % 20}", exist_ok=True)
    open(f"{base}/t{n % 20}/f{n}", "wb").write(made.randbytes(made.choice([0, 100, 3000, 20000, 300000])))' "$@"; }
# docker compose, where the tests keep it.
plugin=${KRAUD_TOOLS:-$REPO/target/tools}/docker-compose/usr/libexec/docker/cli-plugins/docker-compose
if [ -x "$plugin" ]; then mkdir -p "$DOCKER_CONFIG/cli-plugins"; ln -sf "$plugin" "$DOCKER_CONFIG/cli-plugins/docker-compose"; fi
has_compose() { docker compose version >/dev/null 2>&1 || fail "docker has no compose plugin: scripts/test.sh push fetches it"; }
# remote: docker and docker compose speak to the tenant's kraud, as `kra setup docker` has it in the environment.
remote() { unset DOCKER_CONTEXT; eval "$(kra setup docker --env)"; }
