#!/usr/bin/env bash
# kraud on a machine of its own: Debian's kernel in qemu, without any network. There it meets what the machine that
# runs the tests need not have (control groups of version 2 and nothing else) and what would be unkind to it (the
# power goes while containers come and go).
#
#   tests/vm/run.sh                   everything
#   tests/vm/run.sh cgroup2           one part: cgroup2 crash
#
# KRAUD_TOOLS    has the unpacked kernel package (scripts/test.sh fetches it); default target/tools
# VM_TESTS       of cgroup2, only tests whose name contains one of these words
# VM_ROUNDS      power failures of `crash` (default 3); VM_SEED=N replays their moments
# VM_KEEP        directory for the consoles' output
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/common.sh"
. "$here/machine.sh"
. "$here/crash.sh"

passed=0 failed=0
verdict() {
    if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    echo "$1 vm: $2"
}

# Passes the machine's verdicts on and counts them; everything else that it says is kept beside.
cgroup2() {
    data_disk "$work/data.img"
    machine_start cgroup2 "$work/data.img"
    local line result
    while IFS= read -r line; do
        echo "$line"
        case $line in
            'ok vm: '*) passed=$((passed + 1)) ;;
            'not ok vm: '*) failed=$((failed + 1)) ;;
        esac
    done < <(machine_output "${VM_TIMEOUT:-600}")
    result=$(machine_end)
    [ "$result" = 'cgroup2 0' ] || { verdict 'not ok' "the machine comes to its end (${result:-no answer})"; tail -n 25 "$work/console" | cut -c1-300; }
}

[ "$(id -u)" = 0 ] || die "the tests need root"
find_kraud
work=$(scratch_dir)
trap 'machine_stop; rm -rf --one-file-system "$work"' EXIT
trap 'exit 143' TERM INT
export KRAUD_TEST_CACHE=$work/cache
mkdir -p "$KRAUD_TEST_CACHE"
machine_prepare
wanted=" ${*:-cgroup2 crash} "
if [[ $wanted == *" cgroup2 "* ]]; then cgroup2; fi
if [[ $wanted == *" crash "* ]]; then crash; fi
echo "vm: $passed passed, $failed failed"
[ "$failed" = 0 ]
