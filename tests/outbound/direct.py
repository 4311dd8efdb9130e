"""A pair of pods of one node, and calls between them that go directly."""

from __future__ import annotations

import socket

from tests.builders import service, workload
from tests.flow.driving import drive
from tests.outbound.parts import Desk, address_of, journey
from ztunnel.errors import Drained
from ztunnel.model.address import Endpoint, PeerAddress, parse_endpoint
from ztunnel.outbound.connect import Call
from ztunnel.outbound.decision import ToDirect

CLIENT = workload("client").at("127.0.0.9").on("n1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
SERVER = workload("server").at("127.0.0.2").on("n1").hbone().serves(WEB)
VIP = parse_endpoint("10.96.0.1:80")
DRAINED = Drained("connection closed due to connection drain")


class Instead(list[int]):
    """How often the other way was asked for."""

    def __call__(self) -> None:
        self.append(1)


def begin(
    desk: Desk,
    endpoint: Endpoint,
    asked: Endpoint = VIP,
    instead: Instead | None = None,
    port: int = 0,
    peer: PeerAddress | None = None,
) -> tuple[Call, socket.socket, bool]:
    peer = PeerAddress(CLIENT.addresses[0], port) if port else peer
    call, client = desk.plain_call(peer) if peer else desk.plain_call()
    call.journey = journey(str(endpoint))
    world = desk.hold.world
    source, destination = world.workload(CLIENT.uid), world.by_ip(endpoint.ip)
    route = ToDirect(endpoint, destination, world.service(WEB.key))
    begun = desk.direct.begin(call, source, route, asked, instead if instead is not None else Instead())
    return call, client, begun


def stand(desk: Desk, listener: socket.socket) -> tuple[Call, socket.socket, socket.socket]:
    """A direct call that stands: the call, the application's end, the server's."""
    call, client, begun = begin(desk, address_of(listener))
    assert begun
    drive(desk.engine)
    return call, client, desk.sockets.keep(listener.accept()[0])
