"""Picks an endpoint of a service for one try."""

from __future__ import annotations

from typing import Final

from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.l7.balancing.hash_key import NO_KEY, HashKey, hash_key
from ztunnel.l7.balancing.host import Host
from ztunnel.l7.balancing.tried import Tried
from ztunnel.l7.chance import Rng
from ztunnel.l7.request import Request
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash
from ztunnel.model.workload import Workload
from ztunnel.state.balancer import Choice
from ztunnel.state.world import Served, World
from ztunnel.waypoint.upstream.asking import Asking, Clock
from ztunnel.waypoint.upstream.clusters import WHOLE, Clusters, Kept, Subset

_BY_ADDRESS: Final = ConsistentHash(source_ip=True)


class Caller:
    """Who asks, and what: `request` is None for a connection that is passed on."""

    __slots__ = ("request", "source")

    def __init__(self, source: IPAddress, request: Request | None = None) -> None:
        self.source = source
        self.request = request


class Pick:
    """The choice for one try.

    Attributes:
        kept, cluster: what was chosen from; None: it is no service that was called.
        asked: the address and port that the service was asked at.
        fresh: whether the cluster's endpoints are those that the service has now.
        host: that was chosen.
        key: of the request, by which it was.
    """

    __slots__ = (
        "_caller", "_clusters", "_rng", "_subset", "_tried", "_world", "asked", "cluster", "fresh", "host",
        "kept", "key",
    )  # fmt: skip

    def __init__(
        self,
        clusters: Clusters,
        world: World,
        caller: Caller,
        tried: Tried | None = None,
        subset: Subset = WHOLE,
    ) -> None:
        self._clusters = clusters
        self._rng: Rng = clusters.rng
        self._world = world
        self._caller = caller
        self._tried = tried
        self._subset = subset
        self.kept: Kept | None = None
        self.cluster: Cluster | None = None
        self.asked: Endpoint | None = None
        self.fresh = False
        self.host: Host | None = None
        self.key: HashKey = NO_KEY

    def choose(self, served: Served, asked: Endpoint, source: Workload) -> Choice | None:
        """An endpoint of a service; None: there is none that may be chosen."""
        if served.service is None:
            return None
        whole = self._world.served.get(served.service.key, served)
        choice = self._choose(whole, asked, source)
        there = choice is not None and self._world.workload(choice.workload.uid) is choice.workload
        if not there and self._clusters.renew(whole, asked, self._subset):
            self.host = None
            choice = self._choose(whole, asked, source)
        return choice

    def _choose(self, served: Served, asked: Endpoint, source: Workload) -> Choice | None:
        kept = self._clusters.find(self._world, served, asked, source, self._subset)
        self.asked, self.fresh = asked, kept.served is served
        host = self.host if kept is self.kept else None  # it had its turn, and is not passed over
        if host is None:
            host = self.take(kept, asked)
        return kept.choices.get(host.endpoint) if host is not None else None

    def take(self, kept: Kept, asked: Endpoint) -> Host | None:
        """An endpoint of a cluster; None: there is none that may be chosen."""
        cluster = kept.cluster
        self.kept, self.cluster = kept, cluster
        balancing = cluster.traffic.balancing
        if balancing is not None and balancing.by_hash is not None:
            self.key = self._hash(balancing.by_hash)
        host = _called(cluster, asked, balancing)
        if host is None:
            host = cluster.pick(self.key.key, self._tried, self._clusters.now())
        self.host = host
        return host

    def _hash(self, by: ConsistentHash) -> HashKey:
        """A connection has no request, so that it is hashed by its client's address or not at all."""
        caller = self._caller
        if caller.request is not None:
            return hash_key(by, caller.request, caller.source, self._rng)
        if by.source_ip:
            return hash_key(_BY_ADDRESS, _NOTHING, caller.source, self._rng)
        return NO_KEY

    def asking(self, clock: Clock) -> Asking | None:
        """The try that follows; None: nobody counts."""
        if self.cluster is None or self.host is None:
            return None
        return Asking(self.cluster, self.host, clock, self.key.cookie)


def _called(cluster: Cluster, asked: Endpoint, balancing: Balancing | None) -> Host | None:
    """With PASSTHROUGH the endpoint that was called by its own address, unless it is ejected."""
    if balancing is None or balancing.simple is not Balance.PASSTHROUGH:
        return None
    host = cluster.hosts.get(asked)
    return host if host is not None and host.available else None


_NOTHING: Final = Request(b"", b"", b"", [])
