#!/usr/bin/env bash
# Those who come over the network: how they are let in, what they may, and that they are kept apart.
#
#   tests/tenants/run.sh              all of it; suites and tests are chosen as for tests/e2e/run.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export E2E_SUITES=$here E2E_NAME=tenants KRAUD_TEST_LISTEN=127.0.0.1:0
exec bash "$here/../e2e/run.sh" "$@"
