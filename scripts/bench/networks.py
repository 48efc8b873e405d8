"""Compose projects, throughput and names; networks.sh has engine.sh start both daemons."""

import json
import os
import pathlib
import platform
import re
import socket
import statistics
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine import PIDS, SOCKETS, WORK, docker, seconds

ENGINES = ("kraud", "dockerd")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def alternate(measure, rounds=ROUNDS):
    """Median of each engine's values; the engines take turns."""
    values = {engine: [] for engine in ENGINES}
    for turn in range(rounds):
        for engine in ENGINES if turn % 2 else reversed(ENGINES):
            values[engine].append(measure(engine))
    return {engine: statistics.median(got) for engine, got in values.items()}


def measure_compose():
    """A project of ten services on a network of its own, brought up and taken down by the plugin."""
    directory = pathlib.Path(WORK) / "ten"
    directory.mkdir(exist_ok=True)
    services = {f"s{number}": {"image": "busybox", "command": "sleep 100000", "stop_signal": "KILL"} for number in range(10)}
    (directory / "compose.yaml").write_text(json.dumps({"name": "ten", "services": services}))

    def compose(engine, *arguments):
        env = os.environ | {"DOCKER_HOST": "unix://" + SOCKETS[engine]}
        subprocess.run(["docker", "compose", *arguments], cwd=directory, env=env, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    downs = {engine: [] for engine in ENGINES}

    def up(engine):
        took = seconds(compose, engine, "up", "-d")
        downs[engine].append(seconds(compose, engine, "down"))
        return took

    ups = alternate(up)
    down = {engine: statistics.median(got) for engine, got in downs.items()}
    idle = alternate(lambda engine: seconds(compose, engine, "ls"))
    yield "compose up -d, ten services", ups, "s", False, "3"
    yield "compose down, ten services", down, "s", False, "3"
    yield "compose ls: what the plugin itself takes", idle, "s", False, ""


def libraries():
    """The machine's own, for the machine's own programs in a container."""
    found = []
    for place in ("/lib", "/lib64", "/usr/lib"):
        if os.path.exists(place):
            found += ["-v", f"{os.path.realpath(place)}:{place}:ro"]
    return found


def inside(engine, container=None):
    """A command's beginning that runs in the namespace of the daemon, or of a container."""
    pid = PIDS[engine]
    if container:
        pid = int(docker(engine, "inspect", "-f", "{{.State.Pid}}", container))
    return ["nsenter", "-t", str(pid), "-n"]


def measure_throughput():
    iperf = subprocess.run(["which", "iperf3"], check=True, capture_output=True, text=True).stdout.strip()
    for engine in ENGINES:
        docker(engine, "network", "create", "speed")
        docker(engine, "run", "-d", "--name", "server", "--network", "speed", "-p", "15201:5201", *libraries(), "-v", f"{iperf}:/iperf3:ro", "busybox", "/iperf3", "-s")
        docker(engine, "run", "-d", "--name", "client", "--network", "speed", "busybox", "sleep", "100000")
    time.sleep(1)

    def gigabits(engine, where, address, port):
        said = subprocess.run([*inside(engine, where), "iperf3", "-c", address, "-p", str(port), "-t", "3", "-J"], check=True, capture_output=True).stdout
        return json.loads(said)["end"]["sum_received"]["bits_per_second"] / 1e9

    def address(engine, field):
        return docker(engine, "inspect", "-f", "{{.NetworkSettings.Networks.speed." + field + "}}", "server").decode().strip()

    yield "from container to container", alternate(lambda engine: gigabits(engine, "client", address(engine, "IPAddress"), 5201)), "Gbit/s", True, "0.95"
    yield "through a published port, by the gateway's address", alternate(lambda engine: gigabits(engine, None, address(engine, "Gateway"), 15201)), "Gbit/s", True, "1"
    yield "through a published port, by loopback", alternate(lambda engine: gigabits(engine, None, "127.0.0.1", 15201)), "Gbit/s", True, "1"
    for engine in ENGINES:
        docker(engine, "rm", "-f", "server", "client")
        docker(engine, "network", "rm", "speed")


def lookups(count, name):
    """Questions for a name's address, one after the other; runs in a container's network namespace."""
    question = b"".join(bytes([len(part)]) + part for part in name.encode().split(b".")) + b"\0" + struct.pack(">HH", 1, 1)
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.connect(("127.0.0.11", 53))
    asking.settimeout(5)
    begin = time.perf_counter()
    for number in range(count):
        asking.send(struct.pack(">HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + question)
        answer = asking.recv(1500)
        identity, flags, _, answers = struct.unpack(">HHHH", answer[:8])
        assert identity == number & 0xFFFF and flags & 15 == 0 and answers >= 1, answer
    return count / (time.perf_counter() - begin)


def measure_names():
    for engine in ENGINES:
        docker(engine, "network", "create", "names")
        for number in range(3):
            docker(engine, "run", "-d", "--name", f"n{number}", "--network", "names", "--network-alias", "service", "busybox", "sleep", "100000")

    def rate(engine):
        return float(subprocess.run([*inside(engine, "n0"), sys.executable, __file__, "lookups", "10000", "service"], check=True, capture_output=True, text=True).stdout)

    yield "10,000 lookups of a service's name", alternate(rate), "per second", True, "1"
    for engine in ENGINES:
        docker(engine, "rm", "-f", "n0", "n1", "n2")
        docker(engine, "network", "rm", "names")


MEASUREMENTS = {"compose": measure_compose, "throughput": measure_throughput, "names": measure_names}


def main():
    if sys.argv[1:2] == ["lookups"]:
        print(lookups(int(sys.argv[2]), sys.argv[3]))
        return
    for engine in ENGINES:
        docker(engine, "load", "-q", "-i", os.environ["BUSYBOX_ARCHIVE"])
    wanted = sys.argv[1:] or list(MEASUREMENTS)
    lines = ["| | kraud | dockerd | ratio | goal |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in wanted:
        print(f"measuring: {name}", flush=True)
        for what, values, unit, more_is_better, goal in MEASUREMENTS[name]():
            ratio = values["kraud"] / values["dockerd"]
            ratio = ratio if more_is_better else 1 / ratio
            row = f"| {what} | {values['kraud']:.4g} {unit} | {values['dockerd']:.4g} {unit} | {ratio:.2f} | {'≥ ' + goal if goal else ''} |"
            print(row, flush=True)
            lines.append(row)
    if sys.argv[1:]:
        return
    lines += ["", f"- {os.cpu_count()} processors, Linux {platform.release()}, {platform.machine()}; {time.strftime('%Y-%m-%d')}"]
    document = pathlib.Path(os.environ["DOCUMENT"])
    text = document.read_text()
    block = "<!-- networks: begin -->\n\n" + "\n".join(lines) + "\n\n<!-- networks: end -->"
    document.write_text(re.sub(r"<!-- networks: begin -->.*<!-- networks: end -->", lambda _: block, text, flags=re.S))


if __name__ == "__main__":
    main()
