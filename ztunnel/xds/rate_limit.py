"""Rate limits of waypoints as messages of ztunnel.http, both ways.

A message that says something which makes no sense here is refused as a whole: the version before stays in
force."""

from __future__ import annotations

from typing import Any, Final

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import Attribute
from ztunnel.model.rate_limit import (
    Descriptor,
    Entry,
    GlobalLimit,
    Limit,
    LimitKey,
    LocalRule,
    RateLimitPolicy,
)
from ztunnel.xds.http_policy import parse_term, render_term
from ztunnel.xds.pb import rate_limit_pb2 as pb
from ztunnel.xds.record import LISTED, PLAIN, EnumOf, Many, Maybe, Record


class _Terms:
    """Terms, as policies have them."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write them."""
        getattr(message, name).extend(map(render_term, value))

    def get(self, untrusted: Any, name: str) -> Any:
        """Read them. Raises PeerError."""
        return tuple(map(parse_term, getattr(untrusted, name)))


_TERMS: Final = _Terms()
_KEY: Final = Record(LimitKey, pb.RateLimitKey, attribute=EnumOf(Attribute), argument=LISTED)
_LIMIT: Final = Record(Limit, pb.RateLimit, requests=PLAIN, seconds=PLAIN, burst=PLAIN)
_RULE: Final = Record(
    LocalRule, pb.LocalRateLimit, name=PLAIN, limit=_LIMIT, terms=_TERMS, keys=Many(_KEY), shared=PLAIN
)
_ENTRY: Final = Record(Entry, pb.RateLimitEntry, key=PLAIN, value=PLAIN, source=Maybe(_KEY))
_DESCRIPTOR: Final = Record(Descriptor, pb.RateLimitDescriptor, entries=Many(_ENTRY), terms=_TERMS)
_GLOBAL: Final = Record(
    GlobalLimit,
    pb.GlobalRateLimit,
    host=PLAIN,
    port=PLAIN,
    domain=PLAIN,
    descriptors=Many(_DESCRIPTOR),
    timeout_seconds=PLAIN,
    deny=PLAIN,
    hits=PLAIN,
)
_POLICY: Final = Record(
    RateLimitPolicy,
    pb.RateLimitPolicy,
    name=PLAIN,
    namespace=PLAIN,
    routes=LISTED,
    rules=Many(_RULE),
    service=Maybe(_GLOBAL),
    tells=PLAIN,
    exhausted=PLAIN,
)


def render_rate_limit(policy: RateLimitPolicy) -> pb.RateLimitPolicy:
    """The message of it."""
    made: pb.RateLimitPolicy = _POLICY.render(policy)
    return made


def parse_rate_limit(untrusted: pb.RateLimitPolicy) -> RateLimitPolicy:
    """The policy of a message.

    Raises:
        PeerError: it has no name, or says something that makes no sense.
    """
    if not untrusted.name or not untrusted.namespace:
        raise PeerError("a policy needs a name and a namespace")
    return _POLICY.parse(untrusted)
