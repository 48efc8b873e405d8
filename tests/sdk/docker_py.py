"""Everyday use of docker-py (PyPI: docker) against the daemon that DOCKER_HOST names."""

import io
import os
import tarfile
import threading
import time
import unittest
import uuid

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Mount, Ulimit

IMAGE = "busybox"


class Base(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env(timeout=60)
        self.addCleanup(self.client.close)
        self.tag = uuid.uuid4().hex[:8]

    def name(self, part="c"):
        return f"py-{part}-{self.tag}"

    def run_detached(self, command="sleep 300", **options):
        options.setdefault("name", self.name())
        container = self.client.containers.run(IMAGE, command, detach=True, **options)
        self.addCleanup(self.remove, container)
        return container

    @staticmethod
    def remove(container):
        try:
            container.remove(force=True, v=True)
        except (NotFound, APIError):
            pass


class System(Base):
    def test_version_info_ping(self):
        self.assertTrue(self.client.ping())
        self.assertIn("ApiVersion", self.client.version())
        self.assertEqual(self.client.info()["OSType"], "linux")

    def test_df(self):
        self.assertIn("LayersSize", self.client.df())

    def test_events(self):
        since = int(time.time())
        container = self.run_detached("true")
        container.wait()
        events = list(
            self.client.events(since=since, until=time.time() + 0.5, decode=True, filters={"container": container.name})
        )
        self.assertEqual([e["Action"] for e in events if e["Action"] in ("create", "start", "die")], ["create", "start", "die"])

    def test_live_events(self):
        stream = self.client.events(decode=True, filters={"type": "volume"})
        seen = []
        reader = threading.Thread(target=lambda: seen.append(next(stream)))
        reader.start()
        time.sleep(0.3)
        volume = self.client.volumes.create(self.name("v"))
        reader.join(10)
        volume.remove()
        stream.close()
        self.assertEqual(seen[0]["Action"], "create")


class Containers(Base):
    def test_run_returns_output(self):
        self.assertEqual(self.client.containers.run(IMAGE, "echo hello", remove=True), b"hello\n")
        out = self.client.containers.run(IMAGE, ["sh", "-c", "echo o; echo e >&2"], remove=True, stdout=True, stderr=True)
        self.assertEqual(sorted(out.splitlines()), [b"e", b"o"])

    def test_run_raises_on_failure(self):
        with self.assertRaises(ContainerError) as caught:
            self.client.containers.run(IMAGE, ["sh", "-c", "echo bad >&2; exit 5"], remove=True)
        self.assertEqual(caught.exception.exit_status, 5)
        self.assertIn(b"bad", caught.exception.stderr)

    def test_run_with_many_options(self):
        container = self.run_detached(
            environment={"A": "1"},
            labels={"l": "v"},
            hostname="outpost",
            working_dir="/tmp",
            user="1000",
            mem_limit="64m",
            nano_cpus=500_000_000,
            pids_limit=50,
            cap_drop=["ALL"],
            tmpfs={"/scratch": "size=1m"},
            ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
            extra_hosts={"db": "10.0.0.9"},
            read_only=True,
            restart_policy={"Name": "on-failure", "MaximumRetryCount": 3},
            ports={"80/tcp": None},
            init=False,
        )
        host = container.attrs["HostConfig"]
        self.assertEqual((host["Memory"], host["NanoCpus"], host["PidsLimit"]), (64 << 20, 500_000_000, 50))
        self.assertEqual(host["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 3})
        code, out = container.exec_run(["sh", "-c", "echo $A; hostname; pwd; id -u; ulimit -n"])
        self.assertEqual((code, out.decode().split()), (0, ["1", "outpost", "/tmp", "1000", "100"]))
        container.reload()
        self.assertTrue(container.ports["80/tcp"][0]["HostPort"])

    def test_life(self):
        container = self.run_detached()
        self.assertEqual(container.status, "created")
        container.reload()
        self.assertEqual(container.status, "running")
        container.pause()
        container.reload()
        self.assertEqual(container.status, "paused")
        container.unpause()
        container.restart(timeout=0)
        container.rename(self.name("renamed"))
        container.reload()
        self.assertEqual(container.name, self.name("renamed"))
        container.stop(timeout=0)
        self.assertEqual(container.wait()["StatusCode"], 137)
        container.start()
        container.kill()
        container.wait()
        container.remove()
        with self.assertRaises(NotFound):
            self.client.containers.get(container.id)

    def test_list_and_filters(self):
        container = self.run_detached(labels={"py": self.tag})
        found = self.client.containers.list(filters={"label": f"py={self.tag}"})
        self.assertEqual([c.id for c in found], [container.id])
        self.assertEqual(self.client.containers.list(filters={"name": "no-such-name"}), [])
        self.assertIn(container.id, [c.id for c in self.client.containers.list(all=True, filters={"ancestor": IMAGE})])

    def test_logs(self):
        container = self.run_detached(["sh", "-c", "echo one; echo two >&2; echo three"])
        container.wait()
        self.assertEqual(container.logs(stdout=True, stderr=False), b"one\nthree\n")
        self.assertEqual(container.logs(stdout=False, stderr=True), b"two\n")
        self.assertEqual(len(container.logs(tail=1).splitlines()), 1)
        self.assertEqual(b"".join(container.logs(stream=True, follow=True, stderr=False)), b"one\nthree\n")

    def test_attach_stream(self):
        container = self.client.containers.create(IMAGE, ["sh", "-c", "for i in 1 2 3; do echo $i; done"])
        self.addCleanup(self.remove, container)
        stream = container.attach(stream=True, logs=False)
        container.start()
        self.assertEqual(b"".join(stream), b"1\n2\n3\n")

    def test_attach_socket_with_stdin(self):
        container = self.client.containers.create(IMAGE, "cat", stdin_open=True, tty=False)
        self.addCleanup(self.remove, container)
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        raw = getattr(socket, "_sock", socket)
        raw.sendall(b"ping\n")
        data = b""
        while b"ping" not in data:
            data += raw.recv(4096)
        self.assertEqual(data, b"\x01\x00\x00\x00\x00\x00\x00\x05ping\n")
        socket.close()

    def test_exec(self):
        container = self.run_detached()
        self.assertEqual(container.exec_run("echo hi"), (0, b"hi\n"))
        self.assertEqual(container.exec_run(["sh", "-c", "exit 3"]).exit_code, 3)
        code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        self.assertEqual((code, out, err), (0, b"o\n", b"e\n"))
        self.assertEqual(b"".join(container.exec_run("seq 3", stream=True).output), b"1\n2\n3\n")
        self.assertEqual(container.exec_run("id -u", user="1000").output, b"1000\n")
        self.assertIsNone(container.exec_run("sleep 1", detach=True).exit_code)

    def test_exec_socket(self):
        container = self.run_detached()
        api = self.client.api
        exec_id = api.exec_create(container.id, "cat", stdin=True)["Id"]
        socket = api.exec_start(exec_id, socket=True)
        raw = getattr(socket, "_sock", socket)
        raw.sendall(b"x\n")
        self.assertEqual(raw.recv(10)[:8], b"\x01\x00\x00\x00\x00\x00\x00\x02")
        socket.close()
        self.assertEqual(api.exec_inspect(exec_id)["ContainerID"], container.id)

    def test_archive_both_ways(self):
        container = self.run_detached()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            info = tarfile.TarInfo("file")
            info.size = 7
            tar.addfile(info, io.BytesIO(b"content"))
        self.assertTrue(container.put_archive("/tmp", packed.getvalue()))
        self.assertEqual(container.exec_run("cat /tmp/file").output, b"content")
        chunks, stat = container.get_archive("/tmp/file")
        self.assertEqual((stat["name"], stat["size"]), ("file", 7))
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
            self.assertEqual(tar.extractfile("file").read(), b"content")
        with self.assertRaises(NotFound):
            container.get_archive("/no/such/file")

    def test_top_stats_diff_update(self):
        container = self.run_detached()
        self.assertIn("sleep 300", [row[-1] for row in container.top()["Processes"]])
        stats = container.stats(stream=False)
        self.assertGreater(stats["memory_stats"]["usage"], 0)
        stream = container.stats(decode=True)
        self.assertEqual(next(stream)["name"], "/" + container.name)
        stream.close()
        container.exec_run("touch /made")
        self.assertIn({"Path": "/made", "Kind": 1}, container.diff())
        container.update(mem_limit="128m", memswap_limit="256m")
        container.reload()
        self.assertEqual(container.attrs["HostConfig"]["Memory"], 128 << 20)

    def test_commit_and_export(self):
        container = self.run_detached(["sh", "-c", "echo x >/made; sleep 300"])
        time.sleep(0.3)
        image = container.commit(self.name("image"), "1")
        self.addCleanup(self.client.images.remove, image.id, force=True)
        self.assertEqual(self.client.containers.run(image.id, "cat /made", remove=True), b"x\n")
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
            self.assertIn("made", [name.removeprefix("./") for name in tar.getnames()])

    def test_wait_with_condition(self):
        container = self.client.containers.create(IMAGE, ["sh", "-c", "sleep 0.3; exit 6"])
        self.addCleanup(self.remove, container)
        result = []
        waiter = threading.Thread(target=lambda: result.append(container.wait(condition="next-exit")))
        waiter.start()
        time.sleep(0.2)
        container.start()
        waiter.join(20)
        self.assertEqual(result[0]["StatusCode"], 6)

    def test_prune(self):
        container = self.client.containers.create(IMAGE, "true", labels={"prune": self.tag})
        pruned = self.client.containers.prune(filters={"label": [f"prune={self.tag}"]})
        self.assertEqual(pruned["ContainersDeleted"], [container.id])

    def test_errors(self):
        with self.assertRaises(ImageNotFound):
            self.client.containers.create("no-such-image:tag", "true")
        with self.assertRaises(NotFound):
            self.client.containers.get("no-such-container")
        container = self.run_detached()
        with self.assertRaises(APIError) as caught:
            self.client.containers.create(IMAGE, "true", name=container.name)
        self.assertEqual(caught.exception.status_code, 409)
        with self.assertRaises(APIError) as caught:
            self.run_detached("no-such-command", name=self.name("nf"))
        self.assertEqual(caught.exception.status_code, 400)
        self.remove(self.client.containers.get(self.name("nf")))

    def test_healthcheck(self):
        container = self.run_detached(healthcheck={"test": ["CMD", "true"], "interval": 200_000_000})
        deadline = time.time() + 10
        while container.attrs["State"].get("Health", {}).get("Status") != "healthy":
            self.assertLess(time.time(), deadline)
            time.sleep(0.1)
            container.reload()

    def test_resize(self):
        container = self.run_detached("sh", tty=True, stdin_open=True)
        container.resize(33, 99)
        self.assertEqual(container.exec_run(["sh", "-c", "stty size </proc/1/fd/0"]).output.split(), [b"33", b"99"])


class Images(Base):
    def test_get_list_tag_remove(self):
        image = self.client.images.get(IMAGE)
        self.assertIn(image.id, [i.id for i in self.client.images.list()])
        self.assertTrue(image.tag(self.name("tag"), "v1"))
        self.assertIn(f"{self.name('tag')}:v1", self.client.images.get(image.id).tags)
        self.client.images.remove(f"{self.name('tag')}:v1")
        with self.assertRaises(ImageNotFound):
            self.client.images.get(f"{self.name('tag')}:v1")

    def test_save_and_load(self):
        image = self.client.images.get(IMAGE)
        data = b"".join(image.save(named=True))
        loaded = self.client.images.load(data)
        self.assertEqual(loaded[0].id, image.id)

    def test_history_and_import(self):
        self.assertTrue(self.client.images.get(IMAGE).history())
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("empty"))
        self.client.api.import_image_from_data(packed.getvalue(), repository=self.name("import"), tag="1")
        self.client.images.remove(f"{self.name('import')}:1")

    def test_search_filters(self):
        self.assertTrue(self.client.images.list(filters={"reference": "busy*"}))
        self.assertEqual(self.client.images.list(name="nothing-like-this"), [])


class Volumes(Base):
    def test_life(self):
        volume = self.client.volumes.create(self.name("v"), labels={"a": "b"})
        self.client.containers.run(IMAGE, "touch /d/f", remove=True, volumes={volume.name: {"bind": "/d", "mode": "rw"}})
        out = self.client.containers.run(
            IMAGE, "ls /d", remove=True, mounts=[Mount("/d", volume.name, type="volume", read_only=True)]
        )
        self.assertEqual(out, b"f\n")
        self.assertIn(volume.name, [v.name for v in self.client.volumes.list(filters={"label": "a=b"})])
        volume.remove()
        with self.assertRaises(NotFound):
            self.client.volumes.get(volume.name)


class Networks(Base):
    def test_list_and_inspect(self):
        names = [n.name for n in self.client.networks.list()]
        for name in ("bridge", "host", "none"):
            self.assertIn(name, names)
        container = self.run_detached()
        container.reload()
        bridge = self.client.networks.list(names=["bridge"])[0]
        bridge.reload()
        self.assertIn(container.id, bridge.attrs["Containers"])


class LowLevel(Base):
    def test_old_version(self):
        client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version="1.30")
        self.addCleanup(client.close)
        self.assertEqual(client.containers.run(IMAGE, "echo old", remove=True), b"old\n")

    def test_create_with_raw_config(self):
        api = self.client.api
        created = api.create_container(IMAGE, ["true"], host_config=api.create_host_config(network_mode="none"))
        self.assertEqual(created.get("Warnings") or [], [])
        api.start(created["Id"])
        self.assertEqual(api.wait(created["Id"])["StatusCode"], 0)
        api.remove_container(created["Id"])


if __name__ == "__main__":
    unittest.main()
