"""Two nodes, one control plane over the network: killed, restarted, changed meanwhile; nobody notices."""

from __future__ import annotations

import signal

import pytest

from tests.mesh import lab
from tests.mesh.lab import Load, Mesh, fetch, wait_until
from tests.mesh.test_pressure import process, resident_bytes
from ztunnel.demo.replace import start_proxy

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

NETWORK = True
ENVIRONMENT = {"SECRET_TTL": "30s"}
MANIFESTS = lab.SHOP + lab.pod("shop/called", "node-2") + lab.pod("out/plain", "node-1")
MOST_BYTES = 72 << 20
"""65 MiB when it has started; `ztunnel` of a checkout and a compiled one alike."""
PAIR = [("shop/caller", "shop/called")]
NOBODY = lab.policy("shop/nobody", "DENY", "[{to: [{operation: {ports: ['8080']}}]}]", "app: called")


def readiness(mesh: Mesh, node: str) -> tuple[int, str]:
    return fetch(mesh.laboratory.names.netns(mesh.laboratory.names.node(node)), 15021, "/healthz/ready", {})


def subscribers(mesh: Mesh) -> float:
    """By the control plane's own figures."""
    netns = mesh.laboratory.names.netns(mesh.laboratory.names.node("node-1"))
    return lab.parse_figures(fetch(netns, 15014, "/metrics", {})[1]).total("pilot_xds")


def says_so(mesh: Mesh, node: str) -> bool:
    """That the control plane is away."""
    return "\ncontrol plane: " in readiness(mesh, node)[1]


def come_back(mesh: Mesh) -> None:
    """The control plane, and the streams of the nodes: they try again within 15 s, as ztunnel does."""
    mesh.laboratory.start_control()
    for node in ("node-1", "node-2"):
        wait_until(lambda node=node: not says_so(mesh, node), "it is said no longer", 30)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_call_between_nodes_is_told_signed_and_counted(mesh: Mesh, family: lab.Family) -> None:
    call = mesh.call("shop/caller", mesh.address("shop/called", family), 8080)
    assert call.answers(b"over the network")
    lab.reset(call.sock)
    line = mesh.line("node-2", direction="inbound", src_workload="caller")
    assert line["src.identity"] == lab.account("shop/caller")
    mesh.expect("node-2", 1, "istio_tcp_connections_closed_total", connection_security_policy="mutual_tls")
    wait_until(lambda: subscribers(mesh) == 2, "both nodes are counted")
    assert mesh.grown("node-1", "ztunnel_certificates_failed_total") == 0


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_a_node_proxy_with_little_to_do_takes_little_memory(mesh: Mesh, node: str) -> None:
    assert resident_bytes(process(mesh, node)) < MOST_BYTES


def test_without_a_control_plane_the_mesh_goes_on_and_a_change_comes_with_the_next_one(mesh: Mesh) -> None:
    address = mesh.address("shop/called")
    with Load(mesh, PAIR) as load:
        mesh.laboratory.kill_control(signal.SIGKILL)
        for node in ("node-1", "node-2"):
            wait_until(lambda node=node: says_so(mesh, node), "it is said")
            status, body = readiness(mesh, node)
            assert status == 200
            assert body.startswith("ready\n")
        mesh.laboratory.apply(lab.policy("shop/other", "ALLOW", "[{}]"))
        come_back(mesh)
        mesh.settle()
    assert load.failed() == []
    assert load.answered > 10
    mesh.laboratory.kill_control(signal.SIGKILL)
    mesh.laboratory.apply(NOBODY)
    assert mesh.call("shop/caller", address, 8080).answers()
    come_back(mesh)
    mesh.settle()
    assert mesh.call("shop/caller", address, 8080).refused
    mesh.laboratory.apply(NOBODY, delete=True)
    mesh.settle()
    assert mesh.call("shop/caller", address, 8080).answers()
    assert "Traceback" not in (mesh.laboratory.names.control / "log").read_text()


def test_a_planned_restart_of_the_control_plane_and_rotation_fail_no_call(mesh: Mesh) -> None:
    with Load(mesh, PAIR) as load:
        mesh.laboratory.kill_control(signal.SIGTERM)
        come_back(mesh)
        for node in ("node-1", "node-2"):
            wait_until(
                lambda node=node: mesh.grown(node, "ztunnel_certificates_fetched_total") >= 1,
                f"certificates of {node} are renewed",
                40,
            )
    assert load.failed() == []
    log = (mesh.laboratory.names.control / "log").read_text()
    assert "draining" in log
    assert "Traceback" not in log


def test_a_proxy_that_starts_without_a_control_plane_waits_for_it(mesh: Mesh) -> None:
    mesh.laboratory.kill_control(signal.SIGKILL)
    mesh.laboratory.kill_node("node-1", signal.SIGKILL)
    names = mesh.laboratory.names
    mesh.laboratory._children.append(start_proxy(names, mesh.laboratory.node("node-1")))
    wait_until(lambda: readiness_or_none(mesh, "node-1") == 500, "it says that it is not ready")
    wait_until(lambda: "refused" in readiness(mesh, "node-1")[1], "and why")
    assert "waits for" in readiness(mesh, "node-1")[1]
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).refused
    mesh.laboratory.start_control()
    wait_until(lambda: readiness(mesh, "node-1")[0] == 200, "it is ready", 30)
    wait_until(
        lambda: mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers(), "calls succeed again"
    )


def readiness_or_none(mesh: Mesh, node: str) -> int | None:
    try:
        return readiness(mesh, node)[0]
    except lab.LaboratoryFailed:
        return None
