"""Connects requests and connections with servers: over tunnels to the endpoints of what was called, and as
they are with those that are not in the mesh, as the node proxies do.

An endpoint is chosen for each request. HTTP/1.1 takes a spare connection to it, or a new one; HTTP/2 shares
one. Connections are kept by endpoint and identity, and never used for another one.
"""

from __future__ import annotations

from functools import partial

from ztunnel.errors import (
    NoDestination,
    Overflow,
    TlsFailed,
)
from ztunnel.flow.compute import Computers
from ztunnel.flow.engine import Engine
from ztunnel.flow.held import HeldBytes
from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.l7.reply import CONNECT_FAILED, NO_HEALTHY_UPSTREAM
from ztunnel.model.address import IPAddress, OriginalDestination
from ztunnel.model.credential import Credential
from ztunnel.outbound.find import Tunnels
from ztunnel.waypoint.chain import Chain
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.rules.aim import Aim, Place, Terms
from ztunnel.waypoint.upstream.call import Call, Calling
from ztunnel.waypoint.upstream.clusters import WHOLE, Subset
from ztunnel.waypoint.upstream.dial import Dialling
from ztunnel.waypoint.upstream.find import Here, choose_for
from ztunnel.waypoint.upstream.load import Contexts
from ztunnel.waypoint.upstream.pick import Caller, Pick
from ztunnel.waypoint.upstream.pool1 import Http1Pools
from ztunnel.waypoint.upstream.pool2 import Http2Pools
from ztunnel.waypoint.upstream.secure import Securing
from ztunnel.waypoint.upstream.spot import (
    NOTHING,
    Both,
    Cancellable,
    Failed,
    Spot,
    Stands,
    limits_of,
    spot_of,
    unsupported_of,
    version_of,
)


