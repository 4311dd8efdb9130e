"""An endpoint that is asked, once: what its cluster is to hear of that."""

from __future__ import annotations

from typing import Final, Protocol

from ztunnel.http1.head import Fields
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.l7.balancing.host import Host
from ztunnel.l7.balancing.outlier import status_of_grpc

_FAILURES: Final = frozenset(("UF", "UC", "UR", "UPE", "UT"))
"""By the flags of their replies, what an endpoint has failed by. Limits and policies are not its fault."""


class Clock(Protocol):
    """The engine, as far as it concerns this."""

    now: float


class Asking:
    """One try of one request, or one connection: from the choice of the endpoint until it is over.

    Attributes:
        cookie: a `set-cookie` for the response; empty: none.
        circuit: of the endpoint's cluster.
    """

    __slots__ = (
        "_clock",
        "_cluster",
        "_connects",
        "_holds",
        "_host",
        "_over",
        "_settled",
        "circuit",
        "cookie",
    )

    def __init__(self, cluster: Cluster, host: Host, clock: Clock, cookie: bytes = b"") -> None:
        self._cluster = cluster
        self._host = host
        self._clock = clock
        self._holds = False
        self._connects = False
        self._settled = False
        self._over = False
        self.cookie = cookie
        self.circuit: Circuit = cluster.circuit
        host.active += 1

    def begin(self) -> bool:
        """A connection is there for the request; whether it may be sent (http2MaxRequests)."""
        self._holds = self.circuit.take(Limit.REQUESTS)
        if self._holds:
            self.circuit.sent(self._clock.now)
        return self._holds

    def retry(self) -> bool:
        """Whether its cluster lets there be one more retry at once (maxRetries, retryBudget), which counts
        until it is given back to `circuit`."""
        return self.circuit.take(Limit.RETRIES, self._clock.now)

    def connect(self) -> bool:
        """It is a connection that is passed on, which counts among its cluster's (maxConnections) until it is
        over; whether there may be one more."""
        self._connects = self.circuit.take(Limit.CONNECTIONS)
        return self._connects

    def connected(self) -> None:
        """That connection stands."""
        self._settle(200)

    def responded(self, fields: Fields, grpc: bool, end: bool) -> None:
        """A response has begun, of which `:status` is the first field. That of a call of gRPC says in its
        trailers how it ended, unless this is the `end`, or it is none of gRPC."""
        status = int(fields[0][1])
        if grpc and status == 200:
            said = dict(fields).get(b"grpc-status", b"")
            if said:
                self._settle(status_of_grpc(_number(said)))
            elif end:
                self._settle(status_of_grpc(2))
        else:
            self._settle(status)

    def ended(self, trailers: Fields) -> None:
        """The response is whole."""
        said = dict(trailers).get(b"grpc-status", b"")
        self._settle(status_of_grpc(_number(said)) if said else 200)

    def lost(self, flag: str) -> None:
        """It was not answered, and would be answered with that flag."""
        if flag in _FAILURES and not self._settled and not self._over:
            self._settled = True
            self._cluster.failed(self._host, flag == "UT", self._clock.now)

    def _settle(self, status: int) -> None:
        if not self._settled and not self._over:
            self._settled = True
            self._cluster.responded(self._host, status, self._clock.now)

    def end(self) -> None:
        """It is over."""
        if not self._over:
            self._over = True
            self._host.active -= 1
            if self._holds:
                self.circuit.give(Limit.REQUESTS)
            if self._connects:
                self.circuit.give(Limit.CONNECTIONS)


def _number(said: bytes) -> int:
    return int(said) if said.isdigit() and len(said) < 4 else 2
