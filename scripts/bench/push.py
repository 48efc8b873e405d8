"""kra push beside docker push and docker save | docker load, over a slow link; push.sh sets the stage."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import time

WORK, REPO, TREES = (pathlib.Path(os.environ[name]) for name in ("WORK", "REPO", "TREES"))
RATE, DELAY = 100e6 / 8, 0.010  # bytes per second, and seconds each way


class Link:
    """Relays to servers: all connections share one link's rate in each direction, and wait for its delay."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.free, self.bytes = [0.0, 0.0], 0
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def to(self, port):
        """A port that leads to a server's by the link."""
        async def serve():
            server = await asyncio.start_server(lambda reader, writer: self.carry(port, reader, writer), "127.0.0.1", 0)
            return server.sockets[0].getsockname()[1]
        return asyncio.run_coroutine_threadsafe(serve(), self.loop).result()

    async def carry(self, port, reader, writer):
        await asyncio.sleep(2 * DELAY)
        try:
            upstream = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.pump(0, reader, upstream[1]), self.pump(1, upstream[0], writer), return_exceptions=True)

    async def pump(self, way, reader, writer):
        # What is on its way: as much as the link holds, and a little.
        queue = asyncio.Queue(32)

        async def deliver():
            while True:
                at, data = await queue.get()
                await asyncio.sleep(max(0, at - self.loop.time()))
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.ensure_future(deliver())
        try:
            while True:
                data = await reader.read(16384)
                now = self.loop.time()
                self.free[way] = max(self.free[way], now) + len(data) / RATE
                self.bytes += len(data)
                await queue.put((self.free[way] + DELAY, data))
                if not data:
                    break
                if self.free[way] - now > 0.02:
                    await asyncio.sleep(self.free[way] - now - 0.01)
            await delivering
        except (OSError, ConnectionError):
            delivering.cancel()


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, **more)


def output(*command, **more):
    return run(*command, capture_output=True, text=True, **more).stdout.strip()


def wait(what, ready, patience=40):
    end = time.time() + patience
    while not ready():
        if time.time() > end:
            raise SystemExit(f"{what} does not start")
        time.sleep(0.1)


class Stage:
    """The daemons: an engine that has the images, and on the other side of the link a registry, an engine, kraud."""

    def __init__(self):
        self.children, self.link = [], Link()
        self.local, self.remote = WORK / "local.sock", WORK / "remote.sock"
        for name, socket, tcp in (("local", self.local, None), ("remote", self.remote, 23750)):
            hosts = ["-H", f"unix://{socket}"] + (["-H", f"tcp://127.0.0.1:{tcp}", "--tls=false"] if tcp else [])
            self.start(name, "dockerd", *hosts, "--data-root", WORK / name / "data", "--exec-root", WORK / name / "exec", "--pidfile", WORK / name / "pid", "--bridge=none", "--iptables=false")
        config = WORK / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {WORK}/registry }} }}\nhttp: {{ addr: 127.0.0.1:23751 }}\n")
        self.start("registry", os.environ["REGISTRY"], "serve", config)
        self.start("kraud", os.environ["KRAUD_BIN"], "serve", "--data-dir", WORK / "kraud" / "data", "--socket", WORK / "kraud.sock", "--listen", "127.0.0.1:23752")
        self.kraud = ["--socket", WORK / "kraud.sock", "--data-dir", WORK / "kraud" / "data"]
        for socket in (self.local, self.remote, WORK / "kraud.sock"):
            wait(socket, lambda: subprocess.run(["docker", "-H", f"unix://{socket}", "version"], capture_output=True).returncode == 0)
        token = output(os.environ["KRAUD_BIN"], "tenant", "create", "bench", "-q", *self.kraud)
        # What is pushed from an archive is new, too: another tenant's.
        self.other = output(os.environ["KRAUD_BIN"], "tenant", "create", "other", "-q", *self.kraud)
        self.registry, self.engine, door = (self.link.to(port) for port in (23751, 23750, 23752))
        self.environment = os.environ | {"KR_HOST": f"https://127.0.0.1:{door}", "KR_ACCESS_TOKEN": token, "KR_FINGERPRINT": output(os.environ["KRAUD_BIN"], "fingerprint", *self.kraud), "KR_ENGINE": str(self.local), "KR_CONFIG": str(WORK / "kra")}

    def start(self, name, *command):
        (WORK / name).mkdir(exist_ok=True)
        log = open(WORK / f"{name}.log", "w")
        self.children.append(subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True))

    def stop(self):
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()

    def measured(self, work):
        # What was written before is nobody's load.
        os.sync()
        time.sleep(1)
        before, begun = self.link.bytes, time.monotonic()
        work()
        took = time.monotonic() - begun
        # What is still on its way back.
        time.sleep(0.2)
        return took, self.link.bytes - before

    def ways(self, name):
        """How an image gets to the other side, by each way."""
        docker = ["docker", "-H", f"unix://{self.local}"]

        def kra():
            run(os.environ["KRA"], "push", name, env=self.environment, capture_output=True)

        def archive():
            run(os.environ["KRA"], "push", "--archive", WORK / "saved.tar", env=self.environment | {"KR_ACCESS_TOKEN": self.other}, capture_output=True)

        def push():
            there = f"127.0.0.1:{self.registry}/{name}"
            run(*docker, "tag", name, there)
            run(*docker, "push", "-q", there, capture_output=True)

        def load():
            save = subprocess.Popen([*docker, "save", name], stdout=subprocess.PIPE)
            subprocess.run(["docker", "-H", f"tcp://127.0.0.1:{self.engine}", "load", "-q"], stdin=save.stdout, check=True, capture_output=True)
            save.wait()

        def save():
            subprocess.run([*docker, "save", name], stdout=subprocess.DEVNULL, check=True)

        return {"kra push": kra, "kra push --archive": archive, "docker push": push, "docker save, docker load": load, "docker save alone, to nowhere": save}


