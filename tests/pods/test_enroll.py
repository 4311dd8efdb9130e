"""Taking a pod in and giving it back, in real namespaces: nothing is left, and nothing leaks."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from tests.builders import workload
from tests.kernel.lab import Kernel, endpoint, local_of
from tests.pods.parts import A, Scratch, place_of
from ztunnel.kernel.netlink import addresses
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import listen_in
from ztunnel.pods.enroll import (
    Enrolled,
    Left,
    close,
    enroll,
    outside_of,
    readdress,
    release,
    resume,
    withdraw,
)
from ztunnel.pods.kubelet import Place
from ztunnel.pods.listen import HBONE_PORT, CannotEnroll
from ztunnel.redirect.capture import LISTENER_PORTS

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

RESERVED = "net.ipv4.ip_local_reserved_ports"
SWITCHES = ("net.ipv4.tcp_fwmark_accept", "net.ipv4.tcp_migrate_req")


def rules(netns: NetworkNamespace) -> str:
    """What stands in the routing rules and in our table, both families."""
    shown = ""
    for family in ("-4", "-6"):
        for what in ("rule", "route"):
            words = ["ip", "-n", netns.path.rpartition("/")[2], family, what, "show"]
            shown += subprocess.run(
                [*words, *(["table", "100"] if what == "route" else [])], capture_output=True, text=True
            ).stdout
    return "\n".join(line for line in shown.splitlines() if "0x111" in line or "local default" in line)


def switches(netns: NetworkNamespace) -> list[str]:
    return [netns.read_sysctl(name) for name in SWITCHES]


def remove(kernel: Kernel, enrolled: Enrolled) -> None:
    withdraw(kernel.redirection, enrolled)
    close(enrolled)
    release(enrolled)


def free(netns: NetworkNamespace) -> bool:
    """Whether every port of ours can be listened on."""
    for port in (HBONE_PORT, *LISTENER_PORTS):
        listen_in(netns, port, 1).close()
    return True


def test_a_pod_is_captured_and_afterwards_as_it_was(kernel: Kernel) -> None:
    netns = kernel.lab.a
    netns.write_sysctl(SWITCHES[1], "1")
    try:
        enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
        assert set(kernel.redirection.enrolled()) == {netns.cookie}
        assert enrolled.network.addresses == addresses(netns)
        assert (str(enrolled.network.ipv4), str(enrolled.network.ipv6)) == ("10.77.0.2", "fd77::2")
        assert (enrolled.uid, enrolled.serving, enrolled.outside) == (A.uid, True, frozenset())
        assert rules(netns).count("0x111") == 2
        assert switches(netns) == ["1", "1"]
        client = kernel.connect(netns, "10.77.0.3", 80)
        accepted, _ = enrolled.listeners.outbound.accept()
        assert endpoint(*accepted.getpeername()[:2]).port == client.getsockname()[1]
        accepted.close()
        remove(kernel, enrolled)
        assert not enrolled.serving
        assert kernel.redirection.enrolled() == {}
        assert rules(netns) == ""
        assert switches(netns) == ["0", "1"]
        assert netns.read_sysctl(RESERVED) == ""
        assert free(netns)
    finally:
        netns.write_sysctl(SWITCHES[1], "0")


def test_no_sockets_are_made_in_advance_for_a_pod_that_calls_nobody(kernel: Kernel) -> None:
    enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    assert enrolled.network.netns.spares == 0
    remove(kernel, enrolled)


def test_a_pod_that_was_known_to_the_kernel_is_switched_off_at_its_end(kernel: Kernel) -> None:
    netns = kernel.lab.a
    first = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    # The process ends: what is in the kernel and in the namespace stays.
    close(first)
    first.network.netns.close()
    known = kernel.redirection.enrolled()
    second = enroll(kernel.redirection, A, place_of(kernel.lab, "a"), Left(known, {}))
    assert switches(netns) == ["1", "1"]
    remove(kernel, second)
    assert switches(netns) == ["0", "0"]


def test_a_port_that_the_pod_has_taken_is_named_and_nothing_is_left(kernel: Kernel) -> None:
    port = HBONE_PORT
    netns = kernel.lab.a
    before = len(os.listdir("/proc/self/fd"))
    with listen_in(netns, port, 1), pytest.raises(CannotEnroll, match=f"default/a: port {port} is taken by"):
        enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    assert len(os.listdir("/proc/self/fd")) == before
    assert kernel.redirection.enrolled() == {}
    assert (rules(netns), switches(netns)) == ("", ["0", "0"])
    assert free(netns)


@pytest.mark.parametrize("taken", [(), (15001, 15006, LISTENER_PORTS[0], LISTENER_PORTS[2])])
def test_ports_that_the_pod_has_taken_are_left_to_it(kernel: Kernel, taken) -> None:
    with ExitStack() as stack:
        apps = {port: stack.enter_context(listen_in(kernel.lab.a, port, 1)) for port in taken}
        enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
        client = kernel.connect(kernel.lab.a, "10.77.0.3", 80)
        assert kernel.accept(enrolled.listeners.outbound)[1] == local_of(client)
        for port, app in apps.items():
            itself = kernel.connect(kernel.lab.a, "10.77.0.2", port)
            assert kernel.accept(app)[1] == local_of(itself)
        remove(kernel, enrolled)
    assert free(kernel.lab.a)


@pytest.mark.parametrize("known", [False, True])
def test_the_ports_of_captured_calls_are_reserved_besides_those_of_the_pod(kernel: Kernel, known) -> None:
    netns = kernel.lab.a
    netns.write_sysctl(RESERVED, "8080,9000-9009")
    try:
        enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
        if known:
            close(enrolled)
            enrolled.network.netns.close()
            left = Left(kernel.redirection.enrolled(), {})
            enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"), left)
        assert netns.read_sysctl(RESERVED) == "8080,9000-9009,61440-65535"
        remove(kernel, enrolled)
        assert netns.read_sysctl(RESERVED) == "8080,9000-9009"
    finally:
        netns.write_sysctl(RESERVED, "\n")


def test_what_cannot_be_enrolled_again_after_a_restart_stays_captured(kernel: Kernel) -> None:
    first = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    close(first)
    first.network.netns.close()
    with listen_in(kernel.lab.a, HBONE_PORT, 1), pytest.raises(CannotEnroll):
        enroll(kernel.redirection, A, place_of(kernel.lab, "a"), Left(kernel.redirection.enrolled(), {}))
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, "10.77.0.3", 80)
    left = Left(kernel.redirection.enrolled(), {})
    remove(kernel, enroll(kernel.redirection, A, place_of(kernel.lab, "a"), left))


def test_another_pods_namespace_is_refused(kernel: Kernel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stranger = workload("s").at("10.77.0.99")
    text = "has the addresses 10.77.0.2, fd77::2, the pod 10.77.0.99"
    with pytest.raises(CannotEnroll, match=text):
        enroll(kernel.redirection, stranger, place_of(kernel.lab, "a"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pod_that_starts_has_the_addresses_of_its_namespace(kernel: Kernel) -> None:
    """The world does not know them yet."""
    starting = workload("s").on("n1").hbone().at()
    with Scratch() as scratch:
        with pytest.raises(CannotEnroll, match="has the addresses none, the pod none"):
            enroll(kernel.redirection, starting, scratch.place)
        scratch.address("add", "10.9.0.1/24")
        scratch.address("add", "fd09::1/64")
        enrolled = enroll(kernel.redirection, starting, scratch.place)
        assert {str(ip) for ip in enrolled.home} == {"10.9.0.1", "fd09::1"}
        assert enrolled.network.uplinks
        remove(kernel, enrolled)


def test_a_sandbox_that_has_taken_the_addresses_is_not_enrolled(kernel: Kernel) -> None:
    """gVisor's."""
    with Scratch() as scratch, pytest.raises(CannotEnroll, match=r"no address.*\(gVisor"):
        enroll(kernel.redirection, workload("s").on("n1").hbone().at("10.9.0.1"), scratch.place)
    assert kernel.redirection.enrolled() == {}


