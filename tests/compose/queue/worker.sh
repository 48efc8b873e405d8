# Takes jobs off the list, one at a time, and counts what is done.
redis-cli -h redis ping || { echo "redis is not ready" >&2; exit 1; }
while :; do
    job=$(redis-cli -h redis blpop jobs 2 2>/dev/null | tail -n 1)
    [ -z "$job" ] || [[ $job == *rror* ]] || redis-cli -h redis sadd done "$job" >/dev/null
done
