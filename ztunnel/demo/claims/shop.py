"""A laboratory with the bundled application, and what every claim needs of it: callers, waiting, figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ztunnel.demo.claims.talk import Caller
from ztunnel.demo.cluster import Cluster
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.lookup import pod_named, service_named
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.samples import Samples, parse_samples
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import LiveSocket, connections
from ztunnel.model.address import Endpoint

NAMESPACE = "shop"
LABEL = "istio.io/dataplane-mode"
NEAR, FAR = "node-1", "node-2"
METRICS_PORT = 15020
PORT = 8080
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.02
_FIGURE_SECONDS = 2.0
_PAGE_SECONDS = 1.0
"""For so long at most a page of metrics is shown again (`telemetry/serve.py`)."""

Family = type[IPv4Address] | type[IPv6Address]


class Shop:
    """Where claims are measured. `with` ends the callers that it started."""

    def __init__(self, laboratory: Laboratory) -> None:
        """The laboratory is up, and stays the caller's."""
        self.laboratory = laboratory
        self._callers: dict[str, Caller] = {}

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self._callers.values():
            caller.end()
        self._callers.clear()

    @cached_property
    def cluster(self) -> Cluster:
        """What the laboratory was made of; what a claim adds for itself is not in it."""
        return self.laboratory.cluster()

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.cluster.nodes)

    def caller(self, pod: str) -> Caller:
        """The caller in a pod, started when it is first asked for."""
        if pod not in self._callers:
            self._callers[pod] = Caller(self.laboratory, pod)
        return self._callers[pod]

    def leave(self, pod: str) -> None:
        """End the caller in a pod, if there is one."""
        if caller := self._callers.pop(pod, None):
            caller.end()

    def pod(self, name: str, family: Family = IPv4Address) -> Endpoint:
        """Where a pod's echo server listens."""
        return Endpoint(pod_named(self.cluster, name).address(family), PORT)

    def vip(self, service: str, family: Family = IPv4Address) -> Endpoint:
        """Where a service is called."""
        found = service_named(self.cluster, f"{NAMESPACE}/{service}")
        return Endpoint(next(ip for ip in found.addresses if isinstance(ip, family)), found.ports[0].port)

    def network_of(self, pod: str) -> NetworkNamespace:
        """The open network namespace of a pod; the caller closes it."""
        names, found = self.laboratory.names, pod_named(self.cluster, pod)
        return NetworkNamespace.open(names.netns(names.pod(found.namespace, found.name)))

    def sockets(self, pod: str) -> list[LiveSocket]:
        """The TCP connections in a pod, by sock_diag."""
        with self.network_of(pod) as network:
            return connections(network)

    def until(self, what: str, holds: Callable[[], bool], seconds: float = _PATIENCE_SECONDS) -> float:
        """Wait until something holds; gives the seconds that it took.

        Raises:
            LaboratoryFailed: it did not, in `seconds`; the message says `what` was waited for.
        """
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > seconds:
                raise LaboratoryFailed(f"not within {seconds:.0f} s: {what}")
            time.sleep(_PAUSE_SECONDS)
        return time.monotonic() - begun

    def samples(self, node: str) -> Samples:
        """The metrics of a node's proxy."""
        return parse_samples(self.laboratory.node_get(node, "/metrics", METRICS_PORT))

    def baseline(self, node: str) -> Samples:
        """The metrics as of now, to compare later ones with: of no page that was kept from before, on which
        what was done last is missing."""
        time.sleep(_PAGE_SECONDS)
        return self.samples(node)

    def reaches(self, read: Callable[[], int], expected: int) -> int:
        """What a figure of the metrics shows once it is as expected, or two seconds later. What it is
        compared with is of the `baseline`."""
        deadline = time.monotonic() + _FIGURE_SECONDS
        while (shown := read()) != expected and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        return shown

    def dump(self, node: str) -> dict[str, Any]:
        """The configuration that a node's proxy has."""
        found: dict[str, Any] = json.loads(self.laboratory.node_get(node, "/config_dump"))
        return found

    def enrolled(self, node: str, namespace: str) -> int:
        """How many pods of a namespace a node's proxy has enrolled."""
        states = self.dump(node)["workloadState"].items()
        return sum(each["state"] == "Up" and f"/{namespace}/" in uid for uid, each in states)

    def set_mesh(self, mode: str) -> float:
        """Label the namespace of the shop `ambient` or `none`, and wait until every node has carried it out.

        Returns:
            The seconds that it took.
        """
        begun = time.monotonic()
        self.laboratory.label("namespace", NAMESPACE, {LABEL: mode})
        pods = [pod for pod in self.cluster.pods if pod.namespace == NAMESPACE]
        protocol = "HBONE" if mode == "ambient" else "TCP"

        def carried_out(node: str) -> bool:
            dump = self.dump(node)
            known = [each["protocol"] for each in dump["workloads"] if each["namespace"] == NAMESPACE]
            taken = sum(pod.node.name == node for pod in pods) if mode == "ambient" else 0
            return known == [protocol] * len(pods) and self.enrolled(node, NAMESPACE) == taken

        self.until(f"the nodes have the label {mode!r} in force", lambda: all(map(carried_out, self.nodes)))
        return time.monotonic() - begun
