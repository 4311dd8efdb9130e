"""One pod of the agent's: what becomes of what comes in on its listeners."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.builders import service, workload
from tests.zds.parts import NAMED, SHARED, WEB, Pod, Served, caller
from ztunnel.model.workload import Workload
from ztunnel.pods.listen import CannotEnroll
from ztunnel.zds.hold import RedirectedPod
from ztunnel.zds.listen import listen_redirected
from ztunnel.zds.relay import NameServers

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

FAR = workload("far").on("n2").hbone().at("10.99.0.1", "fd99::1")
RECURSION = "attempted recursive call to ourselves"


def held(served: Served, pod: Pod, known: Workload | None = WEB) -> RedirectedPod:
    made = RedirectedPod(served.ways, NAMED, pod.marked(), SHARED, None)
    if known is not None:
        made.attach(known)
    return made


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_a_call_goes_where_the_application_wanted_it_to(address: str) -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        one = held(served, pod)
        with caller(pod, address, 8080), caller(pod, address, 8080):
            served.rounds(lambda: served.asked)
            [key] = {str(each.destination) for each in served.asked}  # type: ignore[attr-defined]
            assert key in (f"{address}:15008", f"[{address}]:15008")
        one.let_go()


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 15001), ("::1", 15001)])
def test_a_call_to_our_own_listener_is_refused(address: str, port: int) -> None:
    with Pod() as pod, Served(WEB) as served:
        one = held(served, pod)
        with caller(pod, address, port):
            served.refused(RECURSION)
        one.let_go()


def test_a_link_local_address_of_the_pods_own_leads_to_no_loop() -> None:
    with Pod(rules=False) as pod, Served(WEB) as served:
        pod.address("add", "fe80::78/64")
        one = held(served, pod)
        with pod.open() as there, there.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            with there.entered():
                index = socket.if_nametoindex("eth0")
            sock.connect(("fe80::78", 15001, 0, index))
            served.refused(RECURSION)
        one.let_go()


@pytest.mark.parametrize("address", ["10.78.0.2", "fd78::2"])
def test_plaintext_to_our_own_ports_is_refused(address: str) -> None:
    with Pod(rules=False) as pod, Served(WEB) as served:
        one = held(served, pod)
        with caller(pod, address, 15006):
            served.refused(RECURSION)
        one.let_go()


def test_while_the_world_does_not_know_the_pod_nothing_is_taken_up_and_then_it_is_refused() -> None:
    with Pod() as pod, Served() as served:
        one = held(served, pod, None)
        with caller(pod, "10.99.0.1", 80):
            for _ in range(5):
                served.engine.round(0.01)
            assert not served.desk.lines
            one.accept()
            served.refused("failed to fetch information about local workload: ")
        with caller(pod, "127.0.0.1", 15006), caller(pod, "127.0.0.1", 15008):
            served.rounds(lambda: len(served.desk.lines) >= 3)
            assert all("local workload" in line for line in served.desk.lines)
        one.let_go()


def test_what_waited_for_the_world_is_served_once_it_knows_the_pod() -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        one = held(served, pod, None)
        with caller(pod, "10.99.0.1", 8080):
            one.attach(WEB)
            served.rounds(lambda: served.asked)
        one.let_go()


def test_a_certificate_is_wanted_while_the_pod_is_there() -> None:
    with Pod() as pod, Served(WEB) as served:
        one = held(served, pod)
        assert [each.identity for each in served.certificates.expiring()] == [WEB.identity]
        one.attach(WEB)
        one.let_go()
        assert not list(served.certificates.expiring())


def test_a_namespace_without_an_address_is_not_served() -> None:
    with Pod("10.78.0.9/24") as pod, Served(WEB) as served, pod.marked() as netns:
        pod.address("del", "10.78.0.9/24")
        with pytest.raises(CannotEnroll, match="its network namespace has no address"):
            RedirectedPod(served.ways, NAMED, netns, SHARED, None)


def test_a_listener_that_a_process_of_the_pod_destroys_is_made_again() -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        one = held(served, pod)
        assert one.look() == []
        subprocess.run(
            ["ip", "netns", "exec", pod.name, "ss", "-K", "-l", "sport", "=", ":15001"],
            check=True, capture_output=True,
        )  # fmt: skip
        assert one.look() == ["listener outbound"]
        with caller(pod, "10.99.0.1", 8080):
            served.rounds(lambda: served.asked)
        one.let_go()


def test_an_address_that_comes_later_is_the_pods_too() -> None:
    with Pod("10.78.0.2/24") as pod, Served(WEB, FAR) as served:
        one = held(served, pod)
        pod.address("add", "fd78::2/64")
        one.look()
        assert sorted(str(ip) for ip in one.network.addresses) == ["10.78.0.2", "fd78::2"]
        with caller(pod, "fd99::1", 8080):
            served.rounds(lambda: served.asked)
        one.let_go()


def test_what_is_open_ends_with_the_pod_and_says_so() -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        one = held(served, pod)
        with caller(pod, "10.99.0.1", 8080) as client:
            served.rounds(lambda: served.asked)
            one.end("the pod was taken out of the mesh")
            served.refused("the pod was taken out of the mesh")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert not len(served.outbound.calls)


def test_who_waits_in_a_backlog_is_taken_up_before_the_listeners_close() -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        one = held(served, pod)
        with caller(pod, "10.99.0.1", 8080), caller(pod, "10.99.0.1", 8080):
            one.stop()
            assert len(served.outbound.calls) == 2
            with pytest.raises(ConnectionRefusedError):
                caller(pod, "10.99.0.1", 8080)
        one.end("over")


def test_names_are_asked_by_tcp_as_any_call_and_the_pods_own_port_is_no_way(tmp_path: Path) -> None:
    with Pod() as pod, Served(WEB, FAR) as served:
        made = RedirectedPod(served.ways, NAMED, pod.marked(), SHARED, NameServers(tmp_path / "none"))
        made.attach(WEB)
        with caller(pod, "10.99.0.1", 53):
            served.rounds(lambda: served.asked)
        for address in ("127.0.0.1", "10.78.0.2", "fd78::2"):
            served.desk.lines.clear()
            with caller(pod, address, 15053):
                served.refused(RECURSION)
        made.end("over")


def test_where_the_port_for_names_is_taken_the_pod_is_not_served(tmp_path: Path) -> None:
    with Pod() as pod, Served(WEB) as served, pod.marked() as netns:
        with netns.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 15053))
            with pytest.raises(CannotEnroll, match="port 15053 is taken"):
                RedirectedPod(served.ways, NAMED, netns, SHARED, NameServers(tmp_path / "none"))
        listen_redirected(netns, "shop/web", SHARED).close()


def test_a_pod_without_ipv6_is_served_by_ipv4(tmp_path: Path) -> None:
    """Nothing of ours needs `::1` (istio/ztunnel#1707)."""
    with Pod() as pod, Served(WEB, FAR) as served:
        with pod.open() as there:
            there.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        made = RedirectedPod(served.ways, NAMED, pod.marked(), SHARED, NameServers(tmp_path / "none"))
        made.attach(WEB)
        assert [str(ip) for ip in made.network.addresses] == ["10.78.0.2"]
        with caller(pod, "10.99.0.1", 8080):
            served.rounds(lambda: served.asked)
        made.end("over")


def test_a_pod_keeps_the_endpoint_of_a_service_with_affinity() -> None:
    vip = service("sticky").at("10.96.0.7").port(80, 8080)
    ends = [workload(f"end-{n}").on("n2").hbone().at(f"10.99.1.{n}").serves(vip) for n in range(1, 6)]
    for kept, expected in ((vip, False), (vip.keeping(60), True)):
        with Pod() as pod, Served(WEB, kept, *ends) as served:
            one = held(served, pod)
            for number in range(20):
                with caller(pod, "10.96.0.7", 80):
                    served.rounds(lambda number=number: len(served.outbound.calls) == number + 1)
            called = {str(key.destination) for key in served.asked}  # type: ignore[attr-defined]
            assert (len(called) == 1) == expected
            one.end("over")