def test_a_virtual_machine_is_not_enrolled(kernel: Kernel) -> None:
    """Kata Containers has the pod's address in the namespace, and sends past it."""
    with Scratch("10.9.0.1/24") as scratch:
        scratch.ip("tuntap", "add", "tap0_kata", "mode", "tap")
        with pytest.raises(CannotEnroll, match="tap0_kata"):
            enroll(kernel.redirection, workload("s").on("n1").hbone().at("10.9.0.1"), scratch.place)
    assert kernel.redirection.enrolled() == {}


def test_a_namespace_that_is_not_there_is_refused(kernel: Kernel) -> None:
    with pytest.raises(CannotEnroll, match="No such file"):
        enroll(kernel.redirection, A, Place("/run/netns/none-such", 7))


def test_a_namespace_that_is_another_by_now_is_refused(kernel: Kernel) -> None:
    """The process by which it was found has ended, and its number is another one's."""
    found = place_of(kernel.lab, "b")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(CannotEnroll, match="Stale"):
        enroll(kernel.redirection, A, replace(found, inode=place_of(kernel.lab, "a").inode))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_pod_goes_on_with_the_listeners_that_still_stand(kernel: Kernel) -> None:
    enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    listeners = enrolled.listeners
    for _ in range(2):
        withdraw(kernel.redirection, enrolled)
        assert not enrolled.serving
        resume(kernel.redirection, A, enrolled)
        assert enrolled.serving
        assert enrolled.listeners is listeners
    kernel.connect(kernel.lab.a, "10.77.0.3", 80)
    enrolled.listeners.outbound.accept()[0].close()
    remove(kernel, enrolled)


