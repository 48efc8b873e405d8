# kraud dies in the middle of what compose does: the next call converges.

. "$REPO/tests/compose/everyday.sh"
unset -f $(declare -F | awk '{ print $3 }' | grep '^test_')

test_killed_during_up() {
    local dir=$KRAUD_TEST_DIR moment
    project shop
    for moment in 0.05 0.2 0.5 0.9 1.4; do
        (dc up -d >/dev/null 2>&1 || true) & local upping=$!
        sleep $moment
        daemon_kill "$dir"; daemon_start "$dir"
        wait $upping
        ok dc up -d
        eq "$(dc ps --services --status running | sort | tr '\n' ' ')" 'store web worker '
        eq "$(count_of worker) $(count_of web)" '2 1'
        eq "$(curl -s "http://$(dc port web 80)/")" welcome
        (dc down -v -t 1 >/dev/null 2>&1 || true) & upping=$!
        sleep $moment
        daemon_kill "$dir"; daemon_start "$dir"
        wait $upping
        ok dc down -v -t 1
        eq "$(docker ps -aq; docker volume ls -q; docker network ls -q --filter type=custom)" ''
    done
}
