#!/bin/bash
# Inside the machine: every test of tests.sh, and those of the end-to-end suites that control groups decide, against
# one daemon. Says `ok …` and `not ok …`.
export REPO=/vm/repo KRAUD_BIN=/usr/bin/kraud KRAUD_TEST_CACHE=/vm/cache DOCKER_CONFIG=/tmp/docker KRAUD_TEST_DIR=/data/k
export E2E_WORK=/data/tmp KRAUD_TEST_TMP=/data/tmp KRAUD_TEST_PATIENCE=200
. $REPO/tests/lib/common.sh

verdict() { echo "$1 vm: $2"; }
# one SUITE-FILE FUNCTION TEXT
one() {
    local from=$SECONDS result=ok output
    output=$(timeout -k 5 "${VM_TEST_TIMEOUT:-120}" bash $REPO/tests/e2e/one.sh "$1" "$2" 2>&1 </dev/null) || result="not ok"
    verdict "$result" "$3 ($((SECONDS - from)) s)"
    [ "$result" = ok ] || printf '%s\n' "$output" | tail -n 12 | cut -c1-400
}

leak_snapshot /tmp/before
if output=$(kraud doctor --data-dir /data/k/data 2>&1); then verdict ok 'doctor, before anything is set up'; else
    verdict 'not ok' 'doctor, before anything is set up'; echo "$output"
fi
daemon_start $KRAUD_TEST_DIR || { verdict 'not ok' 'kraud starts'; exit 1; }
docker load -q -i "$(busybox_archive)" >/dev/null || verdict 'not ok' 'the test image loads'
for name in $(sed -n 's/^\(test_[a-z0-9_]*\)().*/\1/p' /vm/tests.sh); do one /vm/tests.sh "$name" "${name#test_}"; done
while read -r suite name; do
    [ -z "$suite" ] || one "$REPO/tests/e2e/$suite.sh" "test_$name" "$suite: $name"
done </vm/e2e-tests
grep -A3 'panicked at' $KRAUD_TEST_DIR/kraud.log && verdict 'not ok' 'the daemon did not panic'
if daemon_destroy $KRAUD_TEST_DIR; then verdict ok 'the daemon stops with its containers'; else verdict 'not ok' 'the daemon stops with its containers'; fi
if leak_check /tmp/before; then verdict ok 'nothing is left behind'; else verdict 'not ok' 'nothing is left behind'; fi
