"""The Gateway API's TCPRoute and TLSRoute read from manifests (apis/v1 tcproute_types.go, tlsroute_types.go).

Below a Service `hostnames` have no meaning: they are not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ztunnel.state.field import Field
from ztunnel.state.meta import Meta, read_meta
from ztunnel.state.route_filter import Backend, Reference, read_backends, read_parents

_SPEC: Final = ("hostnames", "parentRefs", "rules")
_RULE: Final = ("backendRefs", "name")


@dataclass(frozen=True, slots=True)
class BackendRule:
    """An entry of `rules`: it has no matches."""

    name: str
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True)
class TCPRoute:
    """A TCPRoute."""

    meta: Meta
    parents: tuple[Reference, ...] = ()
    rules: tuple[BackendRule, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSRoute:
    """A TLSRoute, of connections that are passed on as they are."""

    meta: Meta
    parents: tuple[Reference, ...] = ()
    rules: tuple[BackendRule, ...] = ()


def read_tcp_route(root: Field) -> TCPRoute:
    """gateway.networking.k8s.io TCPRoute."""
    return TCPRoute(read_meta(root), *_read(root))


def read_tls_route(root: Field) -> TLSRoute:
    """gateway.networking.k8s.io TLSRoute."""
    return TLSRoute(read_meta(root), *_read(root))


def _read(root: Field) -> tuple[tuple[Reference, ...], tuple[BackendRule, ...]]:
    spec = root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return (), ()
    spec.only(_SPEC, similar_to=_SPEC)
    rules = []
    for place in spec.each("rules"):
        place.only(_RULE, similar_to=_RULE)
        rules.append(BackendRule(place.text("name"), read_backends(place)))
    return read_parents(spec), tuple(rules)
