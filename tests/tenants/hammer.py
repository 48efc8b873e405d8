"""Two tenants do random valid things at once, and a checker looks into every answer: neither ever sees a name or an id
of the other, and another's id is answered for as one that nobody has.

    hammer.py SECONDS      with KR_HOST, KRAUD_SOCKET, ARCHIVE, IMG as the suite sets them; HAMMER_SEED replays the choices
"""

import json
import os
import random
import re
import sys
import threading
import time
from urllib.parse import quote

import walk

IMG = os.environ["IMG"]
SEED = int(os.environ.get("HAMMER_SEED", time.time_ns() % 100000))
failures, counts, lock = [], {}, threading.Lock()
ID = re.compile(r"\b[0-9a-f]{64}\b")


class Tenant:
    """One tenant: its token, a word that all its names hold, and the ids that it was given."""

    def __init__(self, name):
        self.name, self.mark = name, f"{name}mark"
        self.token = walk.made(walk.operator("POST", "/kr/v1/tenants", {"name": name}))["owner"]["secret"]
        self.ids, self.other, self.shared = set(), None, set()

    def call(self, method, path, body=None):
        status, text = walk.remote(method, path, self.token, body, timeout=60)
        about = f"{self.name}: {method} {path}"
        if status >= 500 and status not in (501, 503):
            fail(f"{about}: {status} {text[:300]}")
        asked = path + json.dumps(body or "")
        # What was asked with may come back in an error.
        if self.other.mark in text and self.other.mark not in asked:
            fail(f"{about} shows a name of {self.other.name}: {text[:500]}")
        for found in set(ID.findall(text)):
            if found in self.other.ids and found not in self.ids and found not in asked and found not in self.shared:
                fail(f"{about} shows the id {found} of {self.other.name}: {text[:500]}")
        with lock:
            counts[status] = counts.get(status, 0) + 1
        return status, text

    def make(self, path, body, key="Id"):
        status, text = self.call("POST", path, body)
        if status == 201:
            self.ids.add(json.loads(text)[key])
            return json.loads(text)[key]
        return None


def fail(text):
    with lock:
        failures.append(text)


def work(tenant, seed, until):
    choice = random.Random(seed)
    mine, number = {"containers": [], "networks": [], "volumes": []}, 0

    def some(kind):
        return choice.choice(mine[kind]) if mine[kind] else None

    while time.monotonic() < until and not failures:
        number += 1
        name = f"{tenant.mark}-{seed}-{number}"
        container, network, volume = some("containers"), some("networks"), some("volumes")
        theirs = choice.choice(sorted(tenant.other.ids) or ["0" * 64])
        deeds = [
            lambda: mine["containers"].append(tenant.make(f"/containers/create?name={name}", {"Image": IMG, "Cmd": ["sh", "-c", f"echo {name}; sleep 100"], "HostConfig": {"Binds": [f"{volume}:/v"] if volume else []}})),
            lambda: mine["networks"].append(tenant.make("/networks/create", {"Name": name})) if len(mine["networks"]) < 3 else None,
            lambda: mine["volumes"].append(name) if tenant.call("POST", "/volumes/create", {"Name": name, "DriverOpts": {"size": "16M"}})[0] == 201 else None,
            lambda: container and tenant.call("POST", f"/containers/{container}/start"),
            lambda: container and tenant.call("POST", f"/containers/{container}/start"),
            lambda: container and tenant.call("POST", f"/containers/{container}/kill"),
            lambda: container and (tenant.call("DELETE", f"/containers/{container}?force=1"), mine["containers"].remove(container)),
            lambda: container and tenant.make(f"/containers/{container}/exec", {"Cmd": ["hostname"]}),
            lambda: container and tenant.call("GET", f"/containers/{container}/json"),
            lambda: container and tenant.call("GET", f"/containers/{container}/logs?stdout=1&tail=5"),
            lambda: container and network and tenant.call("POST", f"/networks/{network}/connect", {"Container": container}),
            lambda: network and tenant.call("GET", f"/networks/{network}"),
            lambda: network and tenant.call("DELETE", f"/networks/{network}")[0] == 204 and mine["networks"].remove(network),
            lambda: volume and tenant.call("POST", "/kr/v1/snapshots", {"volumes": [volume]}),
            lambda: volume and tenant.call("GET", f"/kr/v1/volumes/{volume}/snapshots"),
            lambda: volume and tenant.call("DELETE", f"/volumes/{volume}")[0] == 204 and mine["volumes"].remove(volume),
            lambda: tenant.call("POST", f"/images/{quote(IMG)}/tag?repo={tenant.mark}&tag=t{number % 5}"),
            lambda: tenant.call("DELETE", f"/images/{tenant.mark}:t{number % 5}"),
            lambda: tenant.call("GET", choice.choice(["/containers/json?all=1", "/networks", "/volumes", "/images/json?all=1", "/system/df", "/info", "/kr/v1/volumes", "/kr/v1/tokens", "/kr/v1/whoami"])),
            lambda: tenant.call("GET", f"/events?since=0&until={int(time.time())}"),
            lambda: tenant.call("POST", choice.choice(["/containers/prune", "/networks/prune", "/volumes/prune"])),
            lambda: stranger(tenant, choice, theirs),
        ]
        choice.choice(deeds)()
        for kind in mine:
            mine[kind] = [one for one in mine[kind] if one]


