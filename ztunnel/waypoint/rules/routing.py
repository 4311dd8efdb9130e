"""Which plan the requests through one tunnel have: by the routes of the service that it leads to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.l7.chance import Rng
from ztunnel.l7.reply import BROKEN_ROUTES, FORBIDDEN_UPGRADE, NO_CLUSTER, Reply
from ztunnel.l7.routing.plan import NO_FACTS, UNROUTED, Plan, plan
from ztunnel.l7.routing.router import Router, decide_about
from ztunnel.l7.substitution import Facts
from ztunnel.model.connection import Connection
from ztunnel.model.route import Routes, RouteSource
from ztunnel.model.route_action import Destination
from ztunnel.model.service import Service
from ztunnel.state.world import World
from ztunnel.waypoint.chain import Chain, http_version
from ztunnel.waypoint.exchange.exchange import Exchange

_MOST_KEPT: Final = 4096
"""Services whose routes are kept compiled; then it starts afresh."""


class Routers:
    """Compiled routes, of all services that are called through a waypoint: each port's once, for as long as
    the routes stay what they are.

    Attributes:
        broken: why the routes of a service cannot be compiled, which a control plane of ours does not serve.
        behind: somebody compiles routes that have changed (`keep`), and until then those from before count: a
            thousand rules take longer than the engine may stand still.
        unrouted: what becomes of requests to services that have none.
    """

    def __init__(self) -> None:
        self.unrouted = UNROUTED
        self.broken: dict[str, str] = {}
        self.behind = False
        self._kept: dict[str, dict[int, tuple[Routes, Router | None]]] = {}

    def of(self, routes: Routes, port: int) -> Router | None:
        """Those of one port; None: they cannot be compiled."""
        kept = self._kept.get(routes.key, _NONE).get(port)
        if kept is not None and (kept[0] is routes or self.behind):
            return kept[1]
        router, why = compiled(routes, port)
        self.keep(routes, port, router, why)
        return router

    def ports(self, key: str) -> list[int]:
        """Those of a service at which routes were asked for."""
        return list(self._kept.get(key, _NONE))

    def keep(self, routes: Routes, port: int, router: Router | None, why: str) -> None:
        """These are what counts from now on; `why` there is none."""
        if routes.key not in self._kept and len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
            self.broken.clear()
        self._kept.setdefault(routes.key, {})[port] = routes, router
        self.broken.pop(routes.key, None)
        if router is None:
            self.broken[routes.key] = why


_NONE: dict[int, tuple[Routes, Router | None]] = {}


def compiled(routes: Routes, port: int) -> tuple[Router | None, str]:
    """The routes of a port; None, and why: they cannot be compiled."""
    try:
        return Router(routes, port), ""
    except ValueError as error:
        return None, str(error)


Then = Callable[[Exchange, Plan, RouteSource | None], None]
"""Goes on with a request by its plan, and by what has the rule that made it."""


def proceed(exchange: Exchange, made: Plan, source: RouteSource | None) -> None:
    """Nothing else is asked."""
    exchange.proceed(made)


class Routing:
    """That of one tunnel."""

    def __init__(self, routers: Routers, service: Service | None, port: int, facts: Facts, rng: Rng) -> None:
        """`service` and `port` were called; `facts` is what is known of all requests in the tunnel."""
        self._routers = routers
        self._name = str(service.key) if service is not None else ""
        self._port = port
        self._facts = facts
        self._rng = rng

    def begin(self, world: World, exchange: Exchange, then: Then = proceed) -> None:
        """Say what becomes of an exchange: it is answered, or `then` is called."""
        request = exchange.request
        routes = world.routes.get(self._name) if self._name else None
        if routes is None:
            unrouted = self._routers.unrouted if self._name else UNROUTED
            then(exchange, unrouted.of(request), None)
            return
        router = self._routers.of(routes, self._port)
        if router is None:
            exchange.reply(BROKEN_ROUTES)
        elif router.empty:
            then(exchange, self._routers.unrouted.of(request), None)
        else:
            route = decide_about(router, exchange.matched or request)
            made = plan(route, request, self._facts, self._port, self._rng)
            if made.destination is not None:
                exchange.service = world.service(made.destination.service)
                exchange.cluster = cluster_of(made.destination, self._port)
            then(exchange, made, route.rule.source if route is not None else None)


def routing_of(routers: Routers, chain: Chain, connection: Connection, rng: Rng) -> Routing:
    """That of a tunnel in which `chain` is called, by whom `connection` says."""
    facts = NO_FACTS._replace(
        remote=str(connection.source), local=str(chain.destination), principal=str(connection.identity)
    )
    return Routing(routers, chain.service, chain.destination.port, facts, rng)


def cluster_of(destination: Destination, called: int) -> str:
    """What Envoy at Istio's waypoint calls the upstreams of it."""
    subset = f"http/{destination.subset}" if destination.subset else "http"
    return f"inbound-vip|{destination.port or called}|{subset}|{destination.service.hostname}"


class Unserved(Exception):
    """A request can be sent nowhere; it is answered so, for the reason that the message says."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


def version_for(world: World, chain: Chain, exchange: Exchange, asked: int) -> int:
    """The version of HTTP that its server is asked in, where the client asked in version `asked`: what the
    port says that it is sent to.

    Raises:
        Unserved: there is no such port, or it cannot be asked for this.
    """
    request, protocol = exchange.request, chain.protocol
    destination = exchange.plan.destination
    if destination is not None:
        port = destination.port or chain.destination.port
        service = world.service(destination.service)
        if service is None or all(each.service != port for each in service.ports):
            raise Unserved(NO_CLUSTER, f"{destination.service} has no port {port}, or is not known")
        protocol = service.protocol(port)
    version = http_version(protocol, asked, exchange.is_grpc)
    if request.upgrade and version == 2:
        raise Unserved(FORBIDDEN_UPGRADE, "the server's port speaks HTTP/2")
    return version
