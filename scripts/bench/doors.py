"""Load on kraud's door to the network; see doors.sh.

1,000 connections stand idle after one call each, 500 send a request's head a line every few seconds and never end it, and
200 calls a second, a mix of looking and changing, go over others. Latency is from the moment at which a call was due,
so that one that had to wait for another counts with its wait.
"""

import asyncio
import json
import os
import re
import ssl
import statistics
import sys
import time
from urllib.parse import urlsplit

DOOR = urlsplit(os.environ["KR_HOST"])
TOKEN = os.environ["TOKEN"]
SECONDS = int(os.environ.get("BENCH_SECONDS", 60))
IDLE, SLOW, RATE, WORKERS = 1000, 500, 200, 32
TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE
# What most calls are: looks. One in twenty makes a volume's record and one takes it away.
LOOKS = ["/_ping", "/version", "/containers/json?all=1", "/images/json", "/networks", "/volumes", "/info", "/kr/v1/whoami", "/system/df"]


async def connect():
    return await asyncio.open_connection(DOOR.hostname, DOOR.port, ssl=TLS)


async def call(stream, method, path, body=None):
    reader, writer = stream
    data = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: k\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    answer = await reader.readuntil(b"\r\n\r\n")
    status = int(answer.split(b" ", 2)[1])
    length = re.search(rb"content-length: (\d+)", answer, re.I)
    if length:
        await reader.readexactly(int(length[1]))
    elif b"chunked" in answer.lower():
        while True:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            await reader.readexactly(size + 2)
            if size == 0:
                break
    return status


async def dawdle():
    """A head that never ends; again when kraud has had enough."""
    while True:
        try:
            _, writer = await connect()
            writer.write(b"GET /_ping HTTP/1.1\r\n")
            for n in range(1000):
                await asyncio.sleep(5)
                writer.write(f"X-{n}: x\r\n".encode())
                await writer.drain()
        except (OSError, ssl.SSLError, ConnectionError):
            await asyncio.sleep(1)


async def several(count, make, at_once=50):
    gate = asyncio.Semaphore(at_once)

    async def one():
        async with gate:
            return await make()
    return await asyncio.gather(*(one() for _ in range(count)))


async def load(seconds):
    """Latencies, and what went wrong."""
    due, took, wrong = asyncio.Queue(), [], []

    async def worker(number):
        stream, volume = await connect(), 0
        while (item := await due.get()) is not None:
            at, index = item
            if index % 20 == 0:
                volume += 1
                wanted = ("POST", "/volumes/create", {"Name": f"load-{number}-{volume}"})
            elif index % 20 == 10 and volume:
                wanted = ("DELETE", f"/volumes/load-{number}-{volume}", None)
                volume = 0
            else:
                wanted = ("GET", LOOKS[index % len(LOOKS)], None)
            began = time.monotonic()
            try:
                status = await call(stream, *wanted)
                if status >= 300 and not (wanted[0] == "DELETE" and status == 404):
                    wrong.append(f"{wanted[:2]}: {status}")
            except (OSError, asyncio.IncompleteReadError) as error:
                wrong.append(f"{wanted[:2]}: {error!r}")
                stream = await connect()
            took.append(time.monotonic() - at)
            if os.environ.get("BENCH_VERBOSE") and took[-1] > 0.03:
                print(f"{took[-1] * 1e3:.0f} ms, {(time.monotonic() - began) * 1e3:.0f} ms of them the call: {wanted[:2]}")

    workers = [asyncio.create_task(worker(number)) for number in range(WORKERS)]
    begun = time.monotonic() + 0.5
    for index in range(seconds * RATE):
        at = begun + index / RATE
        await asyncio.sleep(max(0, at - time.monotonic()))
        due.put_nowait((at, index))
    for _ in workers:
        due.put_nowait(None)
    await asyncio.gather(*workers)
    return took, wrong


def memory():
    status = open(f"/proc/{os.environ['KRAUD_PID']}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def figures(took):
    took = sorted(took)
    return statistics.median(took) * 1e3, took[int(len(took) * 0.99)] * 1e3, took[-1] * 1e3


async def main():
    rows, before = [], memory()
    alone, wrong = await load(max(5, SECONDS // 6))
    rows.append((f"{RATE} calls a second alone", figures(alone), wrong))
    idle = await several(IDLE, connect)
    for stream in idle:
        assert await call(stream, "GET", "/_ping") == 200
    grown = (memory() - before) * 1024 / IDLE
    took, wrong = await load(SECONDS)
    rows.append((f"beside {IDLE} idle connections", figures(took), wrong))
    # A program of its own: its handshakes must not count as waiting here.
    slow = await asyncio.create_subprocess_exec(sys.executable, __file__, "dawdle")
    await asyncio.sleep(8)
    took, wrong = await load(SECONDS)
    rows.append((f"and {SLOW} that never end their requests", figures(took), wrong))
    slow.terminate()
    await slow.wait()
    for stream in idle:
        assert await call(stream, "GET", "/_ping") == 200, "an idle connection is gone"
    lines = ["| what | median | p99 | longest | errors | goal |", "|---|---:|---:|---:|---:|---|"]
    for what, (median, p99, longest), wrong in rows:
        lines.append(f"| {what} | {median:.1f} ms | {p99:.1f} ms | {longest:.0f} ms | {len(wrong)} | p99 < 100 ms, no errors |")
        for text in sorted(set(wrong))[:5]:
            print(text)
    lines += ["", f"An idle connection takes {grown:.0f} KB of kraud's memory."]
    print("\n".join(lines))
    if SECONDS >= 60:
        document("\n".join(lines))


def document(table):
    path, head = os.environ["DOCUMENT"], "## The door to the network\n"
    text = open(path).read().split(head)[0].rstrip()
    text += f"\n\n{head}\nMeasured by\n\n    ./scripts/bench/doors.sh\n\nfor {SECONDS} s each, client and kraud on the same processors. The calls are a mix of nine that look and, one in ten, two\nthat make and remove a volume. Latency counts from when a call was due.\n\n{table}\n"
    open(path, "w").write(text)


async def dawdlers():
    await asyncio.gather(*(dawdle() for _ in range(SLOW)))


asyncio.run(dawdlers() if sys.argv[1:] == ["dawdle"] else main())