def tree(name, make):
    """A directory that `make` fills; kept between runs where BENCH_TREES says so."""
    place = TREES / name
    if not (place / ".done").exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        (place / ".done").touch()
    return place


def python_tree(django):
    def make(place):
        packages = ["pandas==2.2.2", "numpy==1.26.4", f"django=={django}", "sqlalchemy==2.0.30", "requests==2.31.0"]
        run(sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--target", place / "app", *packages)
    return tree(f"python-{django}", make)


def node_tree(zod):
    def make(place):
        packages = ["next@14.2.3", "aws-sdk@2.1600.0", "typescript@5.4.5", "@mui/material@5.15.0", "date-fns@3.6.0", "firebase@10.12.0", f"zod@{zod}"]
        (place / "package.json").write_text("{}")
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", place, *packages)
    return tree(f"node-{zod}", make)


def build(archive, name, place, mtime):
    run(sys.executable, REPO / "tests" / "push" / "archive.py", os.environ["BUSYBOX_ARCHIVE"], archive, name, place, "--", str(mtime))


def image(stage, name, place, mtime):
    archive = WORK / "image.tar"
    build(archive, name, place, mtime)
    run("docker", "-H", f"unix://{stage.local}", "load", "-q", "-i", archive, capture_output=True)
    size = archive.stat().st_size
    archive.unlink()
    return size


def compare(stage, name, versions):
    rows = []
    for step, (place, mtime) in (("first push", (versions[0], 1_700_000_000)), ("rebuilt, one package patched, all times new", (versions[1], 1_700_100_000)), ("nothing changed", (None, None))):
        if place:
            size = image(stage, f"{name}:1", place, mtime)
            # As a builder writes it, at another moment: no layer that kraud has of the other tenant.
            build(WORK / "saved.tar", f"{name}:1", place, mtime + 1)
        for way, work in stage.ways(f"{name}:1").items():
            seconds, sent = stage.measured(work)
            rows.append((f"{name}, {size / 1e6:.0f} MB", step, way, seconds, sent))
            print(f"{name}: {step}: {way}: {seconds:.2f} s, {sent / 1e6:.3f} MB", file=sys.stderr)
    return rows


def measure_assemble():
    text = output("cargo", "run", "--release", "--quiet", "-p", "image", "--example", "assemble", cwd=REPO)
    print(text, file=sys.stderr)
    return json.loads(text)


def times(mine, theirs):
    return f"1/{theirs / mine:.1f}" if mine < theirs else f"{mine / theirs:.1f}"


def table(rows, assembled):
    lines = []
    if rows:
        lines += ["| image | step | way | time | bytes on the link | beside docker push |", "|---|---|---|---:|---:|---|"]
        for name, step, way, seconds, sent in rows:
            peer = next(row for row in rows if row[0] == name and row[1] == step and row[2] == "docker push")
            ratio = "" if way == "docker push" or not sent else f"time {times(seconds, peer[3])}, bytes {times(sent, peer[4])}"
            lines.append(f"| {name} | {step} | {way} | {seconds:.2f} s | {sent / 1e6:.3f} MB | {ratio} |")
    if assembled:
        lines += ["", f"A layer of {assembled['bytes'] / 1e6:.0f} MB with {assembled['new_bytes'] / 1e6:.1f} MB new, put together and unpacked by the server: {assembled['bytes'] / 1e6 / assembled['seconds']:.0f} MB/s, at most {assembled['peak_memory'] / 1e6:.0f} MB of memory."]
    return lines


def main(wanted):
    chosen = wanted or ["python", "node", "assemble"]
    rows, assembled = [], None
    if {"python", "node"} & set(chosen):
        trees = {"python": lambda: (python_tree("5.0.6"), python_tree("5.0.7")), "node": lambda: (node_tree("3.23.0"), node_tree("3.23.8"))}
        made = {name: trees[name]() for name in ("python", "node") if name in chosen}
        stage = Stage()
        try:
            for name, versions in made.items():
                rows += compare(stage, name, versions)
        finally:
            stage.stop()
    if "assemble" in chosen:
        assembled = measure_assemble()
    lines = table(rows, assembled)
    print("\n".join(lines))
    if not wanted:
        document = pathlib.Path(os.environ["DOCUMENT"])
        text = document.read_text()
        block = "<!-- push -->\n" + "\n".join(lines) + "\n<!-- /push -->"
        text = re.sub(r"<!-- push -->.*<!-- /push -->", lambda _: block, text, flags=re.S)
        document.write_text(text)


main(sys.argv[1:])
