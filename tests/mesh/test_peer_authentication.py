"""PeerAuthentication towards those outside of the mesh: who may come in plaintext, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("shop/other", "node-2")
    + lab.pod("out/near", "node-2")
    + lab.pod("out/far", "node-1")
)
Apply = Callable[[str], None]
PLAINTEXT = ("out/near", "out/far", "node-1", "node-2")
STRICT_POLICY = "istio-system/istio_converted_static_strict"


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
@pytest.mark.parametrize("where", ["out/near", "out/far"])
def test_without_one_plaintext_is_taken_shown_and_counted_as_plaintext(
    mesh: Mesh, where: str, family: Family
) -> None:
    listener = mesh.listen("shop/called")
    client, server = mesh.join(where, listener, mesh.address("shop/called", family))
    own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert endpoint_of(server.getpeername()).ip == own.ip
    client.sendall(b"hello world")
    assert read_exactly(server, 11) == b"hello world"
    server.sendall(b"bye")
    assert read_exactly(client, 3) == b"bye"
    client.close()
    server.close()
    line = mesh.line("node-2", src_addr=own)
    assert (line["direction"], line["bytes_sent"], line["bytes_recv"]) == ("inbound", "3", "11")
    assert (line["dst.addr"], line["dst.workload"]) == (str(target), "called")
    assert (line["src.workload"], line["src.namespace"]) == (where[4:], "out")
    assert not {"src.identity", "dst.identity", "dst.hbone_addr", "error"} & line.keys()
    mesh.expect_flow(
        "node-2",
        11,
        3,
        reporter="destination",
        source_workload=where[4:],
        source_principal="unknown",
        connection_security_policy="unknown",
    )


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_strict_refuses_plaintext_and_nothing_of_the_mesh(mesh: Mesh, applied: Apply, family: Family) -> None:
    applied(lab.peer_authentication("shop/default", "STRICT"))
    target = mesh.address("shop/called", family)
    for where in PLAINTEXT:
        assert mesh.call(where, target, 8080).refused, where
    assert mesh.call("shop/caller", target, 8080).answers()
    labels = {"reporter": "destination", "response_flags": "DENY", "source_principal": "unknown"}
    mesh.expect("node-2", 4, "istio_tcp_connections_failed_total", **labels)
    mesh.expect("node-2", 4, "ztunnel_policy_denials_total", policy=STRICT_POLICY)
    line = mesh.line("node-2", direction="inbound", src_workload="near")
    assert (
        line["error"] == f"connection closed due to policy rejection: explicitly denied by: {STRICT_POLICY}"
    )


@pytest.mark.parametrize(
    ("texts", "called", "other"),
    [
        ([("istio-system/default", "STRICT", "", "")], False, False),
        ([("istio-system/default", "STRICT", "", ""), ("shop/default", "PERMISSIVE", "", "")], True, True),
        ([("istio-system/default", "STRICT", "", ""), ("shop/default", "UNSET", "", "")], False, False),
        ([("shop/one", "STRICT", "app: called", "")], False, True),
        ([("shop/default", "STRICT", "", ""), ("shop/one", "PERMISSIVE", "app: called", "")], True, False),
        ([("shop/default", "STRICT", "", ""), ("shop/one", "DISABLE", "app: called", "")], True, False),
        ([("shop/one", "STRICT", "app: called", "8080: {mode: PERMISSIVE}")], True, True),
        ([("shop/one", "PERMISSIVE", "app: called", "8080: {mode: STRICT}")], False, True),
        ([("shop/one", "STRICT", "app: called", "8081: {mode: PERMISSIVE}")], False, True),
        ([("shop/one", "PERMISSIVE", "app: called", "8081: {mode: STRICT}")], True, True),
        ([("out/default", "STRICT", "", "")], True, True),
    ],
)
def test_scopes_modes_and_ports(
    mesh: Mesh, applied_first: Apply, texts: list[tuple[str, str, str, str]], called: bool, other: bool
) -> None:
    applied_first("".join(lab.peer_authentication(*each) for each in texts))
    assert mesh.call("out/near", mesh.address("shop/called"), 8080).answers() is called
    assert mesh.call("out/far", mesh.address("shop/other"), 8080).answers() is other
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()


def test_strict_ends_open_plaintext_and_spares_the_mesh(mesh: Mesh, applied: Apply) -> None:
    target = mesh.address("shop/called")
    plain, tunnelled = mesh.call("out/far", target, 8080), mesh.call("shop/caller", target, 8080)
    assert plain.answers()
    assert tunnelled.answers()
    applied(lab.peer_authentication("shop/default", "STRICT"))
    assert plain.refused
    assert tunnelled.answers()
    line = mesh.line("node-2", src_addr=plain.own)
    assert line["error"] == "connection closed due to policy change"


def test_a_pod_that_is_called_by_itself_needs_no_policy(mesh: Mesh, applied: Apply) -> None:
    applied(lab.peer_authentication("shop/default", "STRICT") + lab.policy("shop/nobody", "ALLOW", "[]"))
    for target in (
        "127.0.0.1",
        "::1",
        mesh.address("shop/called"),
        mesh.address("shop/called", lab.IPv6Address),
    ):
        assert mesh.call("shop/called", target, 8080).answers(), target


def test_the_kubelets_probes_pass_under_strict_and_other_processes_of_the_node_do_not(
    mesh: Mesh, applied: Apply
) -> None:
    applied(lab.peer_authentication("shop/default", "STRICT"))
    target = mesh.address("shop/called")
    script = f"import socket; s = socket.create_connection(('{target}', 8080), 3); s.send(b'?'); s.recv(1)"
    probed = mesh.laboratory.exec_node("node-2", ["python3", "-c", script])
    assert probed.returncode == 0, probed.stderr
    assert mesh.grown("node-2", "ztunnel_redirect_outcomes_total", outcome="admitted_node") >= 1
    assert not mesh.lines("node-2")
    assert mesh.call("node-2", target, 8080).refused
    assert "policy rejection" in mesh.line("node-2", direction="inbound")["error"]


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
