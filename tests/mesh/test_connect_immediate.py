"""ZTUNNEL_CONNECT=immediate: connect() returns at once, and what cannot be reached is told by a reset."""

from __future__ import annotations

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

ENVIRONMENT = {"ZTUNNEL_CONNECT": "immediate"}
MANIFESTS = (
    lab.NODES + lab.namespace("shop") + lab.pod("shop/caller", "node-1") + lab.pod("shop/far", "node-2")
)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_nobody_listens(mesh: Mesh, family: lab.Family) -> None:
    call = mesh.call("shop/caller", mesh.address("shop/far", family), 9)
    assert call.refused
    assert "error" in mesh.line("node-1", src_addr=call.own)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_somebody_listens(mesh: Mesh, family: lab.Family) -> None:
    assert mesh.call("shop/caller", mesh.address("shop/far", family), 8080).answers()
    assert mesh.grown("node-1", "ztunnel_redirect_outcomes_total", outcome="call_held") == 0
