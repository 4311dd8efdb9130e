"""Calls of gRPC that a waypoint makes itself, one message each way, of services that are named: by their
hostname in the mesh."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import DEFAULT
from ztunnel.model.address import IPAddress, OriginalDestination
from ztunnel.model.route_action import Destination
from ztunnel.model.service import ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import service_named
from ztunnel.state.world import World
from ztunnel.waypoint.client import HTTP2, Client, ClientCall, Places, grpc_message, grpc_request
from ztunnel.waypoint.rules.aim import Terms

MOST: Final = 4096
"""Calls of a waypoint that are under way; others are answered at once that there are too many."""
MOST_BYTES: Final = 64 * 1024
"""Of an answer."""
_MOST_KEPT: Final = 256
"""Destinations that are remembered."""
_ALL: Final = "all"

Then = Callable[[bytes | None, str], None]
"""Is told the answer's message, or None and why there is none."""


class Called(NamedTuple):
    """What is called.

    Attributes:
        host, port: of a service, by its hostname in the mesh.
        namespace: whose service is meant where several have that name.
        method: as gRPC has it: `/package.Service/Method`.
        seconds: that it may take.
    """

    host: str
    port: int
    namespace: str
    method: bytes
    seconds: float


class UnaryCalls:
    """Those of a waypoint."""

    def __init__(self, client: Client, current: Callable[[], tuple[World, Workload | None]]) -> None:
        """`current` gives the world of the moment, and the waypoint in it."""
        self._client = client
        self._current = current
        self._places = Places(MOST)
        self._kept: dict[tuple[ServiceName, int, IPAddress], tuple[Destination, Terms]] = {}

    @property
    def live(self) -> int:
        """How many are under way."""
        return len(self._places)

    def call(self, called: Called, message: bytes, then: Then) -> None:
        """Make a call; `then` is called once, perhaps before this returns."""
        world, here = self._current()
        service = service_named(world, called.host, called.namespace)
        if here is None or service is None:
            then(None, f"{called.host} is no service of the mesh")
            return
        if not self._places.take(_ALL):
            then(None, f"{MOST} calls are under way already")
            return
        destination, terms = self._where(service.key, called.port, here.addresses[0])
        plan = Plan("", DEFAULT)
        plan.destination = destination
        plan.timeout_seconds = called.seconds
        call = ClientCall(self._client, plan, terms, MOST_BYTES, partial(self._ended, then))
        call.start(*grpc_request(f"{called.host}:{called.port}", called.method, called.seconds, message))

    def _where(self, service: ServiceName, port: int, own: IPAddress) -> tuple[Destination, Terms]:
        """The very same for each call, by which what was found out of its endpoints is known (`aim`)."""
        key = service, port, own
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = Destination(service, port), Terms(OriginalDestination(own, port), own, HTTP2)
            self._kept[key] = found
        return found

    def _ended(self, then: Then, call: ClientCall) -> None:
        self._places.give(_ALL)
        message = grpc_message(call)
        then(message, call.failure)
