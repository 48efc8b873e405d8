"""liar.py URL TOKEN LAYERS ARCHIVE: tries all ways to get at a layer of another tenant's without its content. Fails if one works."""
import http.client, json, ssl, subprocess, sys, tarfile
from urllib.parse import urlsplit

url, token, layers, archive = sys.argv[1:]
layers = json.loads(layers)
door = urlsplit(url)
tls = ssl.create_default_context()
tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE


def call(path, body, kind="application/json"):
    connection = http.client.HTTPSConnection(door.hostname, door.port, timeout=90, context=tls)
    data = json.dumps(body) if kind == "application/json" else body
    connection.request("POST", f"/kr/v1/push{path}", body=data, headers={"Authorization": f"Bearer {token}", "Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read()


def zstd(data):
    return subprocess.run(["zstd", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout


def leb(number):
    out = b""
    while True:
        low, number = number & 0x7F, number >> 7
        if not number:
            return out + bytes([low])
        out += bytes([low | 0x80])


opened = tarfile.open(archive)
manifest = json.load(opened.extractfile("manifest.json"))[0]
config = opened.extractfile(manifest["Config"]).read().decode()
name = {"reference": "docker.io/library/stolen:1", "id": "sha256:" + manifest["Config"].removesuffix(".json")}
status, text = call("", {"images": [{**name, "layers": layers}]})
plan = json.loads(text)
assert status == 200 and not plan["images"][0]["known"] and plan["images"][0]["missing"] == layers and plan["bases"] == [], plan
session = plan["session"]
secret = layers[-1]
# The chunks of a layer of others, by their starts.
assert call("/prefixes", {"bases": [secret]})[0] == 409
# As a base of a recipe that takes chunk after chunk.
recipe = zstd(bytes([2]) + leb(0) + leb(50) + bytes([0]))
assert call(f"/layers/{secret}?session={session}&bases={secret}", recipe, "application/octet-stream")[0] == 409
# An empty recipe for a layer that is on the disk; one with what cannot be; one that is none.
for bad in (bytes([0]), bytes([2]) + leb(1 << 40) + leb(1) + bytes([0]), bytes([2]) + leb(1) + leb(1) + bytes([0]), bytes([2]) + leb(0) + leb(0), bytes([5] * 3000 + [0]), bytes([4]) * 9, bytes([9]), b"", bytes([1]) + leb(1 << 30)):
    assert call(f"/layers/{secret}?session={session}", zstd(bad), "application/octet-stream")[0] == 400, bad
assert call(f"/layers/{secret}", zstd(bytes([0])), "application/octet-stream")[0] == 400
assert call(f"/layers/{secret}?session={session}", b"no zstd at all", "application/octet-stream")[0] >= 400
# What is asked for is missing, whatever others have.
status, answer = call("/missing", bytes(range(32)) * 3, "application/octet-stream")
assert (status, answer) == (200, b"\x01\x01\x01")
assert call("/missing", b"x" * 33, "application/octet-stream")[0] == 400
# The image by its configuration alone.
status, text = call("/images", {"session": session, **name, "config": config})
assert status == 409, (status, text)
assert call("/images", {"session": session, **name})[0] == 409
assert call("/images", {"session": "../../x", **name, "config": config})[0] == 400
assert call("/images", {"session": session, **name, "config": config + " "})[0] == 400
# Chunks that are none.
for bad in (b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x05\0\0\0ab"):
    assert call(f"/chunks?session={session}", zstd(bad), "application/octet-stream")[0] == 400
