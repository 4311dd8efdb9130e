"""How endpoints are chosen, as networking.istio.io/v1's LoadBalancerSettings say it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, HashCookie, Localities, Spread, Warmup
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field
from ztunnel.state.header_edits import read_header_name
from ztunnel.state.meta import read_choice
from ztunnel.state.numbers import read_count, read_share

_SIMPLE: Final = {
    "UNSPECIFIED": None,
    "LEAST_CONN": Balance.LEAST_REQUEST,
    "LEAST_REQUEST": Balance.LEAST_REQUEST,
    "ROUND_ROBIN": Balance.ROUND_ROBIN,
    "RANDOM": Balance.RANDOM,
    "PASSTHROUGH": Balance.PASSTHROUGH,
}
_KEYS: Final = ("httpCookie", "httpHeaderName", "httpQueryParameterName", "useSourceIp")
ZONE_AWARE: Final = "zoneAwareLbSetting"
"""It is read, and not acted on: Istio has it for sidecars, and not in ambient mode."""

_MOST_RING: Final = 8 << 20
_MOST_TABLE: Final = 5_000_011


def read_balancing(place: Field) -> Balancing:
    """LoadBalancerSettings."""
    place.only(["consistentHash", "localityLbSetting", "simple", "warmup", "warmupDurationSecs", ZONE_AWARE])
    hashed, localities, warmup = (
        place.sub(name) for name in ("consistentHash", "localityLbSetting", "warmup")
    )
    simple = _SIMPLE.get(read_choice(place, "simple", *_SIMPLE))
    if simple is not None and hashed is not None:
        place.fault("simple and consistentHash exclude each other")
    older = read_duration(place, "warmupDurationSecs")
    zones = place.sub(ZONE_AWARE)
    if zones is not None:
        _check_zones(zones)
    return Balancing(
        simple,
        _hash(hashed) if hashed is not None else None,
        _localities(localities) if localities is not None else None,
        _warmup(warmup) if warmup is not None else Warmup(older) if older else None,
    )


def _hash(place: Field) -> ConsistentHash:
    place.only([*_KEYS, "maglev", "minimumRingSize", "ringHash"])
    keys = [name for name in _KEYS if place.sub(name) is not None]
    if len(keys) != 1:
        place.fault(f"needs one of {', '.join(_KEYS)}")
    ring, maglev = place.sub("ringHash"), place.sub("maglev")
    if ring is not None and maglev is not None:
        place.fault("ringHash and maglev exclude each other")
    if ring is not None:
        ring.only(["minimumRingSize"])
    if maglev is not None:
        maglev.only(["tableSize"])
    size = read_count(ring or place, "minimumRingSize", 1024)
    table = read_count(maglev, "tableSize", 65537 if maglev is not None else 0)
    if size > _MOST_RING or table > _MOST_TABLE:
        place.fault(f"a ring has at most {_MOST_RING} entries, a table {_MOST_TABLE}")
    header, cookie = place.sub("httpHeaderName"), place.sub("httpCookie")
    return ConsistentHash(
        read_header_name(header, header.as_text()) if header is not None else "",
        _cookie(cookie) if cookie is not None else None,
        place.flag("useSourceIp"),
        place.text("httpQueryParameterName"),
        size,
        table,
    )


def _cookie(place: Field) -> HashCookie:
    place.only(["attributes", "name", "path", "ttl"])
    if not place.text("name"):
        place.fault("name is missing")
    attributes = []
    for one in place.each("attributes"):
        one.only(["name", "value"])
        attributes.append((one.text("name"), one.text("value")))
    return HashCookie(place.text("name"), place.text("path"), read_duration(place, "ttl"), tuple(attributes))


def _warmup(place: Field) -> Warmup:
    place.only(["aggression", "duration", "minimumPercent"])
    seconds, aggression = read_duration(place, "duration", 0.001), place.sub("aggression")
    if seconds is None:
        place.fault("duration is missing")
    power = aggression.as_decimal() if aggression is not None else 1.0
    if power is not None and power < 1.0:
        place.fault("aggression is at least 1")
    return Warmup(seconds or 1.0, read_share(place, "minimumPercent", 10.0), power or 1.0)


def _localities(place: Field) -> Localities:
    place.only(["distribute", "enabled", "failover", "failoverPriority"])
    found = Localities(
        place.flag("enabled") if place.sub("enabled") is not None else True,
        tuple(map(_spread, place.each("distribute"))),
        tuple(_failover(place)),
        tuple(one.as_text() for one in place.each("failoverPriority")),
    )
    if found.distribute and (found.failover or found.priorities):
        place.fault("distribute excludes failover and failoverPriority")
    return found


def _check_zones(place: Field) -> None:
    place.only(["enabled", "failover", "failoverPriority", "minClusterSize"])
    place.flag("enabled")
    tuple(_failover(place))
    for one in place.each("failoverPriority"):
        one.as_text()
    if place.sub("minClusterSize") is not None and not read_count(place, "minClusterSize", 1):
        place.fault("minClusterSize is at least 1")


def _spread(place: Field) -> Spread:
    place.only(["from", "to"])
    below, shares = place.sub("to"), dict[str, int]()
    for key, one in below.pairs() if below is not None else ():
        shares[key] = one.as_number() or 0
    if not place.text("from") or sum(shares.values()) != 100 or min(shares.values()) < 1:
        place.fault("needs `from`, and `to` with shares of at least 1 that make 100")
    return Spread(place.text("from"), tuple(sorted(shares.items())))


def _failover(place: Field) -> Iterator[tuple[str, str]]:
    for one in place.each("failover"):
        one.only(["from", "to"])
        pair = one.text("from"), one.text("to")
        if not all(pair) or pair[0] == pair[1] or any("/" in each or "*" in each for each in pair):
            one.fault("needs `from` and `to`, two regions: without '/' and '*'")
        yield pair
