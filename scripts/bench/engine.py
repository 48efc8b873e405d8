"""The measurements of engine.sh, which starts both daemons and names them in the environment."""

import concurrent.futures
import hashlib
import http.client
import io
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tarfile
import time

SOCKETS = {"kraud": os.environ["KRAUD_SOCKET"], "dockerd": os.environ["DOCKERD_SOCKET"]}
PIDS = {"kraud": int(os.environ["KRAUD_PID"]), "dockerd": int(os.environ["DOCKERD_PID"])}
WORK = os.environ["WORK"]
IMAGE = "busybox"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("d")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def api(engine, method, path, body=None):
    connection = UnixConnection(SOCKETS[engine])
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    if reply.status >= 400:
        raise SystemExit(f"{engine}: {method} {path}: {reply.status} {content[:200]}")
    return json.loads(content) if content.startswith((b"{", b"[")) else None


def docker(engine, *args, **options):
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(["docker", "-H", "unix://" + SOCKETS[engine], *args], check=True, **options).stdout


def shell(engine, command):
    env = os.environ | {"DOCKER_HOST": "unix://" + SOCKETS[engine]}
    return subprocess.run(["bash", "-ec", "set -o pipefail; " + command], check=True, env=env, stdout=subprocess.PIPE).stdout


def seconds(action, *args):
    begin = time.perf_counter()
    action(*args)
    return time.perf_counter() - begin


def alternate(rounds, action, before=lambda engine: None):
    """The median time of `action` per engine; the engines take turns, and who begins does too."""
    times = {"kraud": [], "dockerd": []}
    for turn in range(rounds):
        for engine in sorted(times, reverse=turn % 2 == 0):
            before(engine)
            times[engine].append(seconds(action, engine))
    return {engine: statistics.median(values) for engine, values in times.items()}


def remove_all(engine):
    ids = [c["Id"] for c in api(engine, "GET", "/containers/json?all=1")]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: api(engine, "DELETE", f"/containers/{i}?force=1&v=1"), ids))


# Each measurement: rows of (text, goal, unit, {engine: value}, bigger is better).


def measure_memory():
    def proportional(pids):
        total = 0
        for pid in pids:
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += int(re.search(r"^Pss: +(\d+)", rollup.read(), re.M).group(1))
        return total / 1024

    time.sleep(3)
    idle = {e: proportional(tree(PIDS[e])) for e in PIDS}
    return [("idle daemon, no containers (PSS; dockerd with containerd)", "≤ 1/3", "MB", idle, False)]


def measure_shim():
    values = {}
    for engine in SOCKETS:
        docker(engine, "run", "-d", "--name", "one", IMAGE, "sleep", "1000")
        time.sleep(1)
        init = int(docker(engine, "inspect", "-f", "{{.State.Pid}}", "one"))
        parent = int(re.search(r"^PPid:\s+(\d+)", open(f"/proc/{init}/status").read(), re.M).group(1))
        resident = int(re.search(r"^VmRSS:\s+(\d+)", open(f"/proc/{parent}/status").read(), re.M).group(1))
        values[engine] = resident / 1024
        docker(engine, "rm", "-f", "one")
    return [("shim of one container (RSS)", "≤ 3 MB", "MB", values, False)]


def measure_run():
    for engine in SOCKETS:
        docker(engine, "run", "--rm", IMAGE, "true")
    cli = alternate(20, lambda e: docker(e, "run", "--rm", IMAGE, "true"))
    floor = seconds(lambda: docker("kraud", "version"))
    rows = [("`docker run --rm busybox true`", "5×", "ms", {e: v * 1000 for e, v in cli.items()}, False)]
    print(f"  (a docker command that does nothing takes {floor * 1000:.0f} ms of it)", file=sys.stderr)

    def bare(engine):
        created = api(engine, "POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"]})["Id"]
        api(engine, "POST", f"/containers/{created}/start")
        api(engine, "POST", f"/containers/{created}/wait")
        api(engine, "DELETE", f"/containers/{created}")

    times = alternate(20, bare)
    rows.append(("the same by the API alone", "", "ms", {e: v * 1000 for e, v in times.items()}, False))
    return rows