def stranger(tenant, choice, theirs):
    """Another's id, and one that nobody has: the answers differ in the id alone."""
    nobody = "%064x" % choice.getrandbits(256)
    method, path = choice.choice([
        ("GET", "/containers/{}/json"), ("POST", "/containers/{}/start"), ("POST", "/containers/{}/kill"), ("DELETE", "/containers/{}"), ("GET", "/containers/{}/logs?stdout=1"),
        ("GET", "/containers/{}/archive?path=/"), ("GET", "/networks/{}"), ("DELETE", "/networks/{}"), ("GET", "/exec/{}/json"), ("POST", "/exec/{}/start"), ("GET", "/volumes/{}"),
    ])
    one, other = (tenant.call(method, path.format(id), {} if method == "POST" else None) for id in (theirs, nobody))
    if theirs not in tenant.ids and (one[0] != other[0] or one[1].replace(theirs, "") != other[1].replace(nobody, "")):
        fail(f"{tenant.name}: {method} {path} tells another's id from nobody's: {one} and {other}")


def main(seconds):
    print(f"HAMMER_SEED={SEED}")
    tenants = [Tenant(f"hammer{os.getpid()}{letter}") for letter in "ab"]
    tenants[0].other, tenants[1].other = tenants[1], tenants[0]
    try:
        archive = open(os.environ["ARCHIVE"], "rb").read()
        for tenant in tenants:
            connection = walk.http.client.HTTPSConnection(walk.DOOR.hostname, walk.DOOR.port, timeout=60, context=walk.TLS)
            connection.request("POST", "/images/load", body=archive, headers={"Authorization": f"Bearer {tenant.token}"})
            assert connection.getresponse().read() is not None
            # Both have the same image: that is no secret of either.
            image = json.loads(tenant.call("GET", f"/images/{quote(IMG)}/json")[1])
            for one in tenants:
                one.shared.update(ID.findall(json.dumps(image)))
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=work, args=(tenant, SEED * 10 + n, until)) for tenant in tenants for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for tenant in tenants:
            walk.operator("DELETE", f"/kr/v1/tenants/{tenant.name}?force=1")
    print(f"{sum(counts.values())} calls: {dict(sorted(counts.items()))}")
    print("\n".join(failures[:10]))
    enough = counts.get(200, 0) + counts.get(201, 0) + counts.get(204, 0) > 10 * seconds
    return bool(failures) or not enough


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
