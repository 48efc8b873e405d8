"""Drives the daemon that DOCKER_HOST names through every call of the published API and checks each answer. The calls
that make something are done for real; whatever is left is asked for what does not exist, for its error's shape.

REGISTRY, if set, is a registry that takes the user `schema` with the password `secret`.
"""

import base64
import json
import os
import re
import sys
import time

from client import Client
from schema import STATUSES

IMAGE = "busybox"
# Answers that are no HTTP exchange of their own: the connection becomes a stream after them.
HIJACKED = {"POST /containers/{id}/attach", "GET /containers/{id}/attach/ws", "POST /session"}


def system(c):
    assert c.call("GET /_ping", 200) == "OK"
    c.call("HEAD /_ping", 200)
    c.call("GET /version", 200)
    info = c.call("GET /info", 200)
    c.verdict("info counts what there is", [] if info and info["Images"] >= 1 else [f"{info and info['Images']} images"])


def containers(c):
    limits = {"Memory": 64 << 20, "PidsLimit": 50, "NanoCpus": 500_000_000, "CpusetCpus": "0"}
    full = {
        "Image": IMAGE, "Cmd": ["sh", "-c", "echo out; echo err >&2; echo changed >/new; sleep 300"],
        "Env": ["A=1"], "Labels": {"l": "v"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/anonymous": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 200_000_000}, "StopSignal": "SIGKILL", "StopTimeout": 1,
        "HostConfig": {
            **limits, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}, "Binds": ["schema-v:/data"],
            "Tmpfs": {"/scratch": "size=1m"}, "Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/host", "ReadOnly": True}],
            "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "ExtraHosts": ["db:10.0.0.9"], "Dns": ["9.9.9.9"], "Init": True,
            "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}], "Sysctls": {"net.core.somaxconn": "99"},
            "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/nil", "CgroupPermissions": "rwm"}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "SecurityOpt": ["no-new-privileges"],
            "Annotations": {"a": "b"}, "GroupAdd": ["9"], "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        },
    }  # fmt: skip
    create, inspect = "POST /containers/create", "GET /containers/{id}/json"
    made = c.call(create, 201, query={"name": "schema-full"}, body=full)
    c.call(create, 201, query={"name": "schema-plain"}, body={"Image": IMAGE, "Cmd": ["sleep", "300"]})
    c.call(create, 409, query={"name": "schema-plain"}, body={"Image": IMAGE}, note="name in use")
    c.call(create, 404, body={"Image": "no-such-image"}, note="no such image")
    c.call(create, 400, raw=b"{", headers={"Content-Type": "application/json"}, note="no JSON")
    c.call(create, 400, body={"Image": IMAGE, "HostConfig": {"Memory": 1}}, note="limit too small")
    c.call(inspect, 200, "schema-plain", note="created")
    c.call("GET /containers/json", 200, query={"all": "1"}, note="created")
    for name in ("schema-full", "schema-plain"):
        c.call("POST /containers/{id}/start", 204, name)
    c.call("POST /containers/{id}/start", 304, "schema-plain", note="started already")
    time.sleep(1)
    found = c.call(inspect, 200, "schema-full", query={"size": "1"}, note="running, with sizes")
    c.verdict("a container is found by its id", [] if found and found["Id"] == made["Id"] else ["another id"])
    c.call(inspect, 200, "schema-plain", note="running")
    c.call("GET /containers/json", 200, query={"all": "1", "size": "1"}, note="running")
    c.call("GET /containers/json", 200, query={"filters": {"name": ["nobody"]}}, note="none")
    c.call("GET /containers/json", 400, query={"filters": "no-json"}, note="bad filter")
    c.call("GET /containers/{id}/top", 200, "schema-full")
    c.call("GET /containers/{id}/top", 200, "schema-full", query={"ps_args": "-o pid,comm"}, note="other columns")
    for query in ({"stream": "false"}, {"stream": "false", "one-shot": "true"}):
        c.call("GET /containers/{id}/stats", 200, "schema-full", query=query, note=str(query))
    c.call("GET /containers/{id}/changes", 200, "schema-full")
    c.call("GET /containers/{id}/changes", 200, "schema-plain", note="none")
    c.call("GET /containers/{id}/logs", 200, "schema-full", query={"stdout": "1", "stderr": "1"})
    c.call("GET /containers/{id}/logs", 400, "schema-full", note="no stream chosen")
    c.call("POST /containers/{id}/update", 200, "schema-full", body={"Memory": 128 << 20, "MemorySwap": 256 << 20})
    c.call("POST /containers/{id}/update", 200, "schema-plain", body={"RestartPolicy": {"Name": "no"}})
    c.call("POST /containers/{id}/pause", 204, "schema-plain")
    c.call(inspect, 200, "schema-plain", note="paused")
    c.call("POST /containers/{id}/unpause", 204, "schema-plain")
    c.call("POST /containers/{id}/rename", 204, "schema-plain", query={"name": "schema-other"})
    c.call("POST /containers/{id}/rename", 409, "schema-other", query={"name": "schema-full"})
    executions(c)
    archives(c)
    c.call("POST /commit", 201, query={"container": "schema-full", "repo": "schema-made", "comment": "x"}, body={})
    c.call("POST /containers/{id}/restart", 204, "schema-other", query={"t": "0"})
    c.call("POST /containers/{id}/kill", 204, "schema-other")
    c.call("POST /containers/{id}/wait", 200, "schema-other")
    c.call("POST /containers/{id}/kill", 409, "schema-other", note="not running")
    c.call(inspect, 200, "schema-other", note="exited")
    c.call("GET /containers/json", 200, query={"all": "1"}, note="exited")
    c.call("POST /containers/{id}/stop", 304, "schema-other", note="stopped already")
    c.call("DELETE /containers/{id}", 409, "schema-full", note="running")


