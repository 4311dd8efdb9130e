"""`sessionAffinity: ClientIP`: a client keeps its endpoint, whoever picks it, the kernel or the proxy."""

from __future__ import annotations

import re

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

KEEP = ", sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}"
MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/other", "node-1")
    + lab.pod("shop/near-1", "node-1", labels="set: near")
    + lab.pod("shop/near-2", "node-1", labels="set: near")
    + lab.pod("shop/near-3", "node-1", labels="set: near")
    + lab.pod("shop/far-1", "node-2", labels="set: far")
    + lab.pod("shop/far-2", "node-2", labels="set: far")
    + lab.pod("shop/far-3", "node-2", labels="set: far")
)
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec: {selector: {set: %s}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 8080}]%s}
---
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def who(mesh: Mesh, caller: str, address: object) -> str:
    """The pod that answers."""
    call = mesh.call(caller, address, 80)
    assert call.error is None
    call.sock.sendall(REQUEST)
    answer = lab.read_all(call.sock).decode()
    call.sock.close()
    named = re.search(r'"pod": ?"([^"]+)"', answer)
    assert named, answer
    return named[1]


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_client_keeps_its_endpoint_until_that_is_none_any_more(mesh: Mesh, where: str) -> None:
    mesh.apply(SERVICE % (where, where, KEEP))
    for address in mesh.laboratory.service(f"shop/{where}").addresses:
        answers = {who(mesh, "shop/caller", address) for _ in range(12)}
        assert len(answers) == 1
        [kept] = answers
        mesh.label("pod", f"shop/{kept}", {"set": "none"})
        after = {who(mesh, "shop/caller", address) for _ in range(8)}
        assert len(after) == 1
        assert after != answers
        mesh.label("pod", f"shop/{kept}", {"set": where})
        assert {who(mesh, "shop/caller", address) for _ in range(4)} == after, "it stays where it is by now"
    kept_by_kernel = mesh.grown("node-1", "ztunnel_redirect_outcomes_total", outcome="vip_kept")
    assert (kept_by_kernel > 0) == (where == "near"), "on one node the kernel picks"
    mesh.apply(SERVICE % (where, where, KEEP), delete=True)


@pytest.mark.parametrize("where", ["near", "far"])
def test_without_affinity_calls_are_spread(mesh: Mesh, where: str) -> None:
    mesh.apply(SERVICE % (where, where, ""))
    address = mesh.laboratory.service(f"shop/{where}").addresses[0]
    assert len({who(mesh, "shop/caller", address) for _ in range(30)}) > 1
    mesh.apply(SERVICE % (where, where, ""), delete=True)
