"""Rate limits of a waypoint: which requests count, against which limit, and who counts.

```
RateLimitPolicy ── LocalRule ── terms     which requests it is for
               │           ├─── keys      of which values each has a bucket of its own
               │           └─── Limit     a token bucket, in each replica of a waypoint
               └── GlobalLimit ── Descriptor ── Entry    what a rate limit service is asked
```
"""

from __future__ import annotations

from dataclasses import dataclass

from ztunnel.model.http_policy import Attribute, Term


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: `requests` tokens come in `seconds`, one after the other; there are that many and
    `burst` at most."""

    requests: int
    seconds: float
    burst: int = 0

    def __post_init__(self) -> None:
        if self.requests < 0 or self.burst < 0 or not 0 < self.seconds < float("inf"):
            raise ValueError(f"no limit: {self.requests} in {self.seconds} s, and {self.burst} more")

    @property
    def most(self) -> int:
        """Tokens that there are at most."""
        return self.requests + self.burst if self.requests else 0

    def __str__(self) -> str:
        more = f", and {self.burst} more at once" if self.burst else ""
        return f"{self.requests} in {self.seconds:g} s{more}"


@dataclass(frozen=True, slots=True)
class LimitKey:
    """Something about a request whose values are told apart. `argument` as of a `Term`: the header's name in
    lower case, or the path to a claim."""

    attribute: Attribute
    argument: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.attribute in (Attribute.HEADER, Attribute.CLAIM) and not self.argument:
            raise ValueError(f"{self.attribute}: of which name?")


@dataclass(frozen=True, slots=True)
class LocalRule:
    """One limit that each replica counts for itself.

    Attributes:
        name: in the log.
        limit: the bucket.
        terms: that all have to hold; none: it is for every request.
        keys: each combination of their values has a bucket of its own; a request that has no value of one is
            none of the rule's.
        shared: there is one bucket for all that the policy is for, not one for each.
    """

    name: str
    limit: Limit
    terms: tuple[Term, ...] = ()
    keys: tuple[LimitKey, ...] = ()
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a descriptor: `value` as it is written, or that of `source`."""

    key: str
    value: str = ""
    source: LimitKey | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a service is asked about requests for which all `terms` hold, and of which every entry has a
    value."""

    entries: tuple[Entry, ...]
    terms: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class GlobalLimit:
    """A limit that a rate limit service counts (envoy.service.ratelimit.v3).

    Attributes:
        host, port: of the service, by its hostname in the mesh.
        domain: in which it looks descriptors up.
        descriptors: what it is asked.
        timeout_seconds: for its answer.
        deny: whether a request is refused where there is no answer.
        hits: that a request counts.
    """

    host: str
    port: int
    domain: str
    descriptors: tuple[Descriptor, ...]
    timeout_seconds: float = 0.02
    deny: bool = False
    hits: int = 1

    def __post_init__(self) -> None:
        if not self.host or not 0 < self.port < 65536:
            raise ValueError(f"no service: {self.host!r}, port {self.port}")
        if not 0 < self.timeout_seconds < float("inf"):
            raise ValueError(f"no timeout: {self.timeout_seconds} s")


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """A RateLimitPolicy, as waypoints have it.

    Attributes:
        routes: the routes that it is for, as rules of routes name them (`HTTPRoute shop/reviews`); services
            name it themselves.
        rules: those that are counted here; all that are for a request have to have a token for it.
        service: who is asked besides.
        tells: whether responses tell limits (`x-ratelimit-limit` and the like).
        exhausted: whether a client of gRPC is told RESOURCE_EXHAUSTED, not UNAVAILABLE.
    """

    name: str
    namespace: str
    routes: tuple[str, ...] = ()
    rules: tuple[LocalRule, ...] = ()
    service: GlobalLimit | None = None
    tells: bool = False
    exhausted: bool = False

    @property
    def key(self) -> str:
        """`namespace/name`: how services name it."""
        return f"{self.namespace}/{self.name}"