def test_a_pod_that_does_not_answer_any_more_gets_new_listeners(kernel: Kernel) -> None:
    enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    withdraw(kernel.redirection, enrolled)
    close(enrolled)
    with listen_in(kernel.lab.a, HBONE_PORT, 1), pytest.raises(CannotEnroll, match="15008"):
        resume(kernel.redirection, A, enrolled)
    assert (enrolled.listeners, enrolled.serving) == (None, False)
    assert kernel.redirection.enrolled() == {}
    assert free(kernel.lab.a)
    resume(kernel.redirection, A, enrolled)
    assert enrolled.listeners is not None
    remove(kernel, enrolled)
    assert switches(kernel.lab.a) == ["0", "0"]


def test_a_namespace_that_lost_its_pods_addresses_is_not_resumed(kernel: Kernel) -> None:
    enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    withdraw(kernel.redirection, enrolled)
    with pytest.raises(CannotEnroll):
        resume(kernel.redirection, A.at("10.77.0.99"), enrolled)
    assert not enrolled.serving
    remove(kernel, enrolled)


def test_addresses_are_followed(kernel: Kernel) -> None:
    with Scratch("10.9.0.1/24", "fd09::1/64") as scratch:
        pod = workload("s").at("10.9.0.1")
        enrolled = enroll(kernel.redirection, pod, scratch.place)
        assert readdress(kernel.redirection, enrolled) == frozenset()
        scratch.address("add", "10.9.0.2/24")
        assert readdress(kernel.redirection, enrolled) == frozenset()
        (listed,) = kernel.redirection.enrolled().values()
        assert {str(ip) for ip in listed.addresses} == {"10.9.0.1", "10.9.0.2", "fd09::1"}
        scratch.address("del", "fd09::1/64")
        assert {str(ip) for ip in readdress(kernel.redirection, enrolled)} == {"fd09::1"}
        assert enrolled.network.ipv6 is None
        (listed,) = kernel.redirection.enrolled().values()
        assert {str(ip) for ip in listed.addresses} == {"10.9.0.1", "10.9.0.2"}
        # A namespace that is being taken down loses its addresses first: the last ones still count.
        scratch.ip("addr", "flush", "dev", "eth0", "scope", "global")
        assert readdress(kernel.redirection, enrolled) == frozenset()
        assert len(enrolled.network.addresses) == 2
        remove(kernel, enrolled)


