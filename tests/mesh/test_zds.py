"""A node whose pods Istio's CNI agent names and its rules redirect, beside one that redirects pods itself."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from tests.mesh import lab
from tests.mesh.cni import PROBE_SOURCES, REDIRECT, TPROXY, CniAgent
from tests.mesh.lab import Family, Mesh, account, endpoint_of, read_all, read_exactly, unique
from tests.zds.agent import add, delete, keep, snapshot
from tests.zds.query import query, read_answer
from ztunnel.demo import command
from ztunnel.demo.operate import Laboratory
from ztunnel.demo.run import processes
from ztunnel.kernel.capability import REDIRECTED
from ztunnel.zds.message import Named
from ztunnel.zds.question import Kind

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.NODES
    + lab.namespace("shop")
    + lab.namespace("out", ambient=False)
    + lab.pod("shop/caller", "node-1")
    + lab.pod("shop/near", "node-1")
    + lab.pod("shop/called", "node-2")
    + lab.pod("out/stranger", "node-2")
    + lab.service("shop/called", "called", 80, "http")
    + lab.service("shop/near", "near", 80, "http")
)
CALLER, CALLED, NEAR = (account(f"shop/{name}") for name in ("caller", "called", "near"))
OUT = {
    "source_workload": "caller",
    "destination_workload": "called",
    "source_principal": CALLER,
    "destination_principal": CALLED,
    "connection_security_policy": "mutual_tls",
}


IN = {
    "source_workload": "called",
    "destination_workload": "near",
    "source_principal": CALLED,
    "destination_principal": NEAR,
    "connection_security_policy": "mutual_tls",
}
UNTRACKED = """
add table inet istio-ambient-raw
add chain inet istio-ambient-raw untracked { type filter hook prerouting priority -301 ; }
add rule inet istio-ambient-raw untracked iifname != lo meta l4proto tcp notrack
"""
STRICT = lab.peer_authentication("shop/default", "STRICT")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mesh, CniAgent]]:
    """Node 1 by the agent, node 2 by our programs."""
    path = tmp_path_factory.mktemp("cni") / "ztunnel.sock"
    with pytest.MonkeyPatch.context() as patch, Laboratory(unique()) as laboratory:
        laboratory.up(MANIFESTS, start_nodes=False)
        mesh = Mesh(laboratory)
        agent = CniAgent(mesh, path, ["shop/caller", "shop/near"])
        agent.start()
        try:
            laboratory.start_node("node-2")
            patch.setenv("ZTUNNEL_PROGRAM", str(with_few_capabilities(path.with_name("ztunnel"))))
            patch.setenv("ZTUNNEL_POD_SOURCE", "zds")
            patch.setenv("INPOD_UDS", str(path))
            resolv = path.with_name("resolv.conf")
            servers = (mesh.address("out/stranger", family) for family in lab.TCP_FAMILIES)
            resolv.write_text("".join(f"nameserver {each}\n" for each in servers))
            patch.setenv("ZTUNNEL_RESOLV_CONF", str(resolv))
            laboratory.start_node("node-1")
            yield mesh, agent
        finally:
            agent.stop()


def with_few_capabilities(program: Path) -> Path:
    """The node proxy with what the chart gives it for such pods, and no more; /proc/sys can only be read, as
    in a container."""
    words = command.program(os.environ)
    wanted = ",".join(f"+{each.name.lower()}" for each in REDIRECTED)
    program.write_text(
        '#!/bin/sh\n[ -n "$INSIDE" ] || INSIDE=1 exec unshare --mount "$0" "$@"\n'
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 1\n"
        f'exec setpriv --bounding-set=-all,{wanted} {shlex.join(words)} "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def mesh(parts: tuple[Mesh, CniAgent]) -> Iterator[Mesh]:
    module_mesh, _ = parts
    module_mesh.begin()
    try:
        yield module_mesh
    finally:
        module_mesh.finish()


@pytest.fixture
def agent(parts: tuple[Mesh, CniAgent]) -> CniAgent:
    return parts[1]


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_call_goes_by_hbone_to_a_node_that_redirects_itself(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("shop/called")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/called", family))
    own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert endpoint_of(server.getpeername()).ip == own.ip
    client.sendall(b"hello world")
    assert read_exactly(server, 11) == b"hello world"
    server.sendall(b"hello world, and again")
    assert read_exactly(client, 22) == b"hello world, and again"
    client.close()
    assert server.recv(1) == b""
    server.close()
    out = outbound(mesh)
    inbound = mesh.line("node-2", dst_hbone_addr=target, direction="inbound")
    assert (out["bytes_sent"], out["bytes_recv"]) == ("11", "22")
    for line in (out, inbound):
        assert line["dst.addr"] == str(lab.Endpoint(target.ip, 15008))
        assert (line["src.identity"], line["dst.identity"]) == (CALLER, CALLED)
        assert "error" not in line
    mesh.expect_flow("node-1", 11, 22, reporter="source", **OUT)
    mesh.expect_flow("node-2", 11, 22, reporter="destination", **OUT)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_call_comes_by_hbone_and_the_application_sees_who_calls(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("shop/near")
    client, server = mesh.join("shop/called", listener, mesh.address("shop/near", family))
    own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert endpoint_of(server.getpeername()) == own
    assert endpoint_of(server.getsockname()) == target
    client.sendall(b"question")
    assert read_exactly(server, 8) == b"question"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.sendall(b"answer")
    server.close()
    assert read_all(client) == b"answer"
    client.close()
    out = mesh.line("node-2", src_addr=own, direction="outbound")
    inbound = mesh.line("node-1", dst_hbone_addr=target, direction="inbound")
    assert (inbound["bytes_sent"], inbound["bytes_recv"]) == ("6", "8")
    assert inbound["src.addr"].rpartition(":")[0] == out["src.addr"].rpartition(":")[0]
    for line in (out, inbound):
        assert (line["src.identity"], line["dst.identity"]) == (CALLED, NEAR)
        assert line["dst.addr"] == str(lab.Endpoint(target.ip, 15008))
        assert "error" not in line
    mesh.expect_flow("node-1", 8, 6, reporter="destination", **IN)
    mesh.expect_flow("node-2", 8, 6, reporter="source", **IN)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_pods_of_one_node_talk_by_hbone_and_no_call_is_direct(mesh: Mesh, family: Family) -> None:
    call = mesh.call("shop/caller", mesh.address("shop/near", family), 8080)
    assert call.answers(b"next door")
    call.sock.close()
    for direction in ("outbound", "inbound"):
        line = mesh.line(
            "node-1", direction=direction, dst_hbone_addr=f"{endpoint(mesh, 'shop/near', family)}"
        )
        assert (line["src.identity"], line["dst.identity"]) == (CALLER, NEAR)
    for reporter in ("source", "destination"):
        labels = {"source_workload": "caller", "destination_workload": "near"}
        mesh.expect_flow("node-1", 9, 9, reporter=reporter, connection_security_policy="mutual_tls", **labels)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def vip_of(mesh: Mesh, name: str, family: Family) -> lab.IPAddress:
    return next(ip for ip in mesh.laboratory.service(name).addresses if isinstance(ip, family))


def outbound(mesh: Mesh) -> lab.Line:
    """The one line of a call from the pod that the agent redirects. Its client's port is not always the
    client's own: NAT gives it another one where that is taken towards the proxy."""
    return mesh.line("node-1", direction="outbound")


