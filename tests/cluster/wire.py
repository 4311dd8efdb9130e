"""What is on a node's wires: every packet of every interface there, the pods' own links among them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.cluster.apps import Apps, Running
from tests.cluster.cluster import Cluster, is_ready, wait_until

CAPTURE = """
import json, select, socket, sys
marker = sys.argv[1].encode()
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
ports, tls, readable, frames = {}, 0, 0, 0
print("started", flush=True)
while True:
    ready = select.select([sys.stdin, raw], [], [])[0]
    if raw in ready:
        frame = raw.recv(1 << 17)
        frames += 1
        readable += marker in frame
        kind = frame[12:14]
        if kind == b"\\x08\\x00" and frame[23] == 6:
            at = 14 + (frame[14] & 15) * 4
        elif kind == b"\\x86\\xdd" and frame[20] == 6:
            at = 54
        else:
            continue
        port = int.from_bytes(frame[at + 2:at + 4], "big")
        ports[port] = ports.get(port, 0) + 1
        payload = frame[at + (frame[at + 12] >> 4) * 4:]
        if port == 15008 and payload[:1] in (b"\\x16", b"\\x17") and payload[1:2] == b"\\x03":
            tls += 1
        continue
    if sys.stdin in ready:
        break
print(json.dumps({"ports": ports, "tls": tls, "readable": readable, "frames": frames}))
"""


@dataclass
class Seen:
    """
    Attributes:
        ports: packets by the TCP port that they were for.
        tls: packets to 15008 that begin with a TLS record.
        readable: packets in which the marker could be read.
    """

    ports: dict[int, int]
    tls: int
    readable: int
    frames: int


def observer(cluster: Cluster, apps: Apps, node: str) -> str:
    """A pod in the network namespace of the node; its name."""
    repository, tag = cluster.image
    name = f"observer-{node}"
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": apps.namespace, "labels": {"app": "observer"}},
            "spec": {
                "nodeName": node,
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "observer",
                        "image": f"{repository}:{tag}",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sleep", "infinity"],
                        "securityContext": {"capabilities": {"add": ["NET_RAW", "NET_ADMIN"]}},
                    }
                ],
            },
        }
    )
    wait_until(f"{name} ready", lambda: is_ready(apps.pod(name)), 60)
    return name


class Capture:
    """On one node, for a while."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def end(self) -> Seen:
        """What was seen until now."""
        said: dict[str, Any] = self._running.end()
        ports = {int(port): count for port, count in said["ports"].items()}
        return Seen(ports, said["tls"], said["readable"], said["frames"])


@contextmanager
def capture(apps: Apps, node: str, marker: str) -> Iterator[Capture]:
    """From when it hears the wire. `observer` has been there before."""
    with apps.running(f"observer-{node}", CAPTURE, marker) as running:
        yield Capture(running)


def as_text(seen: Seen) -> str:
    return json.dumps(seen.__dict__)
