#!/usr/bin/env bash
# Compose projects, throughput and names: kraud beside dockerd, in one run.
#
#   ./scripts/bench/networks.sh                   all measurements; prints them and updates docs/benchmarks.md
#   ./scripts/bench/networks.sh compose names     only these: compose throughput names; the document stays as it is
#
# Needs what engine.sh needs, iperf3, and the compose plugin, which it fetches as the tests do. BENCH_ROUNDS (5).
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$here/../lib.sh"
command -v iperf3 >/dev/null || die "no iperf3: apt-get install iperf3"
need_compose || die "the compose plugin is not to be had"
export COMPOSE_PLUGIN=$TOOLS/docker-compose/usr/libexec/docker/cli-plugins/docker-compose BENCH_PROGRAM=networks.py
exec "$here/engine.sh" "$@"
