"""A program that uses testcontainers: it starts a container, waits for its log line, and talks to it."""

import sys
import urllib.request

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs

server = (
    DockerContainer("busybox")
    .with_command(["sh", "-c", "mkdir /w; echo hello >/w/index.html; sleep 1; echo ready to serve; exec httpd -f -p 80 -h /w"])
    .with_exposed_ports(80)
    .with_env("A", "b")
)
with server as running:
    wait_for_logs(running, "ready to serve", timeout=20)
    address = f"http://{running.get_container_host_ip()}:{running.get_exposed_port(80)}/"
    for _ in range(50):
        try:
            said = urllib.request.urlopen(address, timeout=5).read()
            break
        except OSError:
            continue
    code, env = running.exec(["sh", "-c", "echo $A"])
print("ok" if (said, code, env) == (b"hello\n", 0, b"b\n") else f"not ok: {said} {code} {env}")
sys.exit(0 if said == b"hello\n" else 1)
