"""Requests for the endpoints of one cluster, on connections that are made when the test says so."""

from __future__ import annotations

from dataclasses import dataclass

from tests.l7.hosts import endpoint, workload
from tests.waypoint.rig import Clock, Rig, Wire
from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.l7.balancing.cluster import Cluster, Member
from ztunnel.l7.request import Request
from ztunnel.model.traffic import Outlier, Pool, Traffic
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.shadow import Nobody
from ztunnel.waypoint.upstream.asking import Asking
from ztunnel.waypoint.upstream.find import Target
from ztunnel.waypoint.upstream.spot import Failed, Spot, Stands, spot_of


class Stream(Wire):
    """A wire that somebody is attached to."""

    def attach(self, receiver) -> None:
        self.receiver = receiver


@dataclass
class Call:
    """A connection that is wanted."""

    spot: Spot
    stands: Stands
    failed: Failed

    def cancel(self) -> None:
        raise AssertionError("nobody cancels it")

    def stand(self) -> Stream:
        stream = Stream()
        self.stands(stream)
        return stream

    def fail(self, error: ConnectionFailed | None = None) -> None:
        self.failed(error or Unreachable("connection failed: refused"))


class Pooled(Rig):
    """Requests that go to one endpoint after the other, as `to` says."""

    def __init__(self, pools, pool: Pool | None = None, outlier: Outlier | None = None) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.at = 0
        self.cluster = Cluster(self.way_rng, Circuit())
        self.cluster.configure(Traffic(pool=pool, outlier=outlier), self.clock.now)
        self.cluster.replace([Member(endpoint(number), workload(number)) for number in range(2)], 0.0)
        self.pools = pools(self.clock, self.call)

    way_rng = type("Even", (), {"random": staticmethod(lambda: 0.5)})()

    def call(self, spot: Spot, stands: Stands, failed: Failed) -> Call:
        self.calls.append(Call(spot, stands, failed))
        return self.calls[-1]

    def connect(self, exchange: Exchange) -> None:
        host = self.cluster.hosts[endpoint(self.at)]
        exchange.attempts.ask(Asking(self.cluster, host, self.clock))
        self.pools.connect(exchange, spot_of(Target(None, None, host.endpoint, None), self.cluster))

    def ask(self, path: bytes = b"/", to: int = 0) -> Exchange:
        """A request without a body."""
        self.at = to
        request = Request(b"GET", b"a", path, [])
        exchange = Exchange(self.way, Nobody(), request)
        exchange.start(True)
        return exchange

    def used(self, limit: Limit) -> int:
        return self.cluster.circuit.used[limit]

    @property
    def idle(self) -> bool:
        """Whether nothing is under way or waits."""
        circuit = self.cluster.circuit
        busy = circuit.used[Limit.PENDING] or circuit.used[Limit.REQUESTS]
        return not busy and not any(host.active for host in self.cluster.hosts.values())


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
FAIL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"

__all__ = ["FAIL", "OK", "Call", "Clock", "Pooled", "Stream"]
