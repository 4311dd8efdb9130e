"""The routes of a service: what Istio's VirtualService and the Gateway API's HTTPRoute and GRPCRoute come to.

```
Routes of a service ── Rule ── Match        which requests, of which ports (route_match)
                       │
                       ├────── Action       sent on, redirected, answered   (route_action)
                       └────── timeouts, Retry, Fault, Mirror, Cors         (route_policy)
```

The first rule that is for a request decides about it. Where a port of the service has rules and none is for
it, there is no route: 404. A port that has none is served as if there were no routes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.model.address import IPAddress, IPNetwork
from ztunnel.model.route_action import NO_EDITS, Action, Edits, Forward, Rewrite
from ztunnel.model.route_match import Match
from ztunnel.model.route_policy import Cors, Fault, Mirror, Retry
from ztunnel.model.service import ServiceName


@dataclass(frozen=True, slots=True)
class RouteSource:
    """The object that a rule comes from. Prints as `HTTPRoute shop/reviews`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of an object, in the place that its object's own precedence gives it.

    Attributes:
        name: of the rule (ROUTE_NAME of the log); empty where its object gives it none.
        source: where it comes from.
        action: what becomes of requests that it is for.
        matches: any of them will do; none: it is for all requests of all ports.
        edits: of headers; those of the response hold for redirects and direct responses, too.
        rewrite: of what is sent on.
        timeout_seconds: for the response to be whole, over all tries, once the request is; 0: none.
        try_timeout_seconds: the same, of each try; 0: none.
        retry: None: there is no other try.
    """

    name: str
    source: RouteSource
    action: Action
    matches: tuple[Match, ...] = ()
    edits: Edits = NO_EDITS
    rewrite: Rewrite | None = None
    timeout_seconds: float = 0.0
    try_timeout_seconds: float = 0.0
    retry: Retry | None = None
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None

    def __post_init__(self) -> None:
        if self.timeout_seconds < 0 or self.try_timeout_seconds < 0:
            raise ValueError("a timeout is not negative")
        if not isinstance(self.action, Forward) and (self.rewrite or self.retry or self.mirrors):
            raise ValueError("only what is sent on is rewritten, tried again and mirrored")

    def is_at(self, port: int) -> bool:
        """Whether it is one for requests to that port of its service."""
        return not self.matches or any(match.is_at(port) for match in self.matches)


@dataclass(frozen=True, slots=True)
class ConnectionRule:
    """One for connections to ports that speak no HTTP: VirtualService's `tcp` and `tls`, TCPRoute, TLSRoute.

    Attributes:
        name: of the rule; empty where its object gives it none.
        source: where it comes from.
        forward: where connections are sent, by weight; a destination with a refusal ends them.
        ports: of the service, at which it is one at all; none: at all of them.
        subnets: in one of which the address is that was called; none: any will do.
    """

    name: str
    source: RouteSource
    forward: Forward
    ports: tuple[int, ...] = ()
    subnets: tuple[IPNetwork, ...] = ()

    def __post_init__(self) -> None:
        if any(not 0 < port < 65536 for port in self.ports):
            raise ValueError(f"not ports: {self.ports}")

    def is_for(self, ip: IPAddress, port: int) -> bool:
        """Whether it is one for connections to that address and port of its service."""
        if self.ports and port not in self.ports:
            return False
        return not self.subnets or any(ip in each for each in self.subnets)


@dataclass(frozen=True, slots=True)
class Routes:
    """The rules of one service, those for requests and those for connections, in the order in which they are
    asked."""

    service: ServiceName
    rules: tuple[Rule, ...]
    connections: tuple[ConnectionRule, ...] = ()

    @property
    def key(self) -> str:
        """The service's `namespace/hostname`."""
        return str(self.service)

    def connection(self, ip: IPAddress, port: int) -> ConnectionRule | None:
        """The rule for a connection that speaks no HTTP; None: it goes where it would without routes."""
        return next((rule for rule in self.connections if rule.is_for(ip, port)), None)

    def at(self, port: int) -> tuple[Rule, ...]:
        """Those that can be for a request to that port."""
        return tuple(rule for rule in self.rules if rule.is_at(port))