def measure_parallel():
    command = "for i in $(seq 50); do docker run -d busybox sleep 1000 >/dev/null & done; wait"
    cli = alternate(3, lambda e: shell(e, command), remove_all)

    def bare(engine):
        def one(_):
            created = api(engine, "POST", "/containers/create", {"Image": IMAGE, "Cmd": ["sleep", "1000"]})["Id"]
            api(engine, "POST", f"/containers/{created}/start")

        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            list(pool.map(one, range(50)))

    times = alternate(3, bare, remove_all)
    for engine in SOCKETS:
        remove_all(engine)
    return [
        ("50 × `docker run -d` in parallel", "3×", "s", cli, False),
        ("50 containers in parallel by the API alone", "", "s", times, False),
    ]


def big_archive(path):
    """A docker archive of 200 MB: 2,000 files of 100 kB, half of it random."""
    layer_path = path + ".layer"
    with tarfile.open(layer_path, "w") as tar:
        for number in range(2000):
            info = tarfile.TarInfo(f"data/{number % 40}/file{number}")
            info.size = 100_000
            half = os.urandom(50_000)
            tar.addfile(info, io.BytesIO(half + bytes(50_000)))
    digest = hashlib.sha256()
    with open(layer_path, "rb") as layer:
        while block := layer.read(1 << 20):
            digest.update(block)
    diff = "sha256:" + digest.hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {"architecture": machine, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff]}}
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": ["big:1"], "Layers": ["l/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as tar:
        for entry, content in ((name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer_path, arcname="l/layer.tar")
    os.remove(layer_path)


def measure_load():
    path = WORK + "/big.tar"
    big_archive(path)
    subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)

    def forget(engine):
        subprocess.run(["docker", "-H", "unix://" + SOCKETS[engine], "rmi", "-f", "big:1"], capture_output=True)
        os.sync()

    times = alternate(4, lambda e: docker(e, "load", "-q", "-i", path), forget)
    for engine in SOCKETS:
        forget(engine)
    os.remove(path)
    return [("`docker load` of a 200 MB image", "1×", "s", times, False)]


def measure_ps():
    def create(engine):
        body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "Labels": {"a": "b"}}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: api(engine, "POST", "/containers/create", body), range(500)))

    made = {engine: seconds(create, engine) for engine in sorted(SOCKETS)}
    cli = alternate(15, lambda e: docker(e, "ps", "-a"))
    bare = alternate(15, lambda e: api(e, "GET", "/containers/json?all=1"))
    for engine in SOCKETS:
        remove_all(engine)
    return [
        ("`docker ps -a` with 500 containers", "faster", "ms", {e: v * 1000 for e, v in cli.items()}, False),
        ("the same by the API alone", "", "ms", {e: v * 1000 for e, v in bare.items()}, False),
        ("creating these 500, four at a time", "", "s", made, False),
    ]


def measure_exec():
    size = 400
    for engine in SOCKETS:
        docker(engine, "run", "-d", "--name", "cat", IMAGE, "sleep", "1000")
    command = f"head -c {size}M /dev/zero | docker exec -i cat cat | wc -c"
    times = alternate(5, lambda e: shell(e, command))
    for engine in SOCKETS:
        docker(engine, "rm", "-f", "cat")
    return [("`docker exec -i cat` throughput", "1×", "MB/s", {e: size / v for e, v in times.items()}, True)]


