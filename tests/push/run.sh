#!/usr/bin/env bash
# kra push and kra up: images that come as what is new in them.
#
#   tests/push/run.sh              all of it; suites and tests are chosen as for tests/e2e/run.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export E2E_SUITES=$here E2E_NAME=push KRAUD_TEST_LISTEN=127.0.0.1:0
exec bash "$here/../e2e/run.sh" "$@"
