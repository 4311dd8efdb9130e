"""Opens the ports of the node's own pages, and serves them."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import trio

from ztunnel.config import Settings
from ztunnel.errors import ConfigError
from ztunnel.model.address import Endpoint
from ztunnel.pages import listen as http_listen
from ztunnel.pages.message import JSON, Request, Response, Route, text
from ztunnel.run.build import Proxy
from ztunnel.run.reporting import Reporting
from ztunnel.telemetry.serve import Admin, Scrape, serve_admin, serve_metrics, serve_readiness


@dataclass(frozen=True, slots=True)
class Listeners:
    """The sockets of the three servers, open from `listen` to `close`."""

    metrics: trio.SocketListener
    readiness: trio.SocketListener
    admin: trio.SocketListener
    handed_over: trio.Event = field(default_factory=trio.Event)
    """A successor has the same sockets, and answers."""

    def filenos(self) -> list[int]:
        """Their descriptors, in this order."""
        return [each.socket.fileno() for each in (self.metrics, self.readiness, self.admin)]

    def close(self) -> None:
        """Close those that are open."""
        for each in (self.metrics, self.readiness, self.admin):
            each.socket.close()


async def listen(settings: Settings) -> Listeners:
    """Listeners for metrics, readiness and admin; all or none.

    Raises:
        ConfigError: an address cannot be had; says which one, why, and which variable sets it.
    """
    with ExitStack() as undo:
        opened = []
        for name in ("metrics", "readiness", "admin"):
            address: Endpoint = getattr(settings, f"{name}_address")
            variable = f"ZTUNNEL_{name.upper()}_ADDRESS"
            listener = await http_listen.listen(name, address, variable, settings.ipv6)
            undo.callback(listener.socket.close)
            opened.append(listener)
        undo.pop_all()
    metrics, readiness, admin = opened
    return Listeners(metrics, readiness, admin)


def inherit(sockets: Sequence[socket.socket]) -> Listeners:
    """Those that a predecessor has handed over."""
    metrics, readiness, admin = (
        trio.SocketListener(trio.socket.from_stdlib_socket(each)) for each in sockets
    )
    return Listeners(metrics, readiness, admin)


def are_taken(error: ConfigError) -> bool:
    """Whether `listen` failed because somebody listens there."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE


async def serve_public(reporting: Reporting, listeners: Listeners) -> None:
    """Metrics and readiness: from the start of the process, whatever it still waits for. Until cancelled."""
    scrape = Scrape(reporting.metrics, reporting.figures)
    metrics = partial(serve_metrics, [listeners.metrics], scrape, reporting.boundary)
    readiness = partial(serve_readiness, [listeners.readiness], reporting.readiness, reporting.boundary)
    await _serve(listeners, metrics, readiness)


class Orders(NamedTuple):
    """What the admin page does: `dump` shows the configuration (`telemetry.serve.Admin`), `stop` ends the
    process, `drain` only refuses what is new."""

    dump: Callable[[], Callable[[], object]]
    stop: Callable[[], None]
    drain: Callable[[], None]


async def serve_private(node: Proxy, listeners: Listeners, orders: Orders) -> None:
    """The admin page, until cancelled."""
    pages = {"/explain": Route(("GET",), partial(_explain, node))}
    admin = Admin(orders.dump, node.reporting.levels, orders.stop, orders.drain, pages)
    await _serve(listeners, partial(serve_admin, [listeners.admin], admin, node.reporting.boundary))


async def _serve(listeners: Listeners, *servers: Callable[[], Awaitable[object]]) -> None:
    """Until cancelled, or handed over."""
    async with trio.open_nursery() as nursery:
        for server in servers:
            nursery.start_soon(server)
        await listeners.handed_over.wait()
        nursery.cancel_scope.cancel()


async def _explain(node: Proxy, request: Request) -> Response:
    """`?from=shop/frontend&to=orders.shop:80`: what would become of that call, by the world as it is here.

    The work is bounded by the policies that concern a few endpoints, and done in a worker thread. What does
    it knows waypoints too, and is imported where it is asked for.
    """
    from ztunnel.explain.explanation import explain_call
    from ztunnel.explain.names import Unknown, find_call
    from ztunnel.explain.text import as_text, as_values

    source, destination = request.query.get("from", ""), request.query.get("to", "")
    if not source or not destination:
        return text(400, "which call? Ask for /explain?from=<namespace>/<pod>&to=<service or pod>:<port>\n")

    def work_out() -> bytes:
        world = node.hold.world
        explanation = explain_call(world, find_call(world, source, destination), node.outbound.mesh.same_node)
        return json.dumps({**as_values(explanation), "text": as_text(explanation)}, indent=2).encode()

    try:
        return Response(200, await trio.to_thread.run_sync(work_out), JSON)
    except Unknown as error:
        return text(404, f"{error}\n")
