# Getting in, over the network: tokens, logins, certificates, and how they end.

. "$E2E_SUITES/lib.sh"

test_only_those_who_are_known() {
    tenant shop
    https '' GET /_ping; eq "$CODE" 401; has "$BODY" 'who is there'
    https "x$TOKEN" GET /kr/v1/whoami; eq "$CODE" 401; has "$BODY" '"kind":"unauthorized"'
    https "${TOKEN%?}" GET /info; eq "$CODE" 401
    https "$TOKEN" GET /kr/v1/whoami; eq "$CODE" 200; has "$BODY" '"namespace":"shop","role":"owner"'
    eq "$(curl -s -o "$T/answer" -w '%{http_code}' "http://${KR_HOST#https://}/_ping")" 400
    has "$(cat "$T/answer")" 'HTTP request to an HTTPS server'
    # Only TLS 1.2 and newer.
    if curl -sk --tls-max 1.1 "$KR_HOST/_ping" 2>/dev/null; then fail 'TLS 1.1 is let in'; fi
    curl -sk --tls-max 1.2 -H "Authorization: Bearer $TOKEN" "$KR_HOST/_ping" >/dev/null
    # Over the socket one is the operator, without a word.
    api GET /kr/v1/whoami; has "$BODY" '"role":"operator"'
    kraud tenant rm shop >/dev/null
    https "$TOKEN" GET /_ping; eq "$CODE" 401
}

test_login() {
    tenant shop
    unset KR_HOST
    local url finger; url=$(door) finger=$KR_FINGERPRINT
    unset KR_FINGERPRINT
    run kra login "$url" --token-stdin <<<"$TOKEN"; eq "$RC" 6; has "$ERR" 'kraud fingerprint'
    run kra login "$url" --fingerprint "$(printf '0%.0s' {1..64})" --token-stdin <<<"$TOKEN"; eq "$RC" 6
    run kra login "$url" --fingerprint "$finger" --token-stdin <<<nonsense; eq "$RC" 5
    ok kra login "$url" --fingerprint "$finger" --token-stdin <<<"$TOKEN"
    eq "$(stat -c %a "$KR_CONFIG/contexts.json")" 600
    has "$(kra whoami)" 'shop'
    has "$(kra context ls)" 'shop *'
    tenant other
    ok kra login "$url" --fingerprint "$finger" --name second --token-stdin <<<"$TOKEN"
    eq "$(kra whoami -o json | jq -r .namespace)" other
    eq "$(kra -c shop whoami -o json | jq -r .namespace)" shop
    ok kra context use shop; eq "$(kra whoami -o json | jq -r .namespace)" shop
    run kra -c nobody whoami; eq "$RC" 2; has "$ERR" 'kra context ls'
    # Volumes over the network.
    ok kra volume create data --size 64M
    eq "$(kra volume ls -o json | jq -r '.[].name')" data
    eq "$(kra -c second volume ls -o json | jq length)" 0
    eq "$(docker volume ls -q)" ''
    # A new authority is trusted by way of the old one, and one that logs in now by itself.
    ok kraud rotate-authority
    wait_until 5 kra whoami
    ok kra login "$url" --fingerprint "$(kraud fingerprint)" --name third --token-stdin <<<"$TOKEN"
    ok kra login "$url" --fingerprint "$finger" --name fourth --token-stdin <<<"$TOKEN"
    ok kra logout; ok kra -c second logout
    run kra -c shop whoami; eq "$RC" 0
    # A login's token goes to its own host only.
    KR_HOST=https://elsewhere.invalid run kra -c shop whoami; eq "$RC" 2; has "$ERR" 'not of https://elsewhere.invalid'
    # The environment goes before any login.
    eq "$(KR_HOST=$url KR_FINGERPRINT=$finger KR_ACCESS_TOKEN=$TOKEN kra whoami -o json | jq -r .namespace)" other
}

