"""Calls from a port that the application has bound: to a pod by its several names, and again after the last.

Without a mesh names are translated behind the socket, so only the same name from the same port is taken.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.mesh import lab
from tests.mesh.lab import Family, Listener, Mesh, endpoint_of, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = (
    lab.SHOP + lab.pod("shop/near", "node-1") + lab.pod("shop/far", "node-2") + lab.pod("out/plain", "node-2")
)
ports = count(20100)
privileged = count(900)
WITH_FAMILIES = pytest.mark.parametrize("family", lab.TCP_FAMILIES)
WAYS = pytest.mark.parametrize("to", ["shop/near", "shop/far"])
REUSES = pytest.mark.parametrize("reuse", [socket.SO_REUSEADDR, socket.SO_REUSEPORT], ids=["addr", "port"])


@dataclass
class Called:
    """A pod with a server, whom two services lead to."""

    mesh: Mesh
    listener: Listener
    names: list[tuple[str, int]]
    caller: str
    reuse: int
    own: int = field(default_factory=lambda: next(ports))

    def call(self, name: tuple[str, int]) -> tuple[socket.socket, socket.socket]:
        """Both ends of a call from the port. Raises OSError."""
        client = self.mesh.socket("shop/caller", socket.AF_INET6 if ":" in self.caller else socket.AF_INET)
        client.setsockopt(socket.SOL_SOCKET, self.reuse, 1)
        client.bind((self.caller, self.own))
        client.connect(name)
        server = self.listener.accept()
        for one, other in ((client, server), (server, client)):
            one.sendall(b"?")
            assert read_exactly(other, 1) == b"?"
        assert client.getpeername()[:2] == name
        assert endpoint_of(client.getsockname()) == lab.Endpoint(lab.ip_address(self.caller), self.own)
        assert str(endpoint_of(server.getpeername()).ip) == self.caller
        return client, server


@pytest.fixture
def called(mesh: Mesh, applied, to: str, family: Family, reuse: int) -> Called:
    listener = mesh.listen(to)
    space, _, app = to.partition("/")
    services = [f"{space}/{app}-{number}" for number in (1, 2)]
    applied("".join(lab.service(name, app, 80, str(listener.port)) for name in services))
    names = [(mesh.address(to, family), listener.port)]
    for name in services:
        vips = mesh.laboratory.service(name).addresses
        names += [(str(vip), 80) for vip in vips if isinstance(vip, family)]
    return Called(mesh, listener, names, mesh.address("shop/caller", family), reuse)


@WITH_FAMILIES
@WAYS
@REUSES
def test_all_names_of_a_pod_can_be_called_from_one_port(called: Called) -> None:
    assert len(called.names) == 3
    for turn in range(3):  # from the second on the kernel knows what it may carry
        called.own = next(ports)
        names = called.names[turn:] + called.names[:turn]
        ends = [called.call(name) for name in names]
        assert endpoint_of(ends[0][1].getpeername()).port == called.own
        for name in names:
            with pytest.raises(OSError) as failed:  # noqa: PT011 (its errno is compared below)
                called.call(name)
            assert failed.value.errno == errno.EADDRNOTAVAIL
        for client, server in ends:
            client.close()
            assert server.recv(1) == b""
            server.close()


@WITH_FAMILIES
@WAYS
@pytest.mark.parametrize("reuse", [socket.SO_REUSEADDR])
def test_in_the_place_of_a_privileged_port_a_server_sees_another_one(called: Called) -> None:
    """exports(5), secure; netfilter keeps the class as well."""
    called.own = next(privileged)
    seen = [endpoint_of(called.call(name)[1].getpeername()).port for name in called.names[:2]]
    assert seen[0] == called.own
    assert seen[1] != called.own
    assert seen[1] < 1024


@WITH_FAMILIES
@WAYS
@REUSES
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_port_can_be_used_again_as_soon_as_it_is_closed(called: Called, first: str) -> None:
    address, one, other = called.names
    for name in (one, other, address, address, one, one):
        client, server = called.call(name)
        if first == "server":
            client, server = server, client
        client.close()
        assert server.recv(1) == b""
        server.close()


@WITH_FAMILIES
@pytest.mark.parametrize("to", ["out/plain"])
@pytest.mark.parametrize("reuse", [socket.SO_REUSEADDR])
def test_a_service_outside_of_the_mesh_sees_another_port(called: Called) -> None:
    ends = [called.call(name) for name in called.names]
    seen = [endpoint_of(server.getpeername()).port == called.own for _, server in ends]
    assert seen == [True, False, False]
