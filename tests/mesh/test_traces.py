"""One trace of a call through a waypoint: spans of the node proxies' tunnels, and of the request."""

from __future__ import annotations

import json
import select
import socket
from functools import partial
from ipaddress import IPv4Address

import pytest

from tests.mesh.lab import TCP_FAMILIES, Mesh, wait_until
from tests.mesh.test_waypoint import GATEWAY, SERVER, SHOP, answers, head_of, service, vip

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

COLLECTOR = """apiVersion: v1
kind: Pod
metadata: {name: collector, namespace: shop, labels: {app: collector, istio.io/dataplane-mode: none}}
spec:
  nodeName: node-2
  containers: [{name: main, command: [sleep, infinity]}]
---
"""
MANIFESTS = SHOP + GATEWAY + SERVER + COLLECTOR + service("web", "{name: http, port: 80, targetPort: 8081}")
ENVIRONMENT = {
    "ZTUNNEL_TRACING_ENDPOINT": "http://10.244.2.3:4318/v1/traces",
    "ZTUNNEL_TRACING_SAMPLING": "100",
}


class Collector:
    """What it has been sent."""

    def __init__(self, mesh: Mesh) -> None:
        self._listener = mesh.listen("shop/collector", port=4318)
        self._open: dict[socket.socket, bytearray] = {}
        self.spans: list[dict] = []

    def look(self) -> None:
        """Take what has come."""
        for sock in select.select([self._listener.sock, *self._open], [], [], 0.1)[0]:
            if sock is self._listener.sock:
                self._open[self._listener.accept()] = bytearray()
            elif part := sock.recv(1 << 16):
                self._open[sock] += part
                self._read(sock)
            else:
                del self._open[sock]

    def _read(self, sock: socket.socket) -> None:
        head, _, body = bytes(self._open[sock]).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0] or 1 << 30)
        if len(body) < length:
            return
        self._open[sock].clear()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        for whose in json.loads(body)["resourceSpans"]:
            who = {each["key"]: each["value"]["stringValue"] for each in whose["resource"]["attributes"]}
            self.spans += [{**span, "who": who} for scope in whose["scopeSpans"] for span in scope["spans"]]


@pytest.mark.parametrize("family", TCP_FAMILIES)
def test_a_call_is_one_trace_from_node_to_node(mesh: Mesh, family) -> None:
    wait_until(partial(answers, mesh, IPv4Address), "the waypoint is known")
    assert mesh.address("shop/collector") in ENVIRONMENT["ZTUNNEL_TRACING_ENDPOINT"]
    collector = Collector(mesh)
    listener = mesh.listen("shop/server", port=8081)
    client = mesh.connect("shop/caller", vip(mesh, "web", family), 80)
    client.sendall(b"GET /traced HTTP/1.1\r\nHost: web\r\n\r\n")
    there = listener.accept()
    head = head_of(there)
    there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert b" 200 " in head_of(client)
    client.close()
    there.close()
    told = head.partition(b"traceparent: 00-")[2][:32].decode()

    def found() -> list[dict] | None:
        collector.look()
        spans = [span for span in collector.spans if span["traceId"] == told]
        return spans if len(spans) >= 3 else None

    spans = wait_until(found, "spans of three proxies")
    by_id = {span["spanId"]: span for span in spans}
    (request,) = [span for span in spans if span["name"] == "web.shop.svc.cluster.local:80/*"]
    out = by_id[request["parentSpanId"]]
    assert out["who"]["k8s.node.name"] == "node-1"
    assert (out["kind"], out.get("parentSpanId")) == (3, None)
    (into,) = [span for span in spans if span.get("parentSpanId") == request["spanId"]]
    assert into["who"]["k8s.node.name"] == "node-2"
    assert into["kind"] == 2
    said = {each["key"]: next(iter(each["value"].values())) for each in into["attributes"]}
    assert said["istio.destination_workload"] == "server"
    assert int(said["bytes_recv"]) > 0