def executions(c):
    create, inspect = "POST /containers/{id}/exec", "GET /exec/{id}/json"
    made = c.call(create, 201, "schema-full", body={"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True, "Env": ["A=1"], "User": "0"})
    c.call(inspect, 200, made["Id"], note="not started")
    c.call("POST /exec/{id}/start", 200, made["Id"], body={"Detach": True})
    time.sleep(0.7)
    ended = c.call(inspect, 200, made["Id"], note="ended")
    c.verdict("an exec's exit code", [] if ended and ended["ExitCode"] == 3 else [str(ended)])
    made = c.call(create, 201, "schema-full", body={"Cmd": ["sleep", "100"], "Tty": True})
    c.call("POST /exec/{id}/start", 200, made["Id"], body={"Detach": True, "Tty": True})
    c.call(inspect, 200, made["Id"], note="running")
    c.call("POST /exec/{id}/resize", 200, made["Id"], query={"h": "10", "w": "20"})
    c.call("POST /exec/{id}/start", 409, made["Id"], body={}, note="started already")
    c.call("GET /containers/{id}/json", 200, "schema-full", note="with an exec")
    c.call(create, 400, "schema-full", body={"Cmd": []}, note="no command")


def archives(c):
    path = {"path": "/etc/passwd"}
    c.call("HEAD /containers/{id}/archive", 200, "schema-full", query=path)
    tar = c.call("GET /containers/{id}/archive", 200, "schema-full", query=path)
    put = {"raw": tar if isinstance(tar, bytes) else tar.encode(), "headers": {"Content-Type": "application/x-tar"}}
    c.call("PUT /containers/{id}/archive", 200, "schema-full", query={"path": "/tmp"}, **put)
    c.call("PUT /containers/{id}/archive", 404, "schema-full", query={"path": "/nowhere"}, **put)
    c.call("GET /containers/{id}/archive", 404, "schema-full", query={"path": "/nothing"})
    c.call("GET /containers/{id}/export", 200, "schema-other")


def images(c):
    c.call("GET /images/json", 200, query={"all": "1", "shared-size": "1", "digests": "1"})
    c.call("GET /images/{name}/json", 200, IMAGE)
    c.call("GET /images/{name}/json", 200, "schema-made")
    c.call("GET /images/{name}/history", 200, "schema-made")
    c.call("POST /images/{name}/tag", 201, IMAGE, query={"repo": "schema-tag", "tag": "1"})
    c.call("POST /images/{name}/tag", 400, IMAGE, query={"repo": "UPPER CASE"})
    c.call("DELETE /images/{name}", 200, "schema-tag:1")
    c.call("DELETE /images/{name}", 409, IMAGE, note="in use")
    tar = c.call("GET /images/{name}/get", 200, IMAGE)
    c.call("GET /images/get", 200, query={"names": IMAGE})
    del tar
    c.lines("POST /images/load", "BuildInfo", raw=c.request("GET", f"/images/{IMAGE}/get", None, None, None, None)[2], headers={"Content-Type": "application/x-tar"})
    c.lines("POST /images/create", "CreateImageInfo", query={"fromSrc": "-", "repo": "schema-imported"}, raw=c.request("GET", "/containers/schema-other/export", None, None, None, None)[2], note="import")
    c.call("GET /images/{name}/json", 200, "schema-imported")
    c.call("GET /images/{name}/history", 200, "schema-imported")
    c.call("DELETE /images/{name}", 200, "schema-imported")
    c.call("POST /images/prune", 200)


def registry(c):
    address = os.environ.get("REGISTRY")
    if not address:
        print("skipped schema: calls that need a registry (docker-registry is not there)")
        return
    auth = {"username": "schema", "password": "secret", "serveraddress": address}
    header = {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()}
    name = f"{address}/schema/busybox"
    c.call("POST /auth", 200, body=auth)
    c.call("POST /auth", 401, body={**auth, "password": "wrong"})
    c.call("POST /images/{name}/tag", 201, IMAGE, query={"repo": name, "tag": "1"})
    c.lines("POST /images/{name}/push", "PushImageInfo", name, query={"tag": "1"}, headers=header)
    c.call("GET /distribution/{name}/json", 200, f"{name}:1", headers=header)
    c.call("GET /distribution/{name}/json", 401, f"{name}:1", note="without credentials")
    c.call("DELETE /images/{name}", 200, f"{name}:1")
    c.lines("POST /images/create", "CreateImageInfo", query={"fromImage": name, "tag": "1"}, headers=header, note="pull")
    c.call("GET /images/{name}/json", 200, f"{name}:1", note="pulled")
    c.call("GET /images/json", 200, note="with digests")
    c.call("POST /images/create", 404, query={"fromImage": name, "tag": "none"}, headers=header)
    c.call("DELETE /images/{name}", 200, f"{name}:1", note="pulled")


def volumes(c):
    c.call("POST /volumes/create", 201, body={"Name": "schema-w", "Labels": {"l": "v"}})
    c.call("POST /volumes/create", 201, body={})
    c.call("GET /volumes", 200)
    c.call("GET /volumes", 200, query={"filters": {"name": ["nothing-like-it"]}}, note="none")
    c.call("GET /volumes/{name}", 200, "schema-w")
    c.call("DELETE /volumes/{name}", 409, "schema-v", note="in use")
    c.call("POST /volumes/prune", 200)
    c.call("DELETE /volumes/{name}", 204, "schema-w")


def networks(c):
    made = c.call("POST /networks/create", 201, body={
        "Name": "schema-n", "Labels": {"l": "v"}, "IPAM": {"Config": [{"Subnet": "10.98.7.0/24", "Gateway": "10.98.7.1"}]}})  # fmt: skip
    c.call("POST /networks/create", 409, body={"Name": "schema-n"}, note="name in use")
    c.call("POST /networks/create", 400, body={"Name": ""}, note="no name")
    c.call("POST /networks/{id}/connect", 200, "schema-n", body={"Container": "schema-full", "EndpointConfig": {"Aliases": ["db"]}})
    c.call("GET /networks/{id}", 200, made["Id"], note="with a container")
    c.call("GET /containers/{id}/json", 200, "schema-full", note="in two networks")
    c.call("GET /networks", 200)
    c.call("DELETE /networks/{id}", 403, "schema-n", note="in use")
    c.call("DELETE /networks/{id}", 403, "bridge", note="predefined")
    c.call("POST /networks/{id}/disconnect", 200, "schema-n", body={"Container": "schema-full"})
    c.call("DELETE /networks/{id}", 204, "schema-n")
    c.call("POST /networks/create", 201, body={"Name": "schema-n2"})
    c.call("POST /networks/prune", 200)


def the_end(c):
    c.call("GET /system/df", 200, note="everything")
    for kind in ("container", "image", "volume", "build-cache"):
        c.call("GET /system/df", 200, query={"type": kind}, note=kind)
    c.call("POST /containers/{id}/stop", 204, "schema-full", query={"t": "0"})
    c.call("DELETE /containers/{id}", 204, "schema-full", query={"v": "1"})
    c.call("POST /containers/prune", 200)
    c.call("DELETE /images/{name}", 200, "schema-made")
    c.call("DELETE /volumes/{name}", 204, "schema-v")
    for call in ("containers", "images", "volumes", "networks"):
        c.call(f"POST /{call}/prune", 200, note="nothing left")
    c.call("POST /build/prune", 200)
    c.call("GET /containers/json", 200, query={"all": "1"}, note="none")
    events = c.lines("GET /events", "EventMessage", query={"since": "0", "until": str(time.time())})
    kinds = {event["Type"] for event in events}
    c.verdict("events of every kind", sorted({"container", "image", "network", "volume"} - kinds))


def everything_else(c):
    """Every call of the specification that was not made yet, and each with what does not exist: the error's shape."""
    missing = "no-such-thing-0000"
    for call, known in c.schema.statuses.items():
        if call in HIJACKED or ("{" not in call and call in c.called):
            continue
        method, url = call.split(" ", 1)
        url = re.sub(r"{\w+}", missing, url)
        body = {} if method in ("POST", "PUT") and "archive" not in call and call != "POST /build" else None
        query = {
            "POST /images/create": {"fromSrc": "http://127.0.0.1:9/none.tar"}, "GET /images/search": {"term": "busybox"},
            "POST /containers/{id}/rename": {"name": "x"}, "POST /images/{name}/tag": {"repo": "x"}, "GET /images/get": {"names": missing},
            "POST /containers/{id}/resize": {"h": "1", "w": "1"}, "POST /exec/{id}/resize": {"h": "1", "w": "1"},
            "GET /containers/{id}/logs": {"stdout": "1"},
        }.get(call, {"path": "/etc"} if "archive" in call else None)  # fmt: skip
        status, headers, text = c.request(method, url, query, body, b"" if "PUT" in call and body is None else None, None)
        c.called.setdefault(call, set()).add(status)
        faults = []
        if call == "POST /images/{name}/push":
            # As in docker the push has begun before it is seen that there is nothing to push.
            faults += [fault for line in text.splitlines() for fault in c.schema.check("PushImageInfo", json.loads(line))]
            faults += [] if b'"errorDetail"' in text else ["no error in the stream"]
        elif status < 400:
            # Lists that are empty on any daemon without plugins.
            faults += c.schema.faults(call, status, json.loads(text)) if text else []
        elif method != "HEAD":
            try:
                error = json.loads(text)
                faults += c.schema.check("ErrorResponse", error)
                faults += [] if error.get("message") else ["no message"]
            except ValueError:
                faults.append(f"no JSON: {text[:80]!r}")
            if not headers.get("Content-Type", "").startswith("application/json"):
                faults.append(f"Content-Type is {headers.get('Content-Type')}")
        if str(status) not in known and status not in STATUSES.get(call, ()) and status not in (400, 501):
            faults.append(f"status {status} is not among {sorted(known)}: {text[:120]!r}")
        c.verdict(f"{call}: what does not exist ({status})", faults)


def the_check_itself(c):
    """A check that finds nothing wrong with anything would be of no use."""
    binding, walk = {"HostIp": "", "HostPort": "1"}, c.schema.check
    c.verdict("a good value has no faults", walk("PortBinding", binding))
    for text, value in {
        "a wrong type": {**binding, "HostPort": 1},
        "a null": {**binding, "HostPort": None},
        "a member too many": {**binding, "Port": "1"},
        "a member too few": {"HostIp": ""},
        "another type": [binding],
    }.items():
        c.verdict(f"{text} is seen", [] if len(walk("PortBinding", value)) == 1 else ["it is not"])
    state = {"Status": "asleep"}
    c.verdict("an unknown word is seen", [] if any("asleep" in fault for fault in walk("ContainerState", state)) else ["it is not"])
    c.verdict("an unknown status is seen", [] if c.schema.faults("GET /info", 418, None) else ["it is not"])


def main():
    c = Client()
    for part in (the_check_itself, system, containers, images, registry, volumes, networks, the_end, everything_else):
        try:
            part(c)
        except (OSError, KeyError, TypeError, ValueError) as error:
            c.verdict(f"{part.__name__} comes to its end", [repr(error)])
    left = sorted(set(c.schema.statuses) - set(c.called) - HIJACKED)
    c.verdict("every call was made", left)
    print(f"schema: {c.passed} passed, {c.failed} failed")
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