def endpoint(mesh: Mesh, pod: str, family: Family, port: int = 8080) -> lab.Endpoint:
    return lab.Endpoint(ip_address(mesh.address(pod, family)), port)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
@pytest.mark.parametrize(("name", "who"), [("shop/called", "called"), ("shop/near", "near")])
def test_a_service_is_called_by_its_address(mesh: Mesh, family: Family, name: str, who: str) -> None:
    vip = vip_of(mesh, name, family)
    call = mesh.call("shop/caller", vip, 80)
    assert call.answers(b"by name")
    call.sock.close()
    line = outbound(mesh)
    assert line["dst.service"] == f"{who}.shop.svc.cluster.local"
    assert line["dst.identity"] == account(f"shop/{who}")
    mesh.expect_flow(
        "node-1", 7, 7, reporter="source", destination_service_name=who, source_workload="caller",
        connection_security_policy="mutual_tls",
    )  # fmt: skip


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_pod_calls_itself_through_its_service_and_by_its_own_address(mesh: Mesh, family: Family) -> None:
    by_service = mesh.call("shop/near", vip_of(mesh, "shop/near", family), 80)
    assert by_service.answers(b"myself")
    by_service.sock.close()
    assert outbound(mesh)["dst.identity"] == NEAR
    assert mesh.call("shop/near", mesh.address("shop/near", family), 8080).answers()
    loopback = "127.0.0.1" if family is IPv4Address else "::1"
    assert mesh.call("shop/near", loopback, 8080).answers()


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_plaintext_comes_in_and_shows_who_calls(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("shop/near")
    client, server = mesh.join("out/stranger", listener, mesh.address("shop/near", family))
    own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
    assert endpoint_of(server.getpeername()).ip == own.ip
    assert endpoint_of(server.getsockname()) == target
    client.sendall(b"plain")
    assert read_exactly(server, 5) == b"plain"
    server.sendall(b"as ever")
    assert read_exactly(client, 7) == b"as ever"
    client.close()
    server.close()
    line = mesh.line("node-1", src_addr=own, direction="inbound")
    assert line["dst.addr"] == str(target)
    assert line.keys().isdisjoint({"src.identity", "dst.identity", "error"})
    mesh.expect_flow(
        "node-1", 5, 7, reporter="destination", source_workload="stranger", destination_workload="near",
        connection_security_policy="unknown",
    )  # fmt: skip


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_policy_judges_plaintext_and_tunnels(
    mesh: Mesh, applied: Callable[[str], None], family: Family
) -> None:
    listener = mesh.listen("shop/near", port=8081)
    open_one, server = mesh.join("out/stranger", listener, mesh.address("shop/near", family))
    applied(lab.policy("shop/closed", "DENY", "[{to: [{operation: {ports: ['8081']}}]}]", "app: near"))
    assert lab.is_refused(open_one)  # that is open, too
    assert lab.is_refused(server)
    refused = mesh.call("out/stranger", mesh.address("shop/near", family), 8081)
    assert refused.refused
    line = mesh.line("node-1", src_addr=refused.own, direction="inbound")
    assert "explicitly denied by: shop/closed" in line["error"]
    tunnelled = mesh.call("shop/called", mesh.address("shop/near", family), 8081)
    assert tunnelled.refused
    inbound = mesh.line("node-1", direction="inbound", src_identity=CALLED)
    assert "explicitly denied by: shop/closed" in inbound["error"]
    assert mesh.call("out/stranger", mesh.address("shop/near", family), 8080).answers()
    mesh.expect(
        "node-1", 3, "istio_tcp_connections_failed_total", reporter="destination", response_flags="DENY"
    )


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_strict_refuses_plaintext_and_no_probe(
    mesh: Mesh, applied: Callable[[str], None], family: Family
) -> None:
    applied(STRICT)
    address = mesh.address("shop/near", family)
    assert mesh.call("out/stranger", address, 8080).refused
    assert mesh.call("shop/called", address, 8080).answers()
    assert mesh.call("node-1", address, 8080).refused
    with probing(mesh, family) as source:
        probe = mesh.socket("node-1", socket.AF_INET if family is IPv4Address else socket.AF_INET6)
        probe.bind((source, 0))
        probe.connect((address, 8080))
        probe.sendall(b"healthy?")
        assert read_exactly(probe, 8) == b"healthy?"
    assert not mesh.find_lines("node-1", src_addr=endpoint_of(probe.getsockname()))


@contextmanager
def probing(mesh: Mesh, family: Family) -> Iterator[str]:
    """The node has the address that Istio makes the kubelet's connections come from."""
    source = PROBE_SOURCES[family is not IPv4Address]
    run = ["nsenter", f"--net={mesh.netns('node-1')}", "ip", "addr"]
    usable_at_once = [] if family is IPv4Address else ["nodad"]
    subprocess.run([*run, "add", source, "dev", "lo", *usable_at_once], check=True)
    try:
        yield source
    finally:
        subprocess.run([*run, "del", source, "dev", "lo"], check=True)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_who_is_not_in_the_mesh_is_called_in_plaintext(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("out/stranger")
    client, server = mesh.join("shop/caller", listener, mesh.address("out/stranger", family))
    own = endpoint_of(client.getsockname())
    assert endpoint_of(server.getpeername()).ip == own.ip
    client.sendall(b"out")
    assert read_exactly(server, 3) == b"out"
    client.close()
    server.close()
    line = outbound(mesh)
    assert line["dst.workload"] == "stranger"
    assert "src.identity" not in line
    mesh.expect_flow(
        "node-1", 3, 0, reporter="source", destination_workload="stranger",
        connection_security_policy="unknown",
    )  # fmt: skip


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_who_is_not_there_is_told_by_a_reset(mesh: Mesh, family: Family) -> None:
    call = mesh.call("shop/caller", mesh.address("shop/called", family), 9)
    assert call.refused
    line = outbound(mesh)
    assert line["error"]
    mesh.expect("node-1", 1, "istio_tcp_connections_failed_total", reporter="source")


@pytest.mark.parametrize("port", [15001, 15006])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_our_own_listeners_are_nobodys_destination(mesh: Mesh, address: str, port: int) -> None:
    call = mesh.call("shop/caller", address, port)
    assert call.refused
    refused = mesh.line("node-1", message="connection failed")
    assert refused["error"] == "attempted recursive call to ourselves"


@pytest.mark.parametrize("port", [15001, 15006])
@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_nobody_reaches_a_pods_way_out(mesh: Mesh, family: Family, port: int) -> None:
    assert mesh.call("out/stranger", mesh.address("shop/near", family), port).refused
    assert (
        mesh.line("node-1", message="connection failed")["error"] == "attempted recursive call to ourselves"
    )


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_two_calls_from_one_port_are_two_calls(mesh: Mesh, family: Family) -> None:
    """Redirected, both have the same ends (istio/istio#38982)."""
    calls = []
    for where in ("shop/called", "out/stranger", "shop/near"):
        address = mesh.address(where, family)
        sock = mesh.socket("shop/caller", family_of(address))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((mesh.address("shop/caller", family), 41234))
        sock.connect((address, 8080))
        calls.append(sock)
    for number, sock in enumerate(calls):
        sock.sendall(b"call %d" % number)
    for number, sock in enumerate(calls):
        assert read_exactly(sock, 6) == b"call %d" % number
        sock.close()
    for who in ("called", "stranger", "near"):
        mesh.line("node-1", direction="outbound", dst_workload=who)


def test_many_bytes_come_whole_both_ways(mesh: Mesh) -> None:
    sent = random.Random(7).randbytes(20_000_000)
    for source, to in (
        ("shop/caller", "shop/called"),
        ("shop/called", "shop/near"),
        ("out/stranger", "shop/near"),
    ):
        listener = mesh.listen(to)
        client, server = mesh.join(source, listener, mesh.address(to))
        with ThreadPoolExecutor(4) as threads:
            got = [threads.submit(read_all, end) for end in (server, client)]
            for end in (client, server):
                threads.submit(send_and_close, end, sent)
            for each in got:
                assert hashlib.sha256(each.result()).digest() == hashlib.sha256(sent).digest()


def send_and_close(end: socket.socket, sent: bytes) -> None:
    end.sendall(sent)
    end.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("address", ["10.96.0.10", "fd96::a"])
@pytest.mark.parametrize("server", lab.TCP_FAMILIES)
def test_names_are_relayed_to_who_knows_them(mesh: Mesh, address: str, server: Family) -> None:
    """The name server is the proxy's; the second one where the first is not there."""
    at = mesh.address("out/stranger", server)
    knows = mesh.socket("out/stranger", family_of(at), socket.SOCK_DGRAM)
    knows.bind((at, 53))
    asks = mesh.socket("shop/caller", family_of(address), socket.SOCK_DGRAM)
    asks.connect((address, 53))
    asks.send(b"who is it?")
    query, proxy = knows.recvfrom(1000)
    assert (query, proxy[0]) == (b"who is it?", mesh.address("shop/caller", server))
    knows.sendto(b"nobody", proxy)
    assert asks.recv(1000) == b"nobody"
    mesh.expect("node-1", 1, "ztunnel_dns_relayed_total")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_names_of_the_mesh_are_answered_and_lead_to_it(mesh: Mesh, family: Family) -> None:
    asks = mesh.socket("shop/caller", socket.AF_INET, socket.SOCK_DGRAM)
    asks.connect(("10.96.0.10", 53))
    asks.send(query("called.shop.svc.cluster.local", Kind.A if family is IPv4Address else Kind.AAAA))
    [address] = read_answer(asks.recv(1000))[3]
    assert address == vip_of(mesh, "shop/called", family)
    assert mesh.call("shop/caller", address, 80).answers()
    mesh.expect("node-1", 1, "ztunnel_dns_answered_total")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_names_are_asked_by_tcp_as_any_other_call(mesh: Mesh, family: Family) -> None:
    listener = mesh.listen("out/stranger", port=53)
    client, server = mesh.join("shop/caller", listener, mesh.address("out/stranger", family))
    client.sendall(b"who is it?")
    assert read_exactly(server, 10) == b"who is it?"
    client.close()
    server.close()
    line = outbound(mesh)
    assert line["dst.addr"] == str(endpoint(mesh, "out/stranger", family, 53))


def test_the_proxy_has_no_capability_beyond_what_it_asks_for(mesh: Mesh) -> None:
    [pid] = processes(mesh.laboratory.names.proxy_cgroup("node-1"))
    status = Path(f"/proc/{pid}/status").read_text()
    [held] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")]
    assert held == sum(1 << each for each in REDIRECTED)


def test_the_dump_shows_the_pods_that_the_agent_has_named(mesh: Mesh) -> None:
    shown = json.loads(mesh.laboratory.node_get("node-1", "/config_dump"))
    states = {each["info"]["name"]: each["state"] for each in shown["workloadState"].values()}
    assert states == {"caller": "Up", "near": "Up"}
    assert {each["identity"] for each in shown["certificates"]} == {CALLER, NEAR}
    assert shown["config"]["pod_source"] == "zds"
    assert mesh.figures("node-1").total("workload_manager_active_proxy_count") == 2
    assert mesh.figures("node-1").total("ztunnel_zds_connected") == 1


# -- the agent --


def test_a_pod_that_is_taken_away_is_plain_from_then_on_and_may_come_back(
    mesh: Mesh, agent: CniAgent
) -> None:
    listener, near = mesh.listen("shop/called"), mesh.listen("shop/near")
    out, out_server = mesh.join("shop/near", listener, mesh.address("shop/called"))
    into, _ = mesh.join("shop/called", near, mesh.address("shop/near"))
    agent.remove("shop/near")
    # The way between applications and us has gone with the rules.
    assert lab.is_refused(into)
    assert lab.is_refused(out_server)
    for direction, end in (("outbound", out), ("inbound", into)):
        source = {"outbound": "near", "inbound": "called"}[direction]
        line = mesh.line("node-1", direction=direction, src_workload=source)
        assert line["src.addr"].startswith(f"{endpoint_of(end.getsockname()).ip}:")
        assert line["error"] == "the pod was taken out of the mesh"
    plain, server = mesh.join("out/stranger", near, mesh.address("shop/near"))
    assert endpoint_of(server.getpeername()) == endpoint_of(plain.getsockname())
    assert mesh.call("shop/near", mesh.address("out/stranger"), 8080).answers()
    assert agent.add("shop/near") == ""
    call = mesh.call("shop/called", mesh.address("shop/near"), 8080)
    assert call.answers()
    call.sock.close()
    again = endpoint(mesh, "shop/near", IPv4Address)
    assert mesh.line("node-1", direction="inbound", dst_identity=NEAR, dst_hbone_addr=again)


def test_without_its_agent_a_node_goes_on_and_a_new_one_finds_all_as_it_was(
    mesh: Mesh, agent: CniAgent
) -> None:
    listener = mesh.listen("shop/called")
    client, server = mesh.join("shop/caller", listener, mesh.address("shop/called"))
    agent.stop()
    lab.wait_until(lambda: mesh.figures("node-1").total("ztunnel_zds_connected") == 0, "disconnected")
    ready = mesh.laboratory.node_get("node-1", "/healthz/ready", 15021)
    assert ready.startswith("ready\nagent: not connected: ")
    assert mesh.call("shop/caller", mesh.address("shop/near"), 8080).answers()
    started = mesh.figures("node-1").total("workload_manager_proxies_started_total")
    agent.start()
    agent.connected()
    client.sendall(b"as before")
    assert read_exactly(server, 9) == b"as before"
    assert mesh.figures("node-1").total("workload_manager_proxies_started_total") == started
    lab.wait_until(
        lambda: mesh.laboratory.node_get("node-1", "/healthz/ready", 15021) == "ready\n", "connected"
    )


def test_a_snapshot_keeps_whom_it_names_without_a_namespace_and_drops_whom_it_does_not(
    mesh: Mesh, agent: CniAgent
) -> None:
    agent.stop()
    agent.kept.add("shop/caller")
    agent.forget("shop/near")
    lab.wait_until(lambda: mesh.figures("node-1").total("ztunnel_zds_connected") == 0, "disconnected")
    agent.start()
    agent.connected()
    assert agent.answers[-2:] == ["", ""]
    assert mesh.call("shop/caller", mesh.address("shop/called"), 8080).answers()
    lab.wait_until(
        lambda: mesh.figures("node-1").total("workload_manager_active_proxy_count") == 1, "dropped"
    )
    agent.kept.clear()
    assert agent.add("shop/near") == ""
    assert mesh.call("shop/called", mesh.address("shop/near"), 8080).answers()


def test_what_makes_no_sense_costs_only_itself(mesh: Mesh, agent: CniAgent) -> None:
    proxy = agent.proxies[-1]
    with open(mesh.netns("node-1"), "rb") as node, open("/dev/null", "rb") as file:
        # The fewest: a look at metrics may have one of its own for a moment.
        before = min(descriptors(mesh, "node-1") for _ in looks(0.3))
        for message, fds, reason in (
            (b"\xff\xff", [], "no WorkloadRequest"),
            (b"x" * 5000, [], "longer than"),
            (add("x", Named("x", "shop", "x")), [], "this one with 0"),
            (add("x", Named("x", "shop", "x")), [file.fileno()], "no network namespace"),
            (add("x", Named("x", "shop", "x")), [node.fileno()], "in the node proxy's own network namespace"),
            (add("x", Named("x", "shop", "x")), [node.fileno()] * 40, "too many descriptors"),
            (delete("x"), [node.fileno()], "needs none"),
            (snapshot(), [], "a second time"),
            (keep("uid-of-shop/near"), [], "after the snapshot"),
        ):
            assert reason in proxy.send(message, *fds)
        lab.wait_until(lambda: descriptors(mesh, "node-1") <= before, "no descriptor of these is left")
    assert "is that of shop/near" in proxy.name("y", Named("y", "shop", "y"), mesh.netns("shop/near"))
    lab.wait_until(lambda: descriptors(mesh, "node-1") <= before, "nor of this one")
    assert mesh.call("shop/called", mesh.address("shop/near"), 8080).answers()
    mesh.expect("node-1", 10, "ztunnel_zds_refused_total")


def active(mesh: Mesh, count: int) -> None:
    """Wait for so many pods that are served."""
    name = "workload_manager_active_proxy_count"
    lab.wait_until(lambda: mesh.figures("node-1").total(name) == count, f"{count} pods are served")


def looks(seconds: float) -> Iterator[None]:
    """Many moments, over so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.01)


def descriptors(mesh: Mesh, node: str) -> int:
    [pid] = processes(mesh.laboratory.names.proxy_cgroup(node))
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_pods_that_come_and_go_leave_no_descriptor(mesh: Mesh, agent: CniAgent) -> None:
    proxy = agent.proxies[-1]
    before = descriptors(mesh, "node-1")
    for _ in range(8):
        with netns() as path:
            for uid in ("p1", "p1", "p2"):  # the same one again, and in a namespace that is another's
                proxy.name(uid, Named("unknown", "shop", "unknown"), path)
            proxy.send(delete("p1"))
            proxy.send(delete("p2"))
    lab.wait_until(lambda: descriptors(mesh, "node-1") <= before + 1, "closed but for a page's connection")
    assert "unknown" not in mesh.laboratory.node_get("node-1", "/config_dump")


@contextmanager
def netns(*addresses: str) -> Iterator[str]:
    name = unique()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        run = ["ip", "-n", name]
        subprocess.run([*run, "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"], check=True)
        for address in addresses or ("10.255.0.1/32", "fd00:ffff::1/128"):
            subprocess.run(
                [*run, "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else [])],
                check=True,
            )
        subprocess.run([*run, "link", "set", "eth0", "up"], check=True)
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_taken_port_is_told_to_the_agent_and_tried_again(mesh: Mesh, agent: CniAgent) -> None:
    agent.remove("shop/near")
    holder = mesh.listen("shop/near", port=15008)
    answer = agent.add("shop/near")
    assert answer == "pod shop/near: port 15008 is taken by a process of the pod; the mesh needs it"
    assert mesh.call("out/stranger", mesh.address("shop/near"), 8080).refused
    lab.wait_until(
        lambda: "port 15008 is taken" in mesh.laboratory.node_get("node-1", "/healthz/ready", 15021), "shown"
    )
    assert mesh.figures("node-1").total("ztunnel_pods_pending", pod="near", reason="port taken") == 1
    holder.sock.close()
    active(mesh, 2)
    assert mesh.call("shop/called", mesh.address("shop/near"), 8080).answers()


# -- the proxy --


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_a_proxy_that_is_killed_leaves_nobody_in_plaintext_and_the_next_one_serves_all(
    mesh: Mesh, agent: CniAgent, family: Family
) -> None:
    mesh.laboratory.kill_node("node-1")
    assert mesh.call("shop/caller", mesh.address("shop/called", family), 8080).refused
    assert mesh.call("out/stranger", mesh.address("shop/near", family), 8080).refused
    agent.lose()
    mesh.laboratory.start_node("node-1")
    agent.connected()
    assert mesh.call("shop/caller", mesh.address("shop/called", family), 8080).answers()
    assert mesh.call("shop/called", mesh.address("shop/near", family), 8080).answers()


def test_a_proxy_is_replaced_by_one_beside_it_and_no_call_fails(mesh: Mesh, agent: CniAgent) -> None:
    names, node = mesh.laboratory.names, mesh.laboratory.node("node-1")
    [before] = processes(names.proxy_cgroup("node-1"))
    pairs = [("shop/caller", "shop/called"), ("shop/called", "shop/near"), ("out/stranger", "shop/near")]
    words = command.node_command(names, node, os.environ)
    argv = command.in_node(names, node.name, names.proxy_cgroup(node.name), words)
    # In Kubernetes each has a network namespace of its own for its pages.
    pages = {"ADMIN": "127.0.0.1:25000", "METRICS": "[::]:25020", "READINESS": "[::]:25021"}
    environment = {f"ZTUNNEL_{name}_ADDRESS": address for name, address in pages.items()}
    with lab.Load(mesh, pairs, lab.TCP_FAMILIES) as load:
        log = (names.node_directory("node-1") / "log").open("ab")
        successor = subprocess.Popen(
            argv, env={**command.node_environment(os.environ), **environment}, stdout=log, stderr=log
        )
        log.close()
        agent.connected(2)
        so_far = load.answered
        lab.wait_until(lambda: load.answered > so_far + 200, "calls while both listen")
        os.kill(before, signal.SIGTERM)
        lab.wait_until(lambda: before not in processes(names.proxy_cgroup("node-1")), "the old one has ended")
        so_far = load.answered
        lab.wait_until(lambda: load.answered > so_far + 200, "calls with the new one alone")
    assert load.failed() == []
    agent.lose()
    successor.kill()
    successor.wait()
    mesh.laboratory.start_node("node-1")
    agent.connected()


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_rules_of_the_first_versions_of_istio_are_understood_too(
    mesh: Mesh, agent: CniAgent, family: Family
) -> None:
    """Inbound by TPROXY: nothing is rewritten, and the mark finds the way back."""
    agent.remove("shop/near")
    agent.rules = TPROXY
    try:
        assert agent.add("shop/near") == ""
        listener = mesh.listen("shop/near")
        for source in ("shop/called", "out/stranger"):
            client, server = mesh.join(source, listener, mesh.address("shop/near", family))
            own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
            assert endpoint_of(server.getpeername()).ip == own.ip
            assert endpoint_of(server.getsockname()) == target
            client.sendall(b"hello")
            assert read_exactly(server, 5) == b"hello"
            server.sendall(b"hello yourself")
            assert read_exactly(client, 14) == b"hello yourself"
            client.close()
            server.close()
        call = mesh.call("shop/near", mesh.address("shop/called", family), 8080)
        assert call.answers()
        call.sock.close()
    finally:
        agent.remove("shop/near")
        agent.rules = REDIRECT
        assert agent.add("shop/near") == ""


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_what_connection_tracking_has_the_wrong_way_round_is_not_believed(
    mesh: Mesh, agent: CniAgent, family: Family
) -> None:
    """Where a rule keeps a call untracked and not its answer, the destination that it remembers is the caller
    (haproxy/haproxy#3192)."""
    agent.remove("shop/near")
    agent.rules = TPROXY + UNTRACKED
    try:
        assert agent.add("shop/near") == ""
        listener = mesh.listen("shop/near")
        client, server = mesh.join("out/stranger", listener, mesh.address("shop/near", family))
        own, target = endpoint_of(client.getsockname()), endpoint_of(client.getpeername())
        client.sendall(b"hello")
        assert read_exactly(server, 5) == b"hello"
        client.close()
        server.close()
        assert mesh.line("node-1", src_addr=own, direction="inbound")["dst.addr"] == str(target)
    finally:
        agent.remove("shop/near")
        agent.rules = REDIRECT
        assert agent.add("shop/near") == ""
