"""archive.py BASE OUT NAME TREE... [-- MTIME]: an archive as docker save writes it: the layers of BASE, and each TREE as one
layer more. FORMAT=oci writes an OCI layout's files, with gzip-compressed layers."""
import gzip, hashlib, io, json, os, sys, tarfile


def layer_of(tree, mtime):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for base, folders, files in os.walk(tree):
            folders.sort()
            for name in sorted(folders) + sorted(files):
                path = os.path.join(base, name)
                entry = made.gettarinfo(path, os.path.relpath(path, tree))
                entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = mtime, 0, 0, "", ""
                made.addfile(entry, open(path, "rb") if entry.isreg() else None)
    return out.getvalue()


def digest(data):
    return hashlib.sha256(data).hexdigest()


def main(base, out, name, *trees):
    mtime = 1000
    if "--" in trees:
        at = trees.index("--")
        trees, mtime = trees[:at], int(trees[at + 1])
    archive = tarfile.open(base)
    manifest = json.load(archive.extractfile("manifest.json"))[0]
    config = json.load(archive.extractfile(manifest["Config"]))
    layers = [archive.extractfile(path).read() for path in manifest["Layers"]]
    for tree in trees:
        layers.append(layer_of(tree, mtime))
        config.setdefault("history", []).append({"created": "2026-01-01T00:00:00Z", "created_by": f"tree {os.path.basename(tree)}"})
    config["rootfs"]["diff_ids"] = [f"sha256:{digest(layer)}" for layer in layers]
    config = json.dumps(config).encode()
    files = {}
    if os.environ.get("FORMAT") == "oci":
        def blob(data, kind):
            files[f"blobs/sha256/{digest(data)}"] = data
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(data)}", "size": len(data)}
        packed = [blob(gzip.compress(layer, 1), "layer.v1.tar+gzip") for layer in layers]
        top = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": blob(config, "config.v1+json"), "layers": packed}
        top = blob(json.dumps(top).encode(), "manifest.v1+json")
        top["annotations"] = {"io.containerd.image.name": name}
        index = blob(json.dumps({"schemaVersion": 2, "manifests": [{**top, "platform": {"os": "linux", "architecture": "amd64"}}]}).encode(), "index.v1+json")
        index["annotations"] = {"io.containerd.image.name": name}
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
        files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    else:
        files = {f"{digest(config)}.json": config, **{f"l{n}/layer.tar": layer for n, layer in enumerate(layers)}}
        files["manifest.json"] = json.dumps([{"Config": f"{digest(config)}.json", "RepoTags": [name], "Layers": [f"l{n}/layer.tar" for n in range(len(layers))]}]).encode()
    with tarfile.open(out, "w") as made:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))


main(*sys.argv[1:])
