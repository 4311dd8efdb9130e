"""Where connections for requests are kept: with which endpoint, of which cluster, under which limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.transport import Receiver, Transport
from ztunnel.hbone.pool import PoolKey
from ztunnel.hbone.request import RequestHead
from ztunnel.l7.balancing.circuit import Limit
from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.model.address import Endpoint
from ztunnel.model.service import Service
from ztunnel.model.traffic import ClientTls, Pool, TlsMode, Upgrade
from ztunnel.model.workload import Workload

NO_LIMITS: Final = Pool()
_ORIGINATED: Final = (TlsMode.SIMPLE, TlsMode.MUTUAL)


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request or connection goes.

    Attributes:
        key: which sessions may carry it; None: it is not in the mesh, and called as it is.
        head: the CONNECT.
        endpoint: the application's.
        destination: whose that is, where it is known.
        service: that was called; None: an address.
    """

    key: PoolKey | None
    head: RequestHead | None
    endpoint: Endpoint
    destination: Workload | None
    service: Service | None = None


class Stream(Transport, Protocol):
    """A transport that somebody is attached to."""

    def attach(self, receiver: Receiver) -> None:
        """Give it what comes."""


Stands = Callable[[Stream], None]
Failed = Callable[[ConnectionFailed], None]


class Cancellable(Protocol):
    """What is under way."""

    def cancel(self) -> None:
        """It is not wanted any more."""


class Key:
    """Connections of one key are for each other's requests, those of others never are. It is looked up for
    each request, and knows its hash."""

    __slots__ = ("_hash", "cluster", "endpoint", "pool", "tls")

    def __init__(
        self,
        pool: PoolKey | None,
        endpoint: Endpoint,
        cluster: Cluster | None,
        tls: ClientTls | None = None,
    ) -> None:
        self.pool = pool
        self.endpoint = endpoint
        self.cluster = cluster
        self.tls = tls
        self._hash = hash((pool, endpoint, cluster, tls))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return False
        alike = self.cluster is other.cluster and self.endpoint == other.endpoint
        return alike and self.pool == other.pool and self.tls == other.tls


class Spot:
    """One endpoint, as it is called. `name`: of the service; `protocol`: by the name that TLS has for it
    (ALPN), empty: none."""

    __slots__ = ("key", "name", "protocol", "target")

    def __init__(self, key: Key, target: Target, name: str = "", protocol: str = "") -> None:
        self.key = key
        self.target = target
        self.name = name
        self.protocol = protocol

    @property
    def bare(self) -> bool:
        """Whether its cluster asks for the mesh's own TLS, and it is not in the mesh."""
        cluster = self.key.cluster
        tls = cluster.traffic.tls if cluster is not None else None
        return tls is not None and tls.mode is TlsMode.ISTIO_MUTUAL and self.target.head is None

    @property
    def limits(self) -> Pool:
        """Of its cluster."""
        return limits_of(self.key.cluster)

    def take_connection(self, first: bool) -> bool:
        """Whether its cluster may have one connection more, which is counted then; the `first` with an
        endpoint always may be."""
        cluster = self.key.cluster
        if cluster is None:
            return True
        if first:
            cluster.circuit.force(Limit.CONNECTIONS)
            return True
        return cluster.circuit.take(Limit.CONNECTIONS)

    def give_connection(self) -> None:
        """A connection that was counted is none any more."""
        cluster = self.key.cluster
        if cluster is not None:
            cluster.circuit.give(Limit.CONNECTIONS)

    def is_old(self, born: float, now: float) -> bool:
        """Whether a connection is as old as it may become."""
        seconds = self.limits.connection_seconds
        return bool(seconds) and now - born > seconds

    def is_late(self, born: float, since: float, now: float) -> bool:
        """Whether a connection that is idle since then is as old as it may become, or has been idle for as
        long as its cluster says: a server that closes it a little later would lose the next request."""
        limits = self.limits
        idle, old = limits.http_idle_seconds or limits.idle_seconds, limits.connection_seconds
        return (idle > 0 and now - since > idle) or (old > 0 and now - born > old)

    def idle_seconds(self, usual: float) -> float:
        """For how long a connection may be idle: `usual`, unless its cluster says another time."""
        limits = self.limits
        return limits.http_idle_seconds or limits.idle_seconds or usual


class _Nothing:
    """Stands for what is over already."""

    def cancel(self) -> None:
        """There is nothing."""


NOTHING: Final = _Nothing()


class Both:
    """Two things that are under way for one end."""

    def __init__(self, one: Cancellable, other: Cancellable) -> None:
        self._both = one, other

    def cancel(self) -> None:
        """They are not wanted any more."""
        for each in self._both:
            each.cancel()


def limits_of(cluster: Cluster | None) -> Pool:
    """Those of a cluster."""
    pool = cluster.traffic.pool if cluster is not None else None
    return pool if pool is not None else NO_LIMITS


def unsupported_of(cluster: Cluster | None) -> str:
    """Why nobody of a cluster is called: what its policies ask for and nobody can do; empty: nothing is."""
    names = cluster.traffic.unsupported if cluster is not None else ()
    return f"DestinationRule {' and '.join(names)}: not supported" if names else ""


def version_of(limits: Pool, port: int, client: int, switches: bool) -> int:
    """The version of HTTP in which a cluster with these limits is asked (istio/istio shouldH2Upgrade).

    Args:
        limits: the cluster's.
        port: as its port says.
        client: in which the client asks.
        switches: the request wants another protocol.
    """
    if limits.client_protocol:
        return client
    return 2 if limits.upgrade is Upgrade.ALWAYS and not switches else port


def spot_of(target: Target, cluster: Cluster | None, protocol: str = "") -> Spot:
    """That of a target."""
    service = target.service
    tls = cluster.traffic.tls if cluster is not None else None
    if tls is not None and tls.mode not in _ORIGINATED:
        tls = None
    elif tls is not None and not tls.subject_alt_names and service is not None and target.head is None:
        tls = replace(tls, subject_alt_names=service.subject_alt_names)  # of its ServiceEntry
    name = service.hostname if service is not None else ""
    return Spot(Key(target.key, target.endpoint, cluster, tls), target, name, protocol)