test_docker_by_certificate() {
    tenant shop
    local owner=$TOKEN
    export KR_ACCESS_TOKEN=$owner
    ok kra setup docker --use
    eq "$(env -u DOCKER_HOST docker context show)" kraud.shop
    eq "$(find "$DOCKER_CONFIG/contexts/tls" -name key.pem -printf '%m\n' | sort -u)" 600
    image_for shop
    eq "$(as kraud.shop run --rm "$IMG" echo hello)" hello
    eq "$(printf 'in\n' | as kraud.shop run --rm -i "$IMG" cat)" in
    eq "$(docker ps -aq | wc -l)" 0
    # For programs that read the environment.
    (eval "$(kra setup docker --env)"; eq "$(docker image ls -q | wc -l)" 1)
    # Renewed by the same call.
    ok kra setup docker --days 1
    as kraud.shop ps >/dev/null
    # It ends with its token, for what is connected too.
    local id; id=$(kra token create --role owner -o json | tee "$T/second" | jq -r .token.id)
    KR_ACCESS_TOKEN=$(jq -r .secret "$T/second") kra setup docker --name second >/dev/null 2>&1
    as second run -d --name talker "$IMG" sh -c 'while :; do echo word; sleep 0.2; done' >/dev/null
    as second logs -f talker >"$T/words" 2>&1 & local following=$!
    wait_until 10 grep -q word "$T/words"
    ok kra token revoke "$id"
    wait_until 5 pid_gone $following || fail 'a stream outlives its right'
    run as second ps; ne "$RC" 0
    as kraud.shop rm -f talker >/dev/null
    # One that somebody else has signed.
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$T/k" -out "$T/c" -subj '/CN=shop (owner)' -days 1 2>/dev/null
    if curl -sk --cert "$T/c" --key "$T/k" "$KR_HOST/_ping"; then fail "a stranger's certificate is let in"; fi
}
pid_gone() { ! kill -0 "$1" 2>/dev/null; }

test_roles() {
    tenant shop
    image_for shop
    as shop run -d --name web "$IMG" sleep 1000 >/dev/null
    export KR_ACCESS_TOKEN=$TOKEN
    local role; for role in reader push; do
        KR_ACCESS_TOKEN=$(kra token create --role $role --for "a test" -q) kra setup docker --name $role >/dev/null 2>&1
    done
    has "$(kra token ls)" 'a test'
    has "$(as reader ps)" web
    has "$(as reader logs web; as reader inspect web)" web
    run as reader stop web; ne "$RC" 0; has "$ERR" 'the role reader may not do this'
    run as reader exec web true; ne "$RC" 0; has "$ERR" 'the role reader'
    run as push ps; ne "$RC" 0; has "$ERR" 'the role push'
    as push load -q -i "$(busybox_archive)" >/dev/null
    as push tag "$IMG" "$IMG-two"
    eq "$(as shop inspect -f '{{.State.Running}}' web)" true
    run kra token create --role operator; ne "$RC" 0
    run kra token create --role owner --namespace default; eq "$RC" 5
    run kraud tenant create shop; ne "$RC" 0; has "$ERR" 'exists already'
    run kraud tenant create 'Not a name'; ne "$RC" 0
    run kraud tenant rm shop; ne "$RC" 0; has "$ERR" '1 containers'
}

test_tokens_end() {
    tenant shop
    export KR_ACCESS_TOKEN=$TOKEN
    local soon; soon=$(date -u -d '+2 seconds' +%FT%TZ)
    local token; token=$(kra token create --expires "$soon" -q)
    https "$token" GET /_ping; eq "$CODE" 200
    sleep 2.2
    https "$token" GET /_ping; eq "$CODE" 401; has "$BODY" expired
    run kra token create --expires yesterday; eq "$RC" 2
    run kra token revoke aaaaaaaaaaaa; eq "$RC" 3
    # Over a restart.
    token=$(kra token create --role reader -q)
    daemon_restart
    https "$token" GET /_ping; eq "$CODE" 200
    # A secret is nowhere on the disk, nor in the log.
    if grep -rqa "${token#kr_*_}" "$KRAUD_TEST_DIR/data/store.db"* "$KRAUD_TEST_DIR/kraud.log"; then fail 'a secret is kept'; fi
}

