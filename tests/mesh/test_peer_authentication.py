"""PeerAuthentication towards those outside of the mesh: who may come in plaintext, and how it is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Mesh, endpoint_of, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP
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
    assert line["error"] == (
        f"connection closed due to policy rejection: explicitly denied by: {STRICT_POLICY} "
        "(PeerAuthentication STRICT; no identity: the connection is plaintext)"
    )


# PeerAuthentications of one namespace, and whether plaintext reaches its pods `called` and `other`.
SCOPES = [
    ([("default", "STRICT", "", "")], False, False),
    ([("default", "UNSET", "", "")], True, True),
    ([("one", "STRICT", "app: called", "")], False, True),
    ([("default", "STRICT", "", ""), ("one", "PERMISSIVE", "app: called", "")], True, False),
    ([("default", "STRICT", "", ""), ("one", "DISABLE", "app: called", "")], True, False),
    ([("one", "STRICT", "app: called", "8080: {mode: PERMISSIVE}")], True, True),
    ([("one", "PERMISSIVE", "app: called", "8080: {mode: STRICT}")], False, True),
    ([("one", "STRICT", "app: called", "8081: {mode: PERMISSIVE}")], False, True),
    ([("one", "PERMISSIVE", "app: called", "8081: {mode: STRICT}")], True, True),
]


def reached(mesh: Mesh, space: str) -> tuple[bool, bool]:
    """Whether plaintext reaches `called` and `other` of a namespace; the mesh always does."""
    assert mesh.call("shop/caller", mesh.address(f"{space}/called"), 8080).answers()
    called, other = (
        mesh.call(where, mesh.address(f"{space}/{name}"), 8080).answers()
        for where, name in (("out/near", "called"), ("out/far", "other"))
    )
    return called, other


def test_modes_selectors_and_ports_of_a_namespace(mesh: Mesh, applied_first: Apply) -> None:
    """Each case in a namespace of its own."""
    text = ""
    for number, (texts, _, _) in enumerate(SCOPES):
        space = f"s{number}"
        text += lab.namespace(space) + "".join(
            lab.pod(f"{space}/{name}", "node-2") for name in ("called", "other")
        )
        text += "".join(lab.peer_authentication(f"{space}/{name}", *rest) for name, *rest in texts)
    applied_first(text)
    found = {number: reached(mesh, f"s{number}") for number in range(len(SCOPES))}
    assert found == {number: (called, other) for number, (_, called, other) in enumerate(SCOPES)}
    assert reached(mesh, "shop") == (True, True)


def test_the_root_namespaces_mode_is_inherited_and_overridden(mesh: Mesh, applied_first: Apply) -> None:
    text = lab.peer_authentication("istio-system/default", "STRICT")
    for space, mode in (("open", "PERMISSIVE"), ("inherits", "UNSET")):
        text += (
            lab.namespace(space) + lab.pod(f"{space}/called", "node-2") + lab.pod(f"{space}/other", "node-2")
        )
        text += lab.peer_authentication(f"{space}/default", mode)
    applied_first(text)
    found = {space: reached(mesh, space) for space in ("shop", "open", "inherits")}
    assert found == {"shop": (False, False), "open": (True, True), "inherits": (False, False)}


def test_strict_ends_open_plaintext_and_spares_the_mesh(mesh: Mesh, applied: Apply) -> None:
    target = mesh.address("shop/called")
    plain, tunnelled = mesh.call("out/far", target, 8080), mesh.call("shop/caller", target, 8080)
    assert plain.answers()
    assert tunnelled.answers()
    applied(lab.peer_authentication("shop/default", "STRICT"))
    assert plain.refused
    assert tunnelled.answers()
    line = mesh.line("node-2", src_addr=plain.own)
    assert line["error"].startswith("connection closed due to policy change: ")


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
    assert not [one for one in mesh.lines("node-2") if one["scope"] == "access"]
    assert mesh.call("node-2", target, 8080).refused
    assert "policy rejection" in mesh.line("node-2", direction="inbound")["error"]


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