def test_connections_from_before_are_told_from_those_that_we_carry(kernel: Kernel) -> None:
    lab = kernel.lab
    with lab.in_cgroup("proxy"):
        listener = kernel.listen(lab.b, 8080)
    # Connections of this process are ours, so one of its own makes the one from before.
    code = (
        "import socket,sys; s=socket.create_connection(('10.77.0.3',8080)); "
        "print(s.getsockname()[1],flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        ["ip", "netns", "exec", lab.names["a"], "python3", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        port = int(process.stdout.readline())
        kernel.connect(lab.a, "10.77.0.3", 8080)  # ours
        enrolled = enroll(kernel.redirection, A, place_of(lab, "a"))
        assert [each.local.port for each in outside_of(enrolled)] == [port]
        process.stdin.close()
        process.wait()
    kernel.accept(listener)[0].close()
    assert outside_of(enrolled) == []
    remove(kernel, enrolled)


def test_a_withdrawn_pods_connections_live_on(kernel: Kernel) -> None:
    enrolled = enroll(kernel.redirection, A, place_of(kernel.lab, "a"))
    client = kernel.connect(kernel.lab.a, "10.77.0.3", 80)
    accepted, _ = enrolled.listeners.outbound.accept()
    with accepted:
        withdraw(kernel.redirection, enrolled)
        withdraw(kernel.redirection, enrolled)
        close(enrolled)
        accepted.send(b"still there")
        assert client.recv(100) == b"still there"
    release(enrolled)


def test_a_namespace_that_is_gone_is_released_all_the_same(kernel: Kernel) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        enrolled = enroll(kernel.redirection, workload("s").at("10.9.0.1"), scratch.place)
        scratch.delete()
        remove(kernel, enrolled)
    assert kernel.redirection.enrolled() == {}


def test_cycles_leak_nothing(kernel: Kernel) -> None:
    place = place_of(kernel.lab, "a")
    remove(kernel, enroll(kernel.redirection, A, place))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        remove(kernel, enroll(kernel.redirection, A, place))
    assert len(os.listdir("/proc/self/fd")) == before
    assert kernel.redirection.enrolled() == {}
    with socket.socket() as sock:  # and we are at home
        sock.bind(("127.0.0.1", 0))


@pytest.mark.parametrize(("first", "second"), [("10.9.0.1/24", "10.9.1.2/24"), ("fd09::1/64", "fd09::2/64")])
def test_calls_go_to_the_address_that_the_world_knows_whatever_others_come(
    kernel: Kernel, first: str, second: str
) -> None:
    own = first.partition("/")[0]
    with Scratch(first) as scratch:
        enrolled = enroll(kernel.redirection, workload("two").on("n1").hbone().at(own), scratch.place)
        scratch.address("add", second)
        scratch.address("del", first)
        scratch.address("add", first)
        readdress(kernel.redirection, enrolled)
        assert len(enrolled.network.addresses) == 2
        assert own in (str(enrolled.network.ipv4), str(enrolled.network.ipv6))
        remove(kernel, enrolled)


def test_a_pod_without_ipv6_is_enrolled_by_what_it_has_and_its_ipv6_when_that_comes(kernel: Kernel) -> None:
    pod = workload("v4").on("n1").hbone().at("10.9.0.1", "fd09::1")
    with Scratch("10.9.0.1/24") as scratch:
        with scratch.open() as netns:
            netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
            enrolled = enroll(kernel.redirection, pod, scratch.place)
            assert (str(enrolled.network.ipv4), enrolled.network.ipv6) == ("10.9.0.1", None)
            netns.write_sysctl("net.ipv6.conf.all.disable_ipv6", "0")
            scratch.address("add", "fd09::1/64")
            assert readdress(kernel.redirection, enrolled) == frozenset()
            assert str(enrolled.network.ipv6) == "fd09::1"
            # Off for lo alone: a captured call would get no answer, so it is refused.
            netns.write_sysctl("net.ipv6.conf.lo.disable_ipv6", "1")
            assert readdress(kernel.redirection, enrolled) == frozenset()
            assert (enrolled.network.ipv6, len(enrolled.network.addresses)) == (None, 2)
            assert kernel.redirection.enrolled()[netns.cookie].ipv6 is None
        remove(kernel, enrolled)


def test_a_link_local_address_is_the_first_pods_that_has_it(kernel: Kernel) -> None:
    """Two links may well have the same one, and a SYN does not say its link: it never reaches another pod."""
    with Scratch("10.9.0.1/24", "fe80::9/64") as one, Scratch("10.9.0.2/24", "fe80::9/64") as two:
        first = enroll(kernel.redirection, workload("one").on("n1").hbone().at("10.9.0.1"), one.place)
        second = enroll(kernel.redirection, workload("two").on("n1").hbone().at("10.9.0.2"), two.place)
        shared = IPv6Address("fe80::9")
        assert first.network.scope_of(shared) > 0 < second.network.scope_of(shared)
        assert shared not in first.network.addresses
        owners = kernel.redirection.enrolled()
        assert shared in owners[first.network.cookie].addresses
        assert shared not in owners[second.network.cookie].addresses
        assert kernel.redirection.may_own(first.network.cookie, shared)
        assert not kernel.redirection.may_own(second.network.cookie, shared)
        remove(kernel, first)
        assert kernel.redirection.may_own(second.network.cookie, shared)
        remove(kernel, second)
