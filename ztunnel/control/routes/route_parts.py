"""What becomes of one object that routes, before it is joined with others of the same service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.control.routes.hosts import covers
from ztunnel.model.route import ConnectionRule, Rule


class Why(StrEnum):
    """Kinds of problems. The values are reasons of the Gateway API's conditions, or Istio's names of what its
    analyzers find (pkg/config/analysis/msg/messages.yaml)."""

    BACKEND_NOT_FOUND = "BackendNotFound"
    INVALID_KIND = "InvalidKind"
    NOT_PERMITTED = "RefNotPermitted"
    UNSUPPORTED = "UnsupportedValue"
    INCOMPATIBLE = "IncompatibleFilters"
    NOT_FOUND = "ReferencedResourceNotFound"
    PORT_REQUIRED = "VirtualServiceDestinationPortSelectorRequired"
    UNREACHABLE = "VirtualServiceUnreachableRule"
    INEFFECTIVE = "VirtualServiceIneffectiveMatch"
    CONFLICT = "ConflictingMeshGatewayVirtualServiceHosts"
    NOWHERE = "RouteWithoutEffect"
    REMARK = "Remark"


UNRESOLVED = frozenset((Why.BACKEND_NOT_FOUND, Why.INVALID_KIND, Why.NOT_PERMITTED))
"""Those of references of the Gateway API."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about an object that is not as it may be meant. `field` is where, as faults name it."""

    why: Why
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


@dataclass(frozen=True, slots=True)
class NamedRule:
    """A rule for connections, and for which services it is: those with one of these hosts, which its SNI
    names and which may begin with `*`; none: for all."""

    rule: ConnectionRule
    hosts: tuple[str, ...] = ()

    def is_for(self, host: str) -> bool:
        """Whether it is one for the service with that host. The name that a client says is not looked at: it
        is the service's (istio/istio pilot/pkg/networking/core/listener_waypoint.go)."""
        return not self.hosts or any(covers(each, host) for each in self.hosts)


@dataclass(frozen=True, slots=True)
class Converted:
    """Its rules, in its own order, without the ports of what it is attached to."""

    rules: tuple[Rule, ...] = ()
    problems: tuple[Problem, ...] = ()
    connections: tuple[NamedRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.connections)


NOTHING = Converted()
