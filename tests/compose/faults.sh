# kraud dies in the middle of what compose does: the next call converges.

. "$E2E_SUITES/lib.sh"

# What the kernel has of this daemon beside the default bridge: pairs, bridges, namespaces, processes, elements of rules.
kernel_things() {
    local id; id=$(instance_of "$KRAUD_TEST_DIR/data")
    ip -o link show group $((16#$id)) | awk '{ print $2 }' | grep -v "^kr${id}0:" || true
    find "/run/kraud/instances/$id/netns" "/run/kraud/instances/$id/runtime/c" -mindepth 1 -maxdepth 1
    pgrep -f "/run/kraud/instances/$id/" | sed 's/^/shim /' || true
    nft -j list table inet "kraud_$id" | jq -r '[.nftables[].set? // empty | {name, elem}] | map(select(.elem)) | .[] | "\(.name) \(.elem | length)"'
}

test_killed_during_up() {
    local dir=$KRAUD_TEST_DIR moment before
    before=$(kernel_things)
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
        # Whatever waits for a client of its own goes after ten seconds.
        until_eq 25 "$before" kernel_things
    done
}
