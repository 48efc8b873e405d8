# The power goes while containers and images come and go: the machine is killed at a random moment and started again
# on the same disk, a few times. Sourced by run.sh; the machine's side of it is guest/crash.sh, and the lines
# `crash: WORD NAME` on the console are what they have in common.
#
# What a client was told must be true afterwards: `made` and `loaded` things are there, `gone` ones are not. What was
# under way (`making`, `going`) may be either.

# crash_images DIR: images whose content can be verified from inside.
crash_images() {
    local i root=$work/content
    for i in 1 2 3; do
        make_rootfs "$root"
        mkdir "$root/content"
        # Random, so that nothing compresses it away; many small files and a few larger ones.
        (cd "$root/content" && head -c 6000000 /dev/urandom >all && split -b 1500000 all large. && split -a 3 -b 30000 all small. && rm all && sha256sum -- * >../sums)
        image_archive "$1/content$i.tar" "content$i:latest" "$root"
        rm -rf "$root"
    done
}

crash() {
    local round rounds=${VM_ROUNDS:-3}
    RANDOM=${VM_SEED:-$((RANDOM + 1))}
    data_disk "$work/data.img"
    : >"$work/told"
    for round in $(seq 0 "$rounds"); do
        if [ "$round" -lt "$rounds" ]; then crash_until_the_power_goes "$round"; else crash_last_look "$round"; fi || return
    done
}

crash_until_the_power_goes() {
    local wanted=$((6 + RANDOM % 40)) pause
    pause=$(printf '0.%03d' $((RANDOM % 900)))
    machine_start crash "$work/data.img" "kraud.round=$1"
    if ! wait_until 500 crash_said "$wanted" || grep -q '^vm ended' "$work/console"; then
        verdict 'not ok' "round $1: kraud works (the power shall go after $wanted words)"; crash_show; machine_stop; return 1
    fi
    sleep "$pause"
    kill -0 "$machine" || verdict 'not ok' "round $1: the machine goes on until the power goes"
    machine_end >/dev/null
    crash_compare "$1"
    # In order, and without a line that was cut. A whole one counts, as what it announces may have been done by then.
    local whole=(cat)
    [ "$(tail -c 1 "$work/console" | wc -l)" = 1 ] || whole=(sed '$d')
    tr -d '\r' <"$work/console" | "${whole[@]}" | grep -E '^crash: (making|made|going|gone|loading|loaded|unloading|unloaded) ' >>"$work/told"
}

crash_last_look() {
    machine_start crash "$work/data.img" "kraud.round=$1 kraud.last"
    machine_output "${VM_TIMEOUT:-300}" >/dev/null
    [ "$(machine_end)" = 'crash 0' ] || { verdict 'not ok' "round $1: kraud comes up for the last time"; crash_show; return 1; }
    crash_compare "$1"
}

crash_said() { [ "$(grep -cE '^crash: (made|gone|loaded|unloaded) ' "$work/console")" -ge "$1" ] || grep -q '^vm ended' "$work/console"; }
crash_show() { tail -n 25 "$work/console" | tr -d '\r' | cut -c1-300; }

# crash_compare ROUND: what the machine found when it came up, with what was told before.
crash_compare() {
    local found=$work/found
    tr -d '\r' <"$work/console" | sed -n 's/^crash: found //p' >"$found"
    tr -d '\r' <"$work/console" | grep -E '^(not )?ok vm: ' >"$work/verdicts"
    while read -r line; do verdict "${line%% vm: *}" "${line#* vm: }"; done <"$work/verdicts"
    tr -d '\r' <"$work/console" | sed -n 's/^    //p'
    [ -s "$work/told" ] || return 0
    if grep -q '^crash: failed' "$work/console"; then verdict 'not ok' "round $round: every command succeeds"; grep -B3 '^crash: failed' "$work/console" | head -n 20; fi
    # The last word about each name decides.
    awk '{ last[$3] = $2 } END { for (name in last) print last[name], name }' "$work/told" | sort >"$work/last"
    crash_all 'what was made is there' '^(made|loaded) ' 1
    crash_all 'what was removed is gone' '^(gone|unloaded) ' 0
}

# crash_all TEXT WORDS PRESENT: every name with such a last word is among the found ones, or is not.
crash_all() {
    local name wrong='' count=0 result=ok
    while read -r _ name; do
        count=$((count + 1))
        if [ "$3" = 1 ]; then grep -qxF "$name" "$work/found"; else ! grep -qxF "$name" "$work/found"; fi || { wrong+=" $name"; result='not ok'; }
    done < <(grep -E "$2" "$work/last")
    verdict "$result" "round $round: $1 ($count${wrong:+; wrong:$wrong})"
}
