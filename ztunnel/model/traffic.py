"""How a service's endpoints are chosen and treated: what a DestinationRule's traffic policies come to.

Of what is None or 0 nothing is said, unless it is described otherwise (istio/api
networking/v1alpha3/destination_rule.proto)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Balance(StrEnum):
    """How an endpoint is chosen for each request. PASSTHROUGH: the one whose address was called."""

    LEAST_REQUEST = "least-request"
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    PASSTHROUGH = "passthrough"


@dataclass(frozen=True, slots=True)
class HashCookie:
    """A cookie to hash. It is made where it is missing and `ttl_seconds` is not None; 0: until the browser is
    closed."""

    name: str
    path: str = ""
    ttl_seconds: float | None = None
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ConsistentHash:
    """Requests that are alike in one thing go to one endpoint: in a header (in small letters), a cookie, the
    caller's address, or a query parameter. By a ring of at least `ring_size`, or else a table of
    `maglev_size` (Maglev)."""

    header: str = ""
    cookie: HashCookie | None = None
    source_ip: bool = False
    query: str = ""
    ring_size: int = 1024
    maglev_size: int = 0


@dataclass(frozen=True, slots=True)
class Warmup:
    """An endpoint that is new gets less at first."""

    seconds: float
    least_percent: float = 10.0
    aggression: float = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Of calls from a locality, which share of a hundred goes to which, each `region/zone/subzone`, `*` for
    any."""

    source: str
    shares: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Localities:
    """What the localities of endpoints decide; None of them where not `enabled`. `failover` is from region to
    region, `priorities` are labels, the first of which counts most."""

    enabled: bool = True
    distribute: tuple[Spread, ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    priorities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Balancing:
    """How endpoints are chosen."""

    simple: Balance | None = None
    by_hash: ConsistentHash | None = None
    localities: Localities | None = None
    warmup: Warmup | None = None


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Of TCP: how many probes, after how many seconds of silence, and how many apart."""

    probes: int = 0
    after_seconds: float = 0.0
    every_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pings:
    """Of HTTP/2: after how many seconds one follows the answer to the one before, and how long that may
    take."""

    every_seconds: float
    within_seconds: float = 20.0


class Upgrade(StrEnum):
    """Whether HTTP/2 is spoken to endpoints whose port says HTTP/1.1. DEFAULT: as the mesh has it, which is
    not."""

    DEFAULT = "default"
    NEVER = "never"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Pool:
    """Limits of connections and requests to a service. A number that is 0 is no limit."""

    connections: int = 0
    connect_seconds: float = 0.0
    connection_seconds: float = 0.0
    idle_seconds: float = 0.0
    keep_alive: KeepAlive | None = None
    pending_requests: int = 0
    requests: int = 0
    requests_per_connection: int = 0
    retries: int = 0
    http_idle_seconds: float = 0.0
    upgrade: Upgrade = Upgrade.DEFAULT
    client_protocol: bool = False
    streams_per_connection: int = 0
    pings: Pings | None = None


@dataclass(frozen=True, slots=True)
class Outlier:
    """Endpoints that fail are not chosen for a while: after so many failures in a row (0: never), for the
    base time, times how often it was so. `split`: failures to connect are counted apart, as `local`. `codes`:
    the statuses that are failures, and no others; none: all from 500 on."""

    server_errors: int = 5
    gateway_errors: int = 0
    local: int = 5
    split: bool = False
    interval_seconds: float = 10.0
    base_seconds: float = 30.0
    most_percent: int = 10
    least_healthy_percent: int = 0
    codes: tuple[int, ...] = ()


class TlsMode(StrEnum):
    """Whether TLS is originated towards endpoints. ISTIO_MUTUAL is what the mesh does by itself."""

    DISABLE = "disable"
    SIMPLE = "simple"
    MUTUAL = "mutual"
    ISTIO_MUTUAL = "istio-mutual"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS towards endpoints. `certificate`, `key`, `roots` and `revoked` are paths of files, `credential` is
    the name of a Secret."""

    mode: TlsMode
    certificate: str = ""
    key: str = ""
    roots: str = ""
    revoked: str = ""
    credential: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """So many requests of a hundred may be retries at a time, and `least` always: of those that are under
    way, or, with `seconds`, of those that were sent in the last so many."""

    percent: float = 20.0
    least: int = 3
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The policies for a service, a subset or a port. `unsupported`: names of what cannot be done, without
    which nobody is to be called."""

    balancing: Balancing | None = None
    pool: Pool | None = None
    outlier: Outlier | None = None
    tls: ClientTls | None = None
    budget: RetryBudget | None = None
    unsupported: tuple[str, ...] = ()

    def over(self, below: Traffic) -> Traffic:
        """These, and those of `below` of what is not said here."""
        return Traffic(
            self.balancing or below.balancing,
            self.pool or below.pool,
            self.outlier or below.outlier,
            self.tls or below.tls,
            self.budget or below.budget,
            self.unsupported or below.unsupported,
        )


NO_TRAFFIC = Traffic()


@dataclass(frozen=True, slots=True)
class PortTraffic:
    """The policies for a service or subset. Those of a port stand alone: nothing is added from others."""

    common: Traffic = NO_TRAFFIC
    ports: tuple[tuple[int, Traffic], ...] = ()

    def at(self, port: int) -> Traffic:
        """What holds for a port of the service."""
        return next((one for number, one in self.ports if number == port), self.common)

    def over_mesh(self, baseline: Traffic) -> PortTraffic:
        """These, and those of the mesh of what is not said, at each port as well."""
        ports = tuple((port, one.over(baseline)) for port, one in self.ports)
        return PortTraffic(self.common.over(baseline), ports)

    def credentials(self) -> tuple[ClientTls, ...]:
        """TLS that a Secret is needed for."""
        all_of = (self.common, *(one for _, one in self.ports))
        return tuple(one.tls for one in all_of if one.tls is not None and one.tls.credential)

    def over(self, below: PortTraffic) -> PortTraffic:
        """A subset's over those of its service: its ports' count before the service's ports', and both before
        what is common (istio/istio pilot/pkg/networking/util MergeSubsetTrafficPolicy)."""
        mine = dict(self.ports)
        ports = {**dict(below.ports), **mine}
        return replace(self, common=self.common.over(below.common), ports=tuple(sorted(ports.items())))


UNSAID = PortTraffic()
