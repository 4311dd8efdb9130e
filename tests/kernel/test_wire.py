"""Packets that come to a pod as over its wire, and only to that pod."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.kernel.lab import Kernel, Lab, ip, shell
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.wire import Wires
from ztunnel.model.address import parse_ip
from ztunnel.redirect.packet import checksum, ip_packet, sum_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

UDP = 17
FAR = {4: ("198.51.100.7", "10.77.0.3"), 6: ("2001:db8::7", "fd77::3")}


def home_of(lab: Lab, which: str) -> NetworkNamespace:
    return NetworkNamespace.open(f"/run/netns/{lab.names[which]}")


@pytest.fixture
def wires(lab: Lab) -> Iterator[Wires]:
    made = Wires(lambda: home_of(lab, "n"))
    yield made
    made.close()


def index_of(netns: NetworkNamespace, name: str) -> int:
    with netns.entered():
        return socket.if_nametoindex(name)


def datagram(family: int, port: int, text: bytes) -> bytes:
    source, destination = (parse_ip(each).packed for each in FAR[family])
    head = struct.pack("!HHHH", 53, port, 8 + len(text), 0)
    body = head + text
    check = checksum(sum_of(source + destination) + UDP + len(body), body)
    return ip_packet(source, destination, UDP, head[:6] + check + text)


def listen(kernel: Kernel, family: int) -> socket.socket:
    sock = kernel.socket(kernel.lab.b, FAR[family][1], socket.SOCK_DGRAM)
    sock.bind((FAR[family][1], 0))
    return sock


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_arrives_as_from_somebody_far_away(kernel: Kernel, wires: Wires, family: int) -> None:
    app = listen(kernel, family)
    packet = datagram(family, app.getsockname()[1], b"hello!")
    before = shell(kernel.lab.names["b"], "cat /sys/class/net/eth0/statistics/rx_packets")
    for _ in range(2):
        assert wires.send(kernel.lab.b, index_of(kernel.lab.b, "eth0"), packet)
        text, sender = app.recvfrom(99)
        assert (text, sender[:2]) == (b"hello!", (FAR[family][0], 53))
    after = shell(kernel.lab.names["b"], "cat /sys/class/net/eth0/statistics/rx_packets")
    assert int(after) >= int(before) + 2


def test_an_interface_without_another_end_here_is_left_alone(kernel: Kernel, wires: Wires) -> None:
    lab = kernel.lab
    packet = datagram(4, 9, b"hello!")
    assert not wires.send(lab.b, index_of(lab.b, "lo"), packet)
    assert not wires.send(lab.b, 12345, packet)
    shell(lab.names["b"], "ip link add br9 type bridge; ip link set br9 up")
    assert not wires.send(lab.b, index_of(lab.b, "br9"), packet)
    shell(lab.names["b"], "ip link del br9")


@pytest.mark.parametrize("home", ["x", "a", "b"])
def test_where_the_number_of_the_other_end_is_somebody_elses_nothing_is_sent(lab: Lab, home: str) -> None:
    """Its number may be that of any interface in a namespace in which it is not."""
    wires = Wires(lambda: home_of(lab, home))
    index = index_of(lab.b, "eth0")
    assert not wires.send(lab.b, index, datagram(4, 9, b"hello!"))
    wires.close()


def test_an_end_that_is_made_anew_is_found_after_one_failure(kernel: Kernel, wires: Wires) -> None:
    lab, app = kernel.lab, listen(kernel, 4)
    ip(lab.names["n"], f"link add v9 type veth peer name eth9 netns {lab.names['b']}\nlink set v9 up")
    shell(lab.names["b"], "ip link set eth9 up")
    index = index_of(lab.b, "eth9")
    packet = datagram(4, app.getsockname()[1], b"hello!")
    assert wires.send(lab.b, index, packet)
    assert app.recv(99) == b"hello!"
    ip(lab.names["n"], "link set v9 down\nlink set v9 name v10\nlink set v10 up")
    with pytest.raises(OSError):  # noqa: PT011 (ENODEV or ENXIO)
        wires.send(lab.b, index, packet)
    assert wires.send(lab.b, index, packet)
    assert app.recv(99) == b"hello!"
    ip(lab.names["n"], "link del v10")
    with pytest.raises(OSError):  # noqa: PT011 (as above)
        wires.send(lab.b, index, packet)
    assert not wires.send(lab.b, index, packet)