def measure_logs():
    size = 100
    write = {}
    for engine in sorted(SOCKETS):
        options = ["--log-opt", "max-size=1g", "--log-opt", "max-file=2"]
        begin = time.perf_counter()
        docker(engine, "run", "-d", "--name", "log", *options, IMAGE, "sh", "-c",
               f"yes 'a line of a log that is neither short nor very long, as lines go' | head -c {size}000000")
        docker(engine, "wait", "log")
        write[engine] = size / (time.perf_counter() - begin)
    times = alternate(3, lambda e: shell(e, "docker logs log | wc -c"))
    for engine in SOCKETS:
        docker(engine, "rm", "-f", "log")
    return [
        ("`docker logs` of 100 MB", "1×", "MB/s", {e: size / v for e, v in times.items()}, True),
        ("writing those 100 MB from the container", "", "MB/s", write, True),
    ]


def tree(pid):
    """A process and all below it."""
    found = [pid]
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            for child in children.read().split():
                found += tree(int(child))
    except FileNotFoundError:
        # Without this kernel option the parents are asked instead.
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = open(f"/proc/{entry}/stat").read()
                except OSError:
                    continue
                if int(stat.rsplit(")", 1)[1].split()[1]) == pid:
                    found += tree(int(entry))
    return found


MEASUREMENTS = {
    "memory": measure_memory,
    "shim": measure_shim,
    "run": measure_run,
    "parallel": measure_parallel,
    "load": measure_load,
    "ps": measure_ps,
    "exec": measure_exec,
    "logs": measure_logs,
}


def table(rows):
    lines = ["| what | kraud | dockerd | ratio | goal |", "|---|---:|---:|---:|---|"]
    for text, goal, unit, values, bigger in rows:
        ours, theirs = values["kraud"], values["dockerd"]
        if unit == "MB":
            ratio = f"{ours / theirs:.2f} of it"
        else:
            factor = ours / theirs if bigger else theirs / ours
            ratio = f"{factor:.1f}×"
        digits = 2 if unit == "s" else 1 if unit == "MB" else 0
        lines.append(f"| {text} | {ours:.{digits}f} {unit} | {theirs:.{digits}f} {unit} | {ratio} | {goal} |")
    return "\n".join(lines)


def document(rows):
    version = {e: api(e, "GET", "/version") for e in SOCKETS}
    memory = re.search(r"MemTotal: +(\d+)", open("/proc/meminfo").read()).group(1)
    return f"""# Benchmarks

Measured side by side in one run by

    ./scripts/bench/engine.sh

which starts kraud and dockerd with fresh data on the same disk, each in a network namespace of its own with its
default bridge network, and lets them take turns. Times are medians. A ratio above 1× means that kraud is
faster; memory is given as a part of dockerd's.

{table(rows)}

The client is the docker CLI, and its own start (about 20 ms) is part of every time but those "by the API alone".

- kraud {version["kraud"]["Version"]}, runtime crun; dockerd {version["dockerd"]["Version"]}, runtime runc
- {os.cpu_count()} processors, {int(memory) // 1048576} GB, Linux {platform.release().split("-")[0]}, {platform.machine()}
- {time.strftime("%Y-%m-%d", time.gmtime())}
"""


def main():
    wanted = sys.argv[1:] or list(MEASUREMENTS)
    for engine in SOCKETS:
        docker(engine, "info")
    if "memory" in wanted:
        # First of all, before anything has warmed the heaps.
        wanted = ["memory"] + [name for name in wanted if name != "memory"]
    rows = []
    loaded = False
    for name in wanted:
        if name != "memory" and not loaded:
            for engine in SOCKETS:
                docker(engine, "load", "-q", "-i", os.environ["BUSYBOX_ARCHIVE"])
            loaded = True
        print(f"measuring: {name}", file=sys.stderr)
        new = MEASUREMENTS[name]()
        rows += new
        print(table(new).split("\n", 2)[2], file=sys.stderr)
    print(table(rows))
    if not sys.argv[1:]:
        # What other benchmarks wrote behind it stays.
        with open(os.environ["DOCUMENT"]) as file:
            _, section, rest = file.read().partition("\n## ")
        with open(os.environ["DOCUMENT"], "w") as file:
            file.write(document(rows) + section + rest)


if __name__ == "__main__":
    main()
