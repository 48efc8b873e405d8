"""The measurements of volumes.sh, which starts kraud and names it in the environment."""

import http.client
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time

SOCKET, POOL, WORK = os.environ["SOCKET"], os.environ["POOL"], os.environ["WORK"]
FILES = int(os.environ.get("BENCH_FILES", "1000000"))
BYTES = os.environ.get("BENCH_BYTES", "5G")
SIZE = os.environ.get("BENCH_SIZE", "2g")
TIME = os.environ.get("BENCH_SECONDS", "10")
MEGABYTE = 1 << 20


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)


def api(method, path, body=None):
    connection = UnixConnection("kraud")
    connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    if reply.status >= 400:
        raise SystemExit(f"{method} {path}: {reply.status} {content[:300]}")
    return json.loads(content) if content.startswith((b"{", b"[")) else None


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout.decode()


def seconds(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


# Volumes.


def create(name, driver="nfs", **options):
    api("POST", "/v1.47/volumes/create", {"Name": name, "Driver": driver, "DriverOpts": {"snapshots": "none", "pool": "bench", **options}})


def remove(name):
    api("DELETE", f"/kr/v1/volumes/{name}")


def mountpoint(name):
    return api("GET", f"/v1.47/volumes/{name}")["Mountpoint"]


def snapshot(volume, name):
    api("POST", "/kr/v1/snapshots", {"volumes": [volume], "name": name})


def snapshot_gone(volume, name):
    api("DELETE", f"/kr/v1/volumes/{volume}/snapshots/{name}")


class Used:
    """A container that has a volume mounted; fio runs in it, with the machine's own libraries."""

    def __init__(self, volume):
        libraries = [["-v", f"{os.path.realpath(d)}:{d}:ro"] for d in ("/lib", "/lib64", "/usr/lib") if os.path.exists(d)]
        self.id = run(
            "docker", "-H", "unix://" + SOCKET, "run", "-d", "--privileged", "-v", f"{volume}:/v",
            "-v", f"{run('which', 'fio').strip()}:/fio:ro", *sum(libraries, []), "busybox", "sleep", "100000",
        ).strip()

    def fio(self, *arguments):
        return run("docker", "-H", "unix://" + SOCKET, "exec", self.id, "/fio", *arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run("docker", "-H", "unix://" + SOCKET, "rm", "-f", self.id)


def operations(volume, rounds=9):
    """Medians of the milliseconds that a snapshot, a rollback and a clone of a volume take, by the API."""
    snapshot(volume, "base")
    times = {"snapshot": [], "rollback": [], "clone": []}
    for _ in range(rounds):
        times["snapshot"].append(seconds(lambda: snapshot(volume, "new")))
        snapshot_gone(volume, "new")
        safety = []
        times["rollback"].append(
            seconds(lambda: safety.append(api("POST", f"/kr/v1/volumes/{volume}/rollback", {"snapshot": "base"})["safety"]))
        )
        snapshot_gone(volume, safety[0])
        times["clone"].append(seconds(lambda: api("POST", f"/kr/v1/volumes/{volume}/clone", {"name": "copy"})))
        remove("copy")
        # What was removed is cleaned up by the file system in the background.
        time.sleep(0.5)
    snapshot_gone(volume, "base")
    return {what: statistics.median(values) * 1000 for what, values in times.items()}


def measure_operations():
    columns = {}
    create("small")
    columns["empty files"] = operations("small")
    remove("small")
    create("many")
    root = mountpoint("many")
    for directory in range(FILES // 1000):
        os.mkdir(f"{root}/{directory}")
        for file in range(1000):
            os.close(os.open(f"{root}/{directory}/{file}", os.O_CREAT | os.O_WRONLY))
    run("sync", "-f", root)
    columns[f"{FILES} files"] = operations("many")
    remove("many")
    create("image", "lv2", size="50G")
    columns["empty 50 GB block volume"] = operations("image")
    with Used("image") as used:
        used.fio(
            "--name=fragments", "--filename=/v/file", "--filesize=45G", f"--io_size={BYTES}", "--rw=randwrite", "--bs=16k",
            "--direct=1", "--ioengine=libaio", "--iodepth=32", "--norandommap", "--fallocate=none", "--end_fsync=1",
        )
    image = f"{POOL}/volumes/{api('GET', '/kr/v1/volumes/image')['id']}/live/image"
    extents = re.search(r": (\d+) extent", run("filefrag", image)).group(1)
    columns[f"the same with {BYTES} in {extents} extents"] = operations("image")
    remove("image")
    rows = [(what, *(f"{column[what]:.0f} ms" for column in columns.values()), "< 100 ms") for what in ("snapshot", "rollback", "clone")]
    return table(("operation, by the API", *columns, "goal"), rows)


# fio's jobs: name, what it is measured in, arguments.
JOBS = [
    ("sequential write, 1 MB", "write", ["--rw=write", "--bs=1m", f"--size={SIZE}", "--end_fsync=1", "--ioengine=psync"]),
    ("sequential read, 1 MB", "read", ["--rw=read", "--bs=1m", f"--size={SIZE}", "--invalidate=1", "--ioengine=psync"]),
    ("random write, 4 kB", "write", ["--rw=randwrite", "--bs=4k", f"--size={SIZE}", f"--runtime={TIME}", "--time_based", "--direct=1", "--ioengine=libaio", "--iodepth=16"]),
    ("random read, 4 kB", "read", ["--rw=randread", "--bs=4k", f"--size={SIZE}", f"--runtime={TIME}", "--time_based", "--direct=1", "--ioengine=libaio", "--iodepth=16"]),
]


def throughput(fio, directory, side, arguments):
    report = json.loads(fio(f"--filename={directory}/data", "--name=j", "--fallocate=none", "--output-format=json", *arguments))
    return report["jobs"][0][side]["bw_bytes"] / MEGABYTE


def compare(places, rounds=3):
    """Per job and place the median of MB/s; the places take turns."""
    results = []
    for name, side, arguments in JOBS:
        values = {place: [] for place in places}
        for turn in range(rounds):
            for place in sorted(places, reverse=turn % 2 == 1):
                fio, directory = places[place]
                values[place].append(throughput(fio, directory, side, arguments))
        results.append((name, {place: statistics.median(got) for place, got in values.items()}))
    return results


def on_machine(*arguments):
    return run("fio", *arguments)


def bare_file_system(kind, image, nocow=False):
    """A file system of its own on a loop device with direct I/O, as kraud makes them."""
    os.makedirs(os.path.dirname(image), exist_ok=True)
    open(image, "w").close()
    if nocow:
        run("chattr", "+C", image)
    os.truncate(image, 20 << 30)
    device = run("losetup", "--direct-io=on", "-f", "--show", image).strip()
    run(f"mkfs.{kind}", "-q", device)
    mount = f"{WORK}/bare-{kind}"
    os.mkdir(mount)
    run("mount", device, mount)
    # It goes with the mount.
    run("losetup", "-d", device)
    return mount


def settled():
    """What earlier measurements removed is given back in the background: that ends first."""
    run("btrfs", "subvolume", "sync", POOL)
    run("sync")


def measure_files():
    settled()
    create("nfs-data", "nfs", size="10G")
    bare = bare_file_system("btrfs", f"{WORK}/bare.img")
    with Used("nfs-data") as nfs:
        results = compare({"bare": (on_machine, bare), "volume": (nfs.fio, "/v")})
    run("umount", bare)
    os.unlink(f"{WORK}/bare.img")
    remove("nfs-data")
    rows = [(job, f"{got['volume']:.0f} MB/s", f"{got['bare']:.0f} MB/s", f"{got['volume'] / got['bare']:.2f}", "≥ 0.95") for job, got in results]
    return table(("files: container on `nfs`", "volume", "bare btrfs", "ratio", "goal"), rows)


def measure_block():
    settled()
    create("lv2-data", "lv2", size="20G")
    directory = f"{POOL}/bench"
    bare = bare_file_system("ext4", f"{directory}/bare.img", nocow=True)
    os.mkdir(f"{directory}/raw")
    run("chattr", "+C", f"{directory}/raw")
    with Used("lv2-data") as lv2:
        results = compare({"loop": (on_machine, bare), "raw": (on_machine, f"{directory}/raw"), "volume": (lv2.fio, "/v")})
    run("umount", bare)
    run("rm", "-r", directory)
    remove("lv2-data")
    rows = [
        (job, f"{got['volume']:.0f} MB/s", f"{got['loop']:.0f} MB/s", f"{got['volume'] / got['loop']:.2f}", "≥ 0.95",
         f"{got['raw']:.0f} MB/s", f"{got['volume'] / got['raw']:.2f}", "≥ 0.8")
        for job, got in results
    ]
    return table(("block: container on `lv2`", "volume", "bare loop, ext4", "ratio", "goal", "raw (file of the pool)", "ratio", "goal"), rows)


def measure_snapshots():
    settled()
    create("data", "nfs", size="20G")
    listing, writing = {}, {}
    write = JOBS[2][2]
    with Used("data") as used:
        throughput(used.fio, "/v", "write", ["--rw=write", "--bs=1m", f"--size={SIZE}", "--ioengine=psync", "--end_fsync=1"])
        made = 0
        for count in (10, 1000):
            while made < count:
                with open(f"{mountpoint('data')}/number", "w") as file:
                    file.write(str(made))
                snapshot("data", f"s{made}")
                made += 1
            listing[count] = statistics.median(seconds(lambda: api("GET", "/kr/v1/volumes/data/snapshots")) for _ in range(9)) * 1000
            # All blocks are shared with a snapshot at first: the first writes pay for that, with 10 as with 1000.
            speeds = []
            for again in range(3):
                snapshot("data", f"fresh{count}-{again}")
                speeds.append(throughput(used.fio, "/v", "write", write))
            writing[count] = statistics.median(speeds)
    remove("data")
    rows = [
        ("list them, by the API", f"{listing[10]:.0f} ms", f"{listing[1000]:.0f} ms", "", "< 50 ms"),
        ("random write, 4 kB", f"{writing[10]:.0f} MB/s", f"{writing[1000]:.0f} MB/s", f"{writing[1000] / writing[10]:.2f}", "not slower"),
    ]
    return table(("snapshots of one volume", "10", "1,000", "ratio", "goal"), rows)


def table(head, rows):
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


BEGIN, END = "<!-- volumes: begin -->", "<!-- volumes: end -->"


def document(tables):
    version = api("GET", "/v1.47/version")
    memory = int(re.search(r"MemTotal: +(\d+)", open("/proc/meminfo").read()).group(1)) >> 20
    facts = f"- kraud {version['Version']}; {os.cpu_count()} processors, {memory} GB, Linux {platform.release()}, {platform.machine()}\n- {time.strftime('%Y-%m-%d')}"
    path = os.environ["DOCUMENT"]
    with open(path) as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    with open(path, "w") as file:
        file.write(before + BEGIN + "\n\n" + "\n\n".join(tables) + "\n\n" + facts + "\n\n" + END + after)


MEASUREMENTS = {"operations": measure_operations, "files": measure_files, "block": measure_block, "snapshots": measure_snapshots}


def main():
    wanted = sys.argv[1:] or list(MEASUREMENTS)
    tables = []
    for name in wanted:
        if name not in MEASUREMENTS:
            raise SystemExit(f"no measurement {name}; there are {', '.join(MEASUREMENTS)}")
        print(f"measuring: {name}", file=sys.stderr)
        tables.append(MEASUREMENTS[name]())
        print(tables[-1] + "\n", flush=True)
    if not sys.argv[1:]:
        document(tables)


main()
