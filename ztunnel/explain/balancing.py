"""How a waypoint chooses among the endpoints of a service, in words: what DestinationRules say of it."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.model.service import ServiceName
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, Pool, TlsMode, Traffic
from ztunnel.state.world import World


def balanced(world: World, namespace: str, name: ServiceName, port: int, subset: str = "") -> str:
    """A clause for each thing that they say of calls from that namespace; empty where they say nothing."""
    traffic = world.traffic.get(str(name))
    if traffic is None:
        return ""
    return "".join(f"; {each}" for each in _said(traffic.at(namespace, port, subset)))


def _said(traffic: Traffic) -> Iterator[str]:
    if traffic.unsupported:
        yield f"answered 503: DestinationRule {' and '.join(traffic.unsupported)} is not supported"
        return
    if traffic.balancing is not None:
        yield from _chosen(traffic.balancing)
    if traffic.outlier is not None and (
        count := traffic.outlier.server_errors or traffic.outlier.gateway_errors
    ):
        yield f"one that fails {count} times in a row is left out for a while"
    if traffic.pool is not None:
        yield from _limited(traffic.pool)
    if traffic.tls is not None and traffic.tls.mode is not TlsMode.DISABLE:
        yield f"TLS {traffic.tls.mode.name}"


def _chosen(balancing: Balancing) -> Iterator[str]:
    if balancing.by_hash is not None:
        yield f"endpoints by a hash of {_hashed(balancing.by_hash)}"
    elif balancing.simple is not None:
        simple = balancing.simple
        text = "the one called" if simple is Balance.PASSTHROUGH else simple.name
        yield f"endpoints by {text}"
    localities = balancing.localities
    if localities is not None and localities.enabled:
        if localities.distribute:
            yield "shared out over localities"
        elif localities.failover or localities.priorities:
            yield "near ones first"
    if balancing.warmup is not None:
        yield f"new ones get less for {balancing.warmup.seconds:g} s"


def _hashed(by: ConsistentHash) -> str:
    if by.header:
        return f"the header {by.header}"
    if by.cookie is not None:
        return f"the cookie {by.cookie.name}"
    return "the caller's address" if by.source_ip else f"the query parameter {by.query}"


def _limited(pool: Pool) -> Iterator[str]:
    limits = (
        (pool.connections, "connections"),
        (pool.requests, "requests at once"),
        (pool.pending_requests, "requests that wait"),
    )
    told = [f"{count} {what}" for count, what in limits if count]
    if told:
        yield f"at most {', '.join(told)}"
