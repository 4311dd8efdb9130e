from __future__ import annotations

import os
import socket

import pytest

from tests.kernel.lab import Kernel
from tests.redirect.test_syn import syn
from ztunnel.kernel.inject import Injector
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.redirect.syn import whole

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


@pytest.mark.parametrize("host", ["10.77.0.2", "fd77::2"])
def test_a_packet_reaches_the_pod_itself(kernel: Kernel, host: str) -> None:
    """Whoever listens there answers the SYN: a half-open connection, until a reset of nobody's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    own = socket.inet_pton(family, host)
    listener = kernel.socket(kernel.lab.a, host)
    listener.bind((host, 61500))
    listener.listen(1)
    injector = Injector(kernel.lab.a)
    before = received(kernel.lab.a)
    for _ in range(2):
        injector.send(whole(syn((own, own))), host)
    assert received(kernel.lab.a) >= before + 2
    injector.close()
    injector.close()


def received(netns: NetworkNamespace) -> int:
    """TCP segments that this namespace has taken, of which none was broken."""
    with netns.entered(), open("/proc/thread-self/net/snmp") as file:
        names, values = (line.split()[1:] for line in file if line.startswith("Tcp:"))
    found = dict(zip(names, map(int, values), strict=True))
    assert found["InCsumErrors"] == 0
    return found["InSegs"]


def test_what_the_kernel_does_not_take_is_told_and_no_descriptor_is_left(kernel: Kernel) -> None:
    before = len(os.listdir("/proc/self/fd"))
    injector = Injector(kernel.lab.a)
    own = socket.inet_aton("10.77.0.2")
    with pytest.raises(OSError, match="Message too long"):
        injector.send(whole(syn((own, own))) + bytes(70_000), "10.77.0.2")
    injector.close()
    assert len(os.listdir("/proc/self/fd")) == before
