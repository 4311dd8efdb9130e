"""Traffic policies of services as messages of ztunnel.http, both ways.

A message that says something which makes no sense here is refused as a whole: the version before stays in
force.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

from ztunnel.errors import PeerError
from ztunnel.model.service import ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ClientTls,
    ConsistentHash,
    HashCookie,
    KeepAlive,
    Localities,
    Outlier,
    Pings,
    Pool,
    PortTraffic,
    RetryBudget,
    Spread,
    TlsMode,
    Traffic,
    Upgrade,
    Warmup,
)
from ztunnel.xds.pb import traffic_pb2 as pb
from ztunnel.xds.record import LISTED, OPTIONAL, PAIRS, PLAIN, EnumOf, Listed, Many, Maybe, Plain, Record

MOST_RING: Final = 8 << 20
MOST_TABLE: Final = 5_000_011
"""Places of a ring and of a table (Envoy)."""


class _Simple:
    """An algorithm; None where none is said."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it, if it is there."""
        if value is not None:
            setattr(message, name, value.value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError: it is not known."""
        return Balance(getattr(untrusted, name)) if untrusted.HasField(name) else None


class _Seconds(Plain):
    """A time that is not negative."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = getattr(untrusted, name)
        if not isfinite(found) or found < 0:
            raise ValueError(f"{name}: not a time: {found}")
        return found


class _Positive(_Seconds):
    """A time that is more than nothing."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = super().get(untrusted, name)
        if not found:
            raise ValueError(f"{name}: more than nothing")
        return found


class _AtMost(Plain):
    """A number up to another one."""

    def __init__(self, most: float) -> None:
        self._most = most

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = getattr(untrusted, name)
        if not 0 <= found <= self._most:
            raise ValueError(f"{name}: from 0 to {self._most}, not {found}")
        return found


class _Shares:
    """Localities with their percentages, as pairs."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        for locality, percent in value:
            getattr(message, name).add(locality=locality, percent=percent)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them."""
        return tuple((each.locality, each.percent) for each in getattr(untrusted, name))


class _Ports:
    """Policies of ports, as pairs."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        for port, traffic in value:
            getattr(message, name).add(port=port, traffic=_TRAFFIC.render(traffic))

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them."""
        return tuple((each.port, _TRAFFIC.parse(each.traffic)) for each in getattr(untrusted, name))


class _Codes(Listed):
    """Statuses of HTTP, as a tuple."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them. Raises ValueError."""
        found = super().get(untrusted, name)
        if wrong := [code for code in found if not 100 <= code < 600]:
            raise ValueError(f"{name}: not a status of HTTP: {wrong[0]}")
        return found


_SECONDS, _POSITIVE, _PERCENT = _Seconds(), _Positive(), _AtMost(100)
_COOKIE: Final = Record(
    HashCookie, pb.HashCookie, name=PLAIN, path=PLAIN, ttl_seconds=OPTIONAL, attributes=PAIRS
)
_HASH: Final = Record(
    ConsistentHash,
    pb.ConsistentHash,
    header=PLAIN,
    cookie=Maybe(_COOKIE),
    source_ip=PLAIN,
    query=PLAIN,
    ring_size=_AtMost(MOST_RING),
    maglev_size=_AtMost(MOST_TABLE),
)
_SPREAD: Final = Record(Spread, pb.Spread, source=PLAIN, shares=_Shares())
_LOCALITIES: Final = Record(
    Localities, pb.Localities, enabled=PLAIN, distribute=Many(_SPREAD), failover=PAIRS, priorities=LISTED
)
_WARMUP: Final = Record(Warmup, pb.Warmup, seconds=_POSITIVE, least_percent=_PERCENT, aggression=_POSITIVE)
_BALANCING: Final = Record(
    Balancing,
    pb.Balancing,
    simple=_Simple(),
    by_hash=Maybe(_HASH),
    localities=Maybe(_LOCALITIES),
    warmup=Maybe(_WARMUP),
)
_ALIVE: Final = Record(KeepAlive, pb.KeepAlive, probes=PLAIN, after_seconds=_SECONDS, every_seconds=_SECONDS)
_PINGS: Final = Record(Pings, pb.Pings, every_seconds=_POSITIVE, within_seconds=_POSITIVE)
_POOL: Final = Record(
    Pool,
    pb.Pool,
    connections=PLAIN,
    connect_seconds=_SECONDS,
    connection_seconds=_SECONDS,
    idle_seconds=_SECONDS,
    keep_alive=Maybe(_ALIVE),
    pending_requests=PLAIN,
    requests=PLAIN,
    requests_per_connection=PLAIN,
    retries=PLAIN,
    http_idle_seconds=_SECONDS,
    upgrade=EnumOf(Upgrade),
    client_protocol=PLAIN,
    streams_per_connection=PLAIN,
    pings=Maybe(_PINGS),
)
_OUTLIER: Final = Record(
    Outlier,
    pb.Outlier,
    server_errors=PLAIN,
    gateway_errors=PLAIN,
    local=PLAIN,
    split=PLAIN,
    interval_seconds=_POSITIVE,
    base_seconds=_POSITIVE,
    most_percent=_PERCENT,
    least_healthy_percent=_PERCENT,
    codes=_Codes(),
)
_TLS: Final = Record(
    ClientTls,
    pb.ClientTls,
    mode=EnumOf(TlsMode),
    certificate=PLAIN,
    key=PLAIN,
    roots=PLAIN,
    revoked=PLAIN,
    credential=PLAIN,
    subject_alt_names=LISTED,
    sni=PLAIN,
    skip_verify=PLAIN,
)
_BUDGET: Final = Record(RetryBudget, pb.RetryBudget, percent=_PERCENT, least=PLAIN, seconds=_SECONDS)
_TRAFFIC: Final = Record(
    Traffic,
    pb.Traffic,
    balancing=Maybe(_BALANCING),
    pool=Maybe(_POOL),
    outlier=Maybe(_OUTLIER),
    tls=Maybe(_TLS),
    budget=Maybe(_BUDGET),
    unsupported=LISTED,
)
_PORTS: Final = Record(PortTraffic, pb.PortTraffic, common=_TRAFFIC, ports=_Ports())
_SUBSET: Final = Record(SubsetTraffic, pb.SubsetTraffic, name=PLAIN, traffic=_PORTS)
_CLIENT: Final = Record(
    ClientTraffic, pb.ClientTraffic, namespace=PLAIN, traffic=_PORTS, subsets=Many(_SUBSET)
)


def render_traffic(traffic: ServiceTraffic) -> pb.ServiceTraffic:
    """The message of a service's policies."""
    return pb.ServiceTraffic(
        namespace=traffic.service.namespace,
        hostname=traffic.service.hostname,
        clients=map(_CLIENT.render, traffic.clients),
    )


def parse_traffic(untrusted: pb.ServiceTraffic) -> ServiceTraffic:
    """The policies of a message.

    Raises:
        PeerError: no service, or something that makes no sense.
    """
    if not untrusted.namespace or not untrusted.hostname:
        raise PeerError("traffic policies are those of a service, by its namespace and hostname")
    name = ServiceName(untrusted.namespace, untrusted.hostname)
    return ServiceTraffic(name, tuple(map(_CLIENT.parse, untrusted.clients)))