class Servers:
    """The connections to servers, of all that is called through this waypoint."""

    def __init__(
        self, engine: Engine, tunnels: Tunnels, here: Here, held: HeldBytes, connect_seconds: float = 10.0
    ) -> None:
        self.engine = engine
        self._tunnels = tunnels
        self._here = here
        self._held = held
        self._connect_seconds = connect_seconds
        self._pools1 = Http1Pools(engine, self.call)
        self._pools2 = Http2Pools(engine, self.call)
        self._preparing: set[Cluster] = set()
        self._computers = Computers(engine, 1)
        self._contexts = Contexts(self._credential)

    def call(self, spot: Spot, stands: Stands, failed: Failed) -> Cancellable:
        """A connection with an endpoint: one of `stands` and `failed` is called, perhaps at once."""
        limits = spot.limits
        seconds = limits.connect_seconds or self._connect_seconds
        if spot.bare:
            failed(TlsFailed("DestinationRule tls: ISTIO_MUTUAL, and the endpoint is not in the mesh"))
            return NOTHING
        if spot.key.tls is None:
            return self._reach(spot, seconds, stands, failed)
        policy = spot.key.tls, spot.key.tls.sni or spot.name.removeprefix("*."), spot.protocol
        securing = Securing(self.engine, self._computers, self._contexts, policy, (stands, failed))
        reaching = self._reach(spot, seconds, partial(securing.start, seconds=seconds), failed)
        return Both(reaching, securing)

    def _credential(self, name: str) -> Credential | None:
        """What the control plane has sent of a Secret of our namespace; asked in the thread of handshakes."""
        here = self._here.workload
        return self._here.hold.world.credentials.get(f"{here.namespace}/{name}") if here is not None else None

    def _reach(self, spot: Spot, seconds: float, stands: Stands, failed: Failed) -> Cancellable:
        """The connection itself, or the tunnel."""
        target, limits = spot.target, spot.limits
        if target.head is None:
            network, ip = self._here.network, target.endpoint.ip
            share = self._held.share(network.cookie, ip)
            dialling = Dialling(self.engine, share, stands, failed)
            dialling.start(network.netns, target.endpoint, seconds, limits.keep_alive)
            return dialling
        calling = Calling(self._tunnels, self._here, target, stands, failed)
        if limits.connect_seconds:
            self.engine.after(seconds, calling.too_slow)
        self._tunnels.open(calling)
        return calling

    def pick(self, chain: Chain, caller: IPAddress) -> Call:
        """An endpoint for a connection of that caller.

        Raises:
            NoDestination: there is none; the message says why.
            Overflow: its service has as many as it may.
        """
        target, found = choose_for(self._here, chain, caller)
        if reason := unsupported_of(found.cluster):
            raise NoDestination(f"{chain.destination}: {reason}")
        spot = spot_of(target, found.cluster)
        asking = found.asking(self.engine)
        if asking is not None and not asking.connect():
            asking.end()
            raise Overflow(
                f"{chain.destination}: its service has as many connections as it may (maxConnections)"
            )
        return Call(self, spot, asking)

    def connect(self, exchange: Exchange, terms: Terms, version: int) -> None:
        """Find a server for an exchange; `version`: of HTTP, as the server's port says."""
        sought = exchange.plan.destination
        tries = exchange.tried
        tried = exchange.attempts.retries.after(tries) if tries else None
        subset = Subset(sought.subset, sought.labels) if sought is not None else WHOLE
        caller = Caller(terms.caller, exchange.request)
        pick = Pick(self._here.clusters, self._here.hold.world, caller, tried, subset)
        aim = terms.aims.of(self._here.hold.world, sought)
        place = self._again(aim, pick)
        if place is None:
            try:
                place = self._decide(aim, pick, terms.called)
            except NoDestination as error:
                exchange.unreachable(NO_HEALTHY_UPSTREAM, str(error))
                return
        exchange.tried = (*tries, place.target.endpoint)
        exchange.destination = place.target.destination
        exchange.host = place.text
        if reason := unsupported_of(pick.cluster):
            exchange.unreachable(CONNECT_FAILED, reason)
            return
        exchange.attempts.ask(pick.asking(self.engine))
        if pick.cluster is not None and pick.cluster.unready:
            self._prepare_later(pick.cluster)
        trace = exchange.request.trace
        if trace is not None and trace.sampled:  # a tunnel that is opened now is of its trace
            self._here.context = f"00-{trace.trace_id}-{trace.span_id}-01"
        if version_of(limits_of(pick.cluster), version, terms.version, bool(exchange.request.upgrade)) == 1:
            self._pools1.connect(exchange, place.spot1)
        else:
            self._pools2.connect(exchange, place.spot2)
        self._here.context = ""

    def _again(self, aim: Aim, pick: Pick) -> Place | None:
        """An endpoint of which all is known, if one is chosen."""
        kept, asked = aim.kept, aim.asked
        if kept is None or asked is None or kept.served is not aim.served:
            return None
        kept.used_at = self.engine.now
        host = pick.take(kept, asked)
        return aim.place(host) if host is not None else None

    def _decide(self, aim: Aim, pick: Pick, called: OriginalDestination) -> Place:
        """An endpoint, by the world of the moment. Raises NoDestination."""
        if aim.sought is None:
            target = self._here.choose(called, pick)
        else:
            target = self._here.choose_of(aim.sought, called, pick)
        place = Place(target, pick.cluster)
        if pick.fresh:
            aim.learn(pick, place)
        return place

    def close(self) -> None:
        """Nothing more is connected."""
        self._computers.close()

    def _prepare_later(self, cluster: Cluster) -> None:
        if not self._preparing:
            self.engine.next_round(self._prepare)
        self._preparing.add(cluster)

    def _prepare(self) -> None:
        """A part of what takes long (Maglev's tables), so that nobody waits for it."""
        self._preparing = {cluster for cluster in self._preparing if cluster.go_on()}
        if self._preparing:
            self.engine.next_round(self._prepare)

    def shed(self) -> None:
        """Close what is spare: nothing that would use it comes any more."""
        self._pools1.shed()
        self._pools2.shed()

    def look(self, now: float, idle_seconds: float) -> None:
        """Close what has been spare for so long, and see who is to be asked again."""
        self._here.clusters.look(now)
        self._pools1.look(now, idle_seconds)
        self._pools2.look(now, idle_seconds)
