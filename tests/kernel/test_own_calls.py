"""A pod's calls of itself, and packets from the wire that claim to be such."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.kernel.lab import Kernel, endpoint, local_of, shell, wait_until
from tests.kernel.test_sk_lookup import admitted, enroll_with_listener, nobody_comes

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

SYN = 0x02
fresh = itertools.count(40001)
"""Ports from which no other test of this file has called: half-open connections stay for a while."""


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """An IP packet: a SYN with data (TCP Fast Open without a cookie, if there is any), from whoever it
    claims."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    options = bytes([34, 2, 1, 1])  # an empty Fast Open option, padded
    head = struct.pack("!HHIIBBHHH", *ports, 1000, 0, 6 << 4, SYN, 65535, 0, 0) + options
    segment = head + payload + bytes(len(payload) % 2)
    length = len(head) + len(payload)
    code = checksum(ends + struct.pack("!HHI", 0, 6, length) + segment)
    segment = (head[:16] + struct.pack("!H", code) + head[18:]) + payload
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, length, 6, 64) + ends + segment
    top = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, 6, 0)
    return top[:10] + struct.pack("!H", checksum(top + ends)) + ends + segment


def send_frame(kernel: Kernel, packet: bytes) -> None:
    """To pod b's interface, from the node's end of its link."""
    hardware = shell(kernel.lab.names["b"], "cat /sys/class/net/eth0/address").strip()
    kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    frame = bytes.fromhex(hardware.replace(":", "")) + b"\x02\0\0\0\0\x01" + struct.pack("!H", kind) + packet
    with kernel.lab.node.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("vb", 0))
        wire.send(frame)


@contextmanager
def believing(kernel: Kernel, fastopen: int) -> Iterator[None]:
    """Pod b takes packets that claim its own address also over IPv4, and data with a SYN without a cookie."""
    settings = {
        "net.ipv4.conf.all.accept_local": "1",
        "net.ipv4.conf.eth0.accept_local": "1",
        "net.ipv4.conf.all.rp_filter": "0",
        "net.ipv4.conf.eth0.rp_filter": "0",
        "net.ipv4.tcp_fastopen": str(fastopen),
    }
    pod = kernel.lab.b
    before = {name: pod.read_sysctl(name) for name in settings}
    for name, value in settings.items():
        pod.write_sysctl(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            pod.write_sysctl(name, value)


@pytest.mark.parametrize("fastopen", [1, 0x602 | 1], ids=["ordinary", "fast open without a cookie"])
@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
@pytest.mark.parametrize("claimed", ["itself", "its other address"])
def test_a_syn_from_the_wire_that_claims_the_pods_own_address_is_judged_like_anybodys(
    kernel: Kernel, host: str, claimed: str, fastopen: int
) -> None:
    other = "10.77.0.33" if "." in host else "fd77::33"
    nodad = "" if "." in host else "nodad"
    shell(kernel.lab.names["b"], f"ip addr add {other}/{32 if '.' in host else 128} dev eth0 {nodad}")
    try:
        pod, inbound = enroll_with_listener(kernel)
        kernel.redirection.enroll(replace(pod, addresses=(*pod.addresses, endpoint(other, 0).ip)))
        with believing(kernel, fastopen):
            app = kernel.listen(pod.netns, 8080)
            source, port = host if claimed == "itself" else other, next(fresh)
            send_frame(kernel, syn(source, host, (port, 8080), b"no handshake"))
            wait_until(lambda: kernel.count("inbound_captured"))
            assert nobody_comes(app)
            assert kernel.count("inbound_own") == 0
            # Its own calls go on to reach it, the one with the same ports among them.
            client = kernel.socket(pod.netns, host)
            client.bind((source, port))
            inbound.setblocking(False)
            if fastopen == 1:
                client.connect((host, 8080))
                assert kernel.accept(app)[1] == local_of(client)
                assert kernel.count("inbound_own") == 1
    finally:
        shell(kernel.lab.names["b"], f"ip addr del {other}/{32 if '.' in host else 128} dev eth0")


@pytest.mark.parametrize("host", ["10.77.0.3", "fd77::3"])
def test_an_admission_of_its_own_call_serves_that_call_alone(kernel: Kernel, host: str) -> None:
    pod, _ = enroll_with_listener(kernel)
    app = kernel.listen(pod.netns, 8080)
    client = kernel.connect(pod.netns, host, 8080)
    kernel.accept(app)
    assert admitted(kernel) == 0, "it has been accepted"
    port = local_of(client).port
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with believing(kernel, 1):
        send_frame(kernel, syn(host, host, (port, 8080), b""))
        wait_until(lambda: kernel.count("inbound_captured"))
    assert nobody_comes(app)
    refused = kernel.socket(pod.netns, host)
    assert refused.connect_ex((host, 9)) == errno.ECONNREFUSED
    assert admitted(kernel) == 0, "it was refused"


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_an_address_that_nobody_has_told_us_is_reached_by_the_pod_itself(
    kernel: Kernel, address: str
) -> None:
    """On lo, or just added: calls to it are left alone, and not calls that leave the mesh."""
    pod, _ = enroll_with_listener(kernel)
    kernel.redirection.addresses.known(True)
    kernel.redirection.renew_lease(time.monotonic_ns())
    shell(kernel.lab.names["b"], f"ip addr add {address}/{32 if '.' in address else 128} dev lo")
    try:
        app = kernel.listen(pod.netns, 8080)
        client = kernel.connect(pod.netns, address, 8080)
        assert kernel.accept(app)[1] == local_of(client)
        client.close()
        assert kernel.count("admitted_self") == 1
        assert kernel.redirection.outside_records() == []
        assert kernel.redirection.outside_calls() == []
    finally:
        shell(kernel.lab.names["b"], f"ip addr del {address}/{32 if '.' in address else 128} dev lo")
