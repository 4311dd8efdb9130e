"""Calls that a waypoint makes itself of services that are named, by their hostname in the mesh: of gRPC with
one message each way, or a POST of HTTP."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import Plan
from ztunnel.l7.routing.retry import DEFAULT
from ztunnel.model.address import IPAddress, OriginalDestination
from ztunnel.model.route_action import Destination
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import service_named
from ztunnel.state.world import World
from ztunnel.waypoint.chain import http_version
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
        method: as gRPC has it: `/package.Service/Method`; the path of a POST.
        seconds: that it may take.
        fields: that its head has besides.
    """

    host: str
    port: int
    namespace: str
    method: bytes
    seconds: float
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


class ServiceCalls:
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

    def call(self, called: Called, message: bytes, then: Then) -> ClientCall | None:
        """Make a call of gRPC; `then` is called once, perhaps before this returns. Returns what can be
        cancelled."""
        call = self._begin(called, then, partial(self._told_message, then))
        if call is not None:
            request, body = grpc_request(called.authority, called.method, called.seconds, message)
            request.fields += called.fields
            call.start(request, body)
        return call

    def post(self, called: Called, body: bytes, then: Then) -> ClientCall | None:
        """Make a POST, of which the status is to say that it was taken (2xx). The rest as `call`."""
        call = self._begin(called, then, partial(self._told_status, then))
        if call is not None:
            world, _ = self._current()
            service = service_named(world, called.host, called.namespace)
            spoken = service.protocol(called.port) if service is not None else None
            request = Request(b"POST", called.authority.encode(), called.method, list(called.fields))
            request.length = len(body)
            request.fields.append((b"content-length", b"%d" % len(body)))
            call.start(request, body, http_version(spoken, 1, grpc=False))
        return call

    def _begin(self, called: Called, then: Then, ended: Callable[[ClientCall], None]) -> ClientCall | None:
        world, here = self._current()
        service: Service | None = service_named(world, called.host, called.namespace)
        if here is None or service is None:
            then(None, f"{called.host} is no service of the mesh")
            return None
        if not self._places.take(_ALL):
            then(None, f"{MOST} calls are under way already")
            return None
        destination, terms = self._where(service.key, called.port, here.addresses[0])
        plan = Plan("", DEFAULT)
        plan.destination = destination
        plan.timeout_seconds = called.seconds
        return ClientCall(self._client, plan, terms, MOST_BYTES, ended)

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

    def _told_message(self, then: Then, call: ClientCall) -> None:
        self._places.give(_ALL)
        message = grpc_message(call)
        then(message, call.failure)

    def _told_status(self, then: Then, call: ClientCall) -> None:
        self._places.give(_ALL)
        status = call.fields[0][1].decode() if not call.failure else ""
        if call.failure:
            then(None, call.failure)
        elif status.startswith("2"):
            then(bytes(call.body), "")
        else:
            then(None, f"it answers {status}")
