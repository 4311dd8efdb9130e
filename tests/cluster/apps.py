"""Namespaces, servers and callers in a cluster, all of them of the product's own image: it has Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.cluster.cluster import Cluster, Object, families, is_ready, wait_until
from tests.cluster.inside import Insides

PORT = 8080
OPT_IN = "istio.io/dataplane-mode"

CALL = """
import http.client, json, sys
host, port, seconds, path = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
connection = http.client.HTTPConnection(host, port, timeout=seconds)
try:
    connection.request("GET", path)
    print(connection.getresponse().read().decode())
except OSError as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""

LOAD = """
import http.client, json, select, sys, time
host, port, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
seen, errors, slowest = 0, [], 0.0
print("started", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/who")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            errors.append([time.time(), f"status {answer.status}"])
    except (OSError, http.client.HTTPException) as error:
        errors.append([time.time(), f"{type(error).__name__}: {error}"])
    connection.close()
    seen += 1
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(max(0.0, every - (time.monotonic() - began)))
print(json.dumps({"seen": seen, "errors": errors[:20], "failed": len(errors), "slowest": slowest}))
"""

STEADY = """
import http.client, json, select, sys, threading, time
host, port, every, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
took, errors, threads = [], [], []
def call():
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", "/who")
        connection.getresponse().read()
    except OSError as error:
        errors.append([time.time(), f"{type(error).__name__}: {error}"])
    connection.close()
    took.append(time.monotonic() - began)
print("started", flush=True)
while not select.select([sys.stdin], [], [], every)[0]:
    threads.append(threading.Thread(target=call))
    threads[-1].start()
for each in threads:
    each.join()
print(json.dumps({"seen": len(took), "errors": errors[:20], "failed": len(errors), "slowest": max(took)}))
"""
"""A new connection every so often, whether those before have been answered or not."""

HOLD = """
import json, select, socket, sys, time
host, port = sys.argv[1], int(sys.argv[2])
sent = broken = 0
with socket.create_connection((host, port), timeout=5) as sock:
    print("started", flush=True)
    sock.settimeout(10)
    while not select.select([sys.stdin], [], [], 0)[0]:
        sock.sendall(b"x%07d" % sent)
        got = b""
        while len(got) < 8:
            part = sock.recv(8 - len(got))
            if not part:
                raise SystemExit(f"closed after {sent} messages")
            got += part
        assert got == b"x%07d" % sent, got
        sent += 1
        time.sleep(0.02)
print(json.dumps({"sent": sent}))
"""


@dataclass
class Apps:
    """One namespace."""

    cluster: Cluster
    namespace: str

    @cached_property
    def insides(self) -> Insides:
        return Insides(self.cluster, self.namespace)

    def server(self, name: str, node: str, labels: dict[str, str] | None = None, account: str = "") -> Object:
        """A pod that says who called it; not waited for."""
        repository, tag = self.cluster.image
        container = {
            "name": "server",
            "image": f"{repository}:{tag}",
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-m", "ztunnel.demo.echo", str(PORT)],
            "env": [
                {"name": "POD_NAME", "value": name},
                {"name": "POD_NAMESPACE", "value": self.namespace},
                {"name": "NODE_NAME", "value": node},
            ],
            "ports": [{"name": "http", "containerPort": PORT}],
            "readinessProbe": {
                "httpGet": {"path": "/", "port": PORT},
                "periodSeconds": 1,
                "failureThreshold": 2,
            },
            "livenessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 2, "failureThreshold": 3},
            "securityContext": {"runAsUser": 65532, "allowPrivilegeEscalation": False},
        }
        spec: Object = {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "automountServiceAccountToken": False,
        }
        if account:
            spec["serviceAccountName"] = account
        labels = {"app": name, "version": "v1", **(labels or {})}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": spec,
        }

    def service(self, name: str, app: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "selector": {"app": app},
                "ipFamilyPolicy": "PreferDualStack",
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }

    def account(self, name: str) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": self.namespace},
        }

    def start(self, *objects: Object) -> None:
        """Apply, and wait until every pod is ready."""
        self.cluster.apply(*objects)
        names = [each["metadata"]["name"] for each in objects if each["kind"] == "Pod"]
        wait_until(f"{names} ready", lambda: all(is_ready(self.pod(name)) for name in names), 90)

    def pod(self, name: str) -> Object:
        return self.cluster.get("pod", name, self.namespace)

    def addresses(self, name: str) -> list[str]:
        return families(self.pod(name))

    def service_addresses(self, name: str) -> list[str]:
        found: list[str] = self.cluster.get("service", name, self.namespace)["spec"]["clusterIPs"]
        return found

    def label(self, value: str | None) -> None:
        """Opt the namespace in or out."""
        self.cluster.patch("namespace", self.namespace, {"metadata": {"labels": {OPT_IN: value}}})

    def python(self, pod: str, script: str, *words: object, timeout: float = 60) -> str:
        """What a script printed that was run in a pod, by a process of its own."""
        return self.insides.run(pod, script, words, timeout)

    def call(
        self, pod: str, host: str, port: int = PORT, path: str = "/who", seconds: float = 5
    ) -> dict[str, Any]:
        """Call once: what the server says of it, or `error`."""
        found: dict[str, Any] = json.loads(
            self.python(pod, CALL, host, port, seconds, path, timeout=seconds + 60)
        )
        return found

    @contextmanager
    def running(self, pod: str, script: str, *words: object) -> Iterator[Running]:
        """A script in a pod, from when it has started until the end of the block."""
        argv = ["-n", self.namespace, "exec", "-i", pod, "--", "python3", "-c", script, *words]
        with self.cluster.popen(*argv) as process:
            try:
                assert process.stdout is not None
                first = process.stdout.readline()
                assert first == "started\n", (first, process.communicate(timeout=10))
                yield Running(process)
            finally:
                process.kill()


@dataclass
class Running:
    """A script that runs until it is told to end."""

    process: subprocess.Popen[str]

    def end(self, seconds: float = 30) -> dict[str, Any]:
        """What it has to say, within so long."""
        out, errors = self.process.communicate("end\n", timeout=seconds)
        assert out, errors
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


@contextmanager
def namespace(cluster: Cluster, name: str, labels: dict[str, str] | None = None) -> Iterator[Apps]:
    """Made, and removed at the end, which nobody waits for: its pods have a second to end, while the next
    test starts its own."""
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}
    cluster.apply(made)
    apps = Apps(cluster, name)
    try:
        yield apps
    finally:
        apps.insides.close()
        cluster.delete("namespace", name)
        cluster.leaving.append(name)
