"""Pushes a multi-arch OCI index whose image for ARCH is the tree ROOTFS.

usage: push_index.py REGISTRY NAME TAG ARCH ROOTFS [zstd]
"""

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import urllib.request

registry, name, tag, arch, rootfs = sys.argv[1:6]
zstd = sys.argv[6:] == ["zstd"]
base = f"http://{registry}/v2/{name}"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def call(method: str, url: str, data: bytes = b"", kind: str = "application/octet-stream"):
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    return opener.open(request)


def blob(kind: str, data: bytes) -> dict:
    where = call("POST", f"{base}/blobs/uploads/").headers["Location"]
    where = where if where.startswith("http") else f"http://{registry}{where}"
    call("PUT", where + ("&" if "?" in where else "?") + "digest=" + digest(data), data)
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def manifest(reference: str, kind: str, body: dict) -> dict:
    data = json.dumps(body).encode()
    call("PUT", f"{base}/manifests/{reference or digest(data)}", data, kind)
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def image(architecture: str, layer_tar: bytes) -> dict:
    if zstd:
        packed = subprocess.run(["zstd", "-q", "-c"], input=layer_tar, stdout=subprocess.PIPE, check=True).stdout
    else:
        packed = gzip.compress(layer_tar, 1, mtime=0)
    layer = blob("application/vnd.oci.image.layer.v1.tar+" + ("zstd" if zstd else "gzip"), packed)
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer_tar)]},
    }
    kind = "application/vnd.oci.image.manifest.v1+json"
    body = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": blob("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [layer],
    }
    return manifest("", kind, body) | {"platform": {"architecture": architecture, "os": "linux"}}


def tree(path: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(path, arcname=".")
    return out.getvalue()


other = "arm64" if arch != "arm64" else "amd64"
stub = io.BytesIO()
with tarfile.open(fileobj=stub, mode="w") as tar:
    tar.addfile(tarfile.TarInfo("other"))
index = "application/vnd.oci.image.index.v1+json"
manifest(
    tag,
    index,
    {"schemaVersion": 2, "mediaType": index, "manifests": [image(other, stub.getvalue()), image(arch, tree(rootfs))]},
)
