"""Walks all calls of both APIs: who is not known, has not the role, or is of another namespace gets a refusal, and
changes nothing.

    walk.py docs/docker-compat.md      with KR_HOST, KRAUD_BIN, KRAUD_SOCKET as the suite sets them

Calls come from the daemon's own tables: the document is made of the one and checked against it by a unit test, the
OpenAPI document is served. A path with a wildcard that is not known here fails: a new call needs its case.
"""

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

DOOR = urlsplit(os.environ["KR_HOST"])
TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE
ROLES = ["owner", "reader", "push"]
failures, checks, calls_made = [], 0, 0


class Socket(http.client.HTTPConnection):
    """The operator's."""

    def __init__(self):
        super().__init__("kraud", timeout=30)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["KRAUD_SOCKET"])


def call(connection, method, path, token=None, body=None, most=1 << 20):
    """Status and the beginning of the body."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = json.dumps(body if body is not None else {}) if method in ("POST", "PUT") else None
    if data:
        headers["Content-Type"] = "application/json"
    connection.request(method, path, body=data, headers=headers)
    answer = connection.getresponse()
    try:
        text = answer.read(most).decode(errors="replace")
    except (TimeoutError, OSError):
        text = ""
    connection.close()
    return answer.status, text


def remote(method, path, token=None, body=None, timeout=5):
    # Each from another address: calls that are not let in are counted by where they come from.
    global calls_made
    calls_made += 1
    source = (f"127.77.{calls_made // 250}.{calls_made % 250 + 1}", 0)
    connection = http.client.HTTPSConnection(DOOR.hostname, DOOR.port, timeout=timeout, context=TLS, source_address=source)
    return call(connection, method, path, token, body)


def operator(method, path, body=None):
    return call(Socket(), method, path, None, body)


def made(answer):
    status, text = answer
    assert status in (200, 201), (status, text)
    return json.loads(text)


def docker_calls(document):
    """Method, path and needed roles of every row."""
    for line in open(document):
        row = re.match(r"\| `([A-Z]+) (/\S*)` \| ([a-z, ]+) \|", line)
        if row:
            yield row[1], row[2], row[3]


def native_calls():
    for path, methods in made(operator("GET", "/kr/v1/openapi.json"))["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation["x-needs"]


def victims(token, tenant):
    """Things of somebody, by the pattern of a path."""
    def create(path, body):
        return made(remote("POST", path, token, body))

    container = create("/containers/create?name=victim", {"Image": os.environ.get("IMG", "busybox"), "Cmd": ["sleep", "1000"], "HostConfig": {"Binds": ["victim-volume:/v"]}})["Id"]
    assert remote("POST", f"/containers/{container}/start", token)[0] == 204
    session = create(f"/containers/{container}/exec", {"Cmd": ["true"]})["Id"]
    network = create("/networks/create", {"Name": "victim-network"})["Id"]
    image = made(remote("GET", f"/containers/{container}/json", token))["Image"]
    assert remote("POST", "/kr/v1/snapshots", token, {"volumes": ["victim-volume"], "name": "kept"})[0] == 201
    reader = made(remote("POST", "/kr/v1/tokens", token, {"role": "reader"}))["token"]["id"]
    return {
        "/containers/": container, "/exec/": session, "/networks/": network, "/images/": image, "/distribution/": "victim/image",
        "/volumes/": "victim-volume", "/plugins/": "x", "/nodes/": "x", "/services/": "x", "/tasks/": "x", "/secrets/": "x", "/configs/": "x",
        "/kr/v1/volumes/": "victim-volume", "/kr/v1/volumes/*/snapshots/": "kept", "/kr/v1/pools/": "default", "/kr/v1/tokens/": reader,
        "/kr/v1/tenants/": tenant, "/kr/v1/push/layers/": json.loads(remote("GET", f"/images/{os.environ.get('IMG', 'busybox')}/json", token)[1])["RootFS"]["Layers"][0],
    }


def filled(path, things):
    """The path with its wildcards filled in, each by what stands before it."""
    while "{" in path:
        before, rest = path.split("{", 1)
        key = re.sub(r"^(/kr/v1/volumes/)[^/]+/", r"\1*/", before)
        if key not in things:
            raise SystemExit(f"{path}: what stands for {{{rest.split('}')[0]}}} is not known: tests/tenants/walk.py needs a case for it")
        path = before + things[key] + rest.split("}", 1)[1]
    return path


def state(token):
    """All that a tenant has, without what passes by itself."""
    def seen(path):
        status, text = remote("GET", path, token)
        return status, re.sub(r',?"(Status|last_used)":"[^"]*"|"(SizeRw|used|live|snapshots|total|free)":[0-9]+|"usage":\{[^}]*\}|"UsageData":\{[^}]*\}', "", text)
    return [seen(path) for path in ("/containers/json?all=1", "/images/json?all=1", "/networks", "/volumes", "/kr/v1/volumes", "/kr/v1/volumes/victim-volume/snapshots", "/kr/v1/tokens", "/kr/v1/whoami")]


def check(about, answer, allowed):
    global checks
    checks += 1
    if answer[0] not in allowed:
        failures.append(f"{about}: {answer[0]} {answer[1][:200].strip()}")


def main(document):
    names = [f"walk-{os.getpid()}-{n}" for n in ("a", "b")]
    tenants = [made(operator("POST", "/kr/v1/tenants", {"name": name}))["owner"]["secret"] for name in names]
    try:
        walk(document, names, tenants)
    finally:
        for name in names:
            operator("DELETE", f"/kr/v1/tenants/{name}?force=1")
    print(f"{checks} calls refused as they should be" if not failures else "\n".join(failures))
    return bool(failures)


def walk(document, names, tenants):
    archive = open(os.environ["ARCHIVE"], "rb").read()
    for token in tenants:
        connection = http.client.HTTPSConnection(DOOR.hostname, DOOR.port, timeout=60, context=TLS)
        connection.request("POST", "/images/load", body=archive, headers={"Authorization": f"Bearer {token}"})
        assert connection.getresponse().read() is not None
    mine, other = tenants
    things = victims(mine, names[0])
    issue = lambda **more: made(remote("POST", "/kr/v1/tokens", mine, more))
    tokens = {role: issue(role=role)["secret"] for role in ROLES}
    revoked = issue(role="owner")
    assert remote("DELETE", f"/kr/v1/tokens/{revoked['token']['id']}", mine)[0] == 204
    expired = issue(role="owner", expires=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2)))
    time.sleep(2.5)
    before = state(mine)
    private = [thing for thing in things.values() if len(thing) > 20 and thing not in (things["/images/"], things["/kr/v1/push/layers/"])] + ["victim"]
    calls = list(docker_calls(document)) + list(native_calls())
    assert len(calls) > 120, f"only {len(calls)} calls were found"
    for method, pattern, needs in calls:
        path = filled(pattern, things)
        about = f"{method} {pattern}"
        strangers = {"nobody": None, "garbage": "kr_x", "one who made it up": f"kr_abcdefghij12_{'a' * 40}", "one whose token is revoked": revoked["secret"], "one whose token has expired": expired["secret"]}
        for who, token in strangers.items():
            check(f"{about}, by {who}", remote(method, path, token), {401})
        for role, token in tokens.items():
            if needs != "any" and role not in needs.split(", "):
                check(f"{about}, by a {role}", remote(method, path, token), {403})
        # Another tenant's owner, with the names and ids of these things.
        if method == "GET" and pattern == "/events":
            path += "?until=1"
        answer = remote(method, path, other, timeout=10)
        # One's own image has the same id, and a registry answers anybody.
        if "{" in pattern and "/images/" not in pattern and "/distribution/" not in pattern:
            check(f"{about}, by another tenant", answer, {400, 403, 404, 501, 503})
        for thing in private:
            if thing in answer[1] and thing not in path:
                failures.append(f"{about} shows {thing} to another tenant: {answer[1][:300]}")
        # With names of one's own the refusals would have been answers: the walk is not blind.
    if state(mine) != before:
        for was, now in zip(before, state(mine)):
            if was != now:
                failures.append(f"something was changed: {was} is now {now}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