test_audit() {
    tenant ledger
    https "$TOKEN" POST /volumes/create -H 'Content-Type: application/json' -d '{"Name":"data"}'; eq "$CODE" 201
    https "$TOKEN" GET /kr/v1/pools; eq "$CODE" 403
    https '' DELETE /containers/x; eq "$CODE" 401
    https "$TOKEN" DELETE /containers/nosuch; eq "$CODE" 404
    https "$TOKEN" GET /volumes; eq "$CODE" 200
    docker volume create ours >/dev/null; docker volume rm ours >/dev/null
    until_has 5 'DELETE /containers/nosuch' kraud audit --namespace ledger
    local id; id=$(kraud audit --namespace ledger -o json | jq -r '.[0].token')
    eq "$(kraud audit --namespace ledger -o json | jq -c '[.[] | [.call, .status, .role, .from]]')" \
        '[["POST /kr/v1/certificates",201,"owner","127.0.0.1"],["POST /volumes/create",201,"owner","127.0.0.1"],["GET /kr/v1/pools",403,"owner","127.0.0.1"],["DELETE /containers/nosuch",404,"owner","127.0.0.1"]]'
    eq "$(kraud audit --token "$id" --failed -o json | jq length)" 2
    has "$(kraud audit --failed)" 'DELETE /containers/x'
    has "$(kraud audit --namespace default --call volumes)" socket
    eq "$(stat -c %a "$KRAUD_TEST_DIR/data/audit" "$KRAUD_TEST_DIR/data/audit/audit.jsonl" | tr '\n' ' ')" '700 600 '
    hasnt "$(cat "$KRAUD_TEST_DIR/data/audit/audit.jsonl")" "${TOKEN#kr_*_}"
    # Not for tenants.
    https "$TOKEN" GET /kr/v1/audit; eq "$CODE" 403
    # It stays over a crash.
    daemon_restart
    has "$(kraud audit --namespace ledger)" '/volumes/create'
}

# Who begins and does not go on stands in nobody's way.
test_dawdlers() {
    tenant shop
    python3 - "${KR_HOST##*/}" <<-'PYTHON' &
	import socket, sys, time
	host, port = sys.argv[1].rsplit(":", 1)
	held = []
	for n in range(700):
	    one = socket.create_connection((host, int(port)))
	    one.sendall(b"\x16\x03" if n % 2 else b"\x16\x03\x01\x40\x00" + b"x" * 100)
	    held.append(one)
	print("all stand", flush=True)
	time.sleep(8)
	PYTHON
    local dawdling=$!
    sleep 1.5
    local round; for round in 1 2 3 4 5; do
        https "$TOKEN" GET /_ping --max-time 3; eq "$CODE" 200
    done
    kill $dawdling
}

# What was asked for is done and written down, also when nobody waits for the answer.
test_who_leaves_early() {
    tenant hasty
    python3 - "${KR_HOST##*/}" "$TOKEN" <<-'PYTHON'
	import json, socket, ssl, sys, time
	host, port = sys.argv[1].rsplit(":", 1)
	tls = ssl.create_default_context(); tls.check_hostname = False; tls.verify_mode = ssl.CERT_NONE
	for n in range(20):
	    one = tls.wrap_socket(socket.create_connection((host, int(port))))
	    body = json.dumps({"Name": f"left{n}", "Driver": "lv2", "DriverOpts": {"size": "16M"}})
	    one.sendall(f"POST /volumes/create HTTP/1.1\r\nHost: k\r\nAuthorization: Bearer {sys.argv[2]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
	    time.sleep(0.01)
	    one.close()
	PYTHON
    made() { as hasty volume ls -q | grep -c left || true; }
    until_eq 20 20 made
    noted() { kraud audit --namespace hasty --call /volumes/create -n 0 -o json | jq '[.[] | select(.status == 201)] | length'; }
    until_eq 20 20 noted
}

test_every_call() {
    ARCHIVE=$(busybox_archive) IMG=$IMG python3 "$E2E_SUITES/walk.py" "$REPO/docs/docker-compat.md" || fail 'see above'
}
