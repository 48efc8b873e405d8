#!/usr/bin/env bash
# Compose projects on a real kraud, by Docker's own compose plugin.
#
#   tests/compose/run.sh                    every suite, as those of tests/e2e
#   tests/compose/run.sh everyday:scale     tests of `everyday` whose name contains `scale`
#
# COMPOSE_PLUGIN  the plugin's file, and
# PROGRAMS        the root file system of Debian's programs (default: what scripts/test.sh compose brings to target/tools)
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/common.sh"
tools=${KRAUD_TOOLS:-$REPO/target/tools}
export PROGRAMS=${PROGRAMS:-$tools/programs.tar} COMPOSE_PLUGIN=${COMPOSE_PLUGIN:-$tools/docker-compose/usr/libexec/docker/cli-plugins/docker-compose}
[ -x "$COMPOSE_PLUGIN" ] || die "no compose plugin at $COMPOSE_PLUGIN: scripts/test.sh compose brings it"
# Nothing asks a terminal, and nothing phones home.
export COMPOSE_ANSI=never COMPOSE_PROGRESS=plain COMPOSE_MENU=false DOCKER_CLI_HINTS=false
export E2E_SUITES=$here E2E_NAME=compose E2E_TEST_TIMEOUT=${E2E_TEST_TIMEOUT:-120}
exec bash "$here/../e2e/run.sh" "$@"
