"""RateLimitPolicy read from manifests, strictly. The kind is ours; its fields have the names that Envoy
Gateway's BackendTrafficPolicy (`clientSelectors`, `limit`) and Envoy's filters (`domain`, `failureModeDeny`)
gave them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.model.http_policy import Attribute
from ztunnel.model.rate_limit import Descriptor, Entry, GlobalLimit, Limit, LimitKey, LocalRule
from ztunnel.state.client_selector import read_selectors
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field
from ztunnel.state.istio import read_targets
from ztunnel.state.meta import Meta, read_choice, read_meta, read_port

_MOST_RULES: Final = 128
_MOST_REQUESTS: Final = 1_000_000_000
_UNITS: Final = {"Second": 1.0, "Minute": 60.0, "Hour": 3600.0, "Day": 86400.0}


@dataclass(frozen=True, slots=True)
class RateLimitPolicy:
    """A RateLimitPolicy. `targets` are `Kind name`, of its own namespace."""

    meta: Meta
    targets: tuple[str, ...]
    rules: tuple[LocalRule, ...] = ()
    service: GlobalLimit | None = None
    tells: bool = False
    exhausted: bool = False


def read_rate_limit_policy(root: Field) -> RateLimitPolicy:
    """ztunnel.io RateLimitPolicy."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return RateLimitPolicy(meta, ())
    spec.only(["global", "local", "rateLimitedAsResourceExhausted", "targetRefs", "xRateLimitHeaders"])
    targets = read_targets(spec)
    if not targets:
        spec.fault("targetRefs are needed: they say what the limits are for")
    local, asked = spec.sub("local"), spec.sub("global")
    if local is None and asked is None:
        spec.fault("local, global or both are needed")
    return RateLimitPolicy(
        meta,
        targets,
        _rules(local) if local is not None else (),
        _global(asked) if asked is not None else None,
        read_choice(spec, "xRateLimitHeaders", "Off", "DraftVersion03") == "DraftVersion03",
        spec.flag("rateLimitedAsResourceExhausted"),
    )


def _rules(local: Field) -> tuple[LocalRule, ...]:
    local.only(["rules"])
    places = local.each("rules")
    if not 0 < len(places) <= _MOST_RULES:
        local.fault(f"from one to {_MOST_RULES} rules are needed")
        return ()
    return tuple(_rule(place, f"rule {number}") for number, place in enumerate(places))


def _rule(place: Field, name: str) -> LocalRule:
    place.only(["clientSelectors", "limit", "name", "shared"])
    terms, keys = read_selectors(place)
    below = place.sub("limit")
    if below is None:
        place.fault("limit is needed")
    limit = _limit(below) if below is not None else Limit(1, 1.0)
    return LocalRule(place.text("name") or name, limit, terms, tuple(keys), place.flag("shared"))


def _limit(place: Field) -> Limit:
    place.only(["burst", "fillInterval", "requests", "unit"])
    requests = _count(place, "requests")
    if requests is None:
        place.fault("requests is needed")
    unit = read_choice(place, "unit", *_UNITS)
    interval = read_duration(place, "fillInterval", 0.001)
    if (place.sub("fillInterval") is not None) == (place.sub("unit") is not None):
        place.fault("unit or fillInterval is needed, and only one of them")
    burst = _count(place, "burst") or 0
    if burst and requests == 0:
        place.fault("a burst is beyond requests, of which there are none")
    return Limit(requests or 0, interval or _UNITS.get(unit, 1.0), burst)


def _count(parent: Field, name: str, least: int = 0) -> int | None:
    place = parent.sub(name)
    number = place.as_number() if place is not None else None
    if place is not None and number is not None and not least <= number <= _MOST_REQUESTS:
        place.fault(f"must be from {least} to {_MOST_REQUESTS}")
        return None
    return number


# The service that counts for all.

_SOURCES: Final[Mapping[str, tuple[str, Attribute]]] = {
    "Header": ("header", Attribute.HEADER),
    "Claim": ("claim", Attribute.CLAIM),
    "RemoteAddress": ("remote_address", Attribute.SOURCE_IP),
    "Path": ("path", Attribute.PATH),
    "Method": ("method", Attribute.METHOD),
    "Principal": ("principal", Attribute.PRINCIPAL),
    "Namespace": ("namespace", Attribute.NAMESPACE),
}


def _global(place: Field) -> GlobalLimit:
    place.only(["descriptors", "domain", "failureModeDeny", "hitsAddend", "host", "port", "timeout"])
    host, domain = place.text("host"), place.text("domain")
    if not host or not domain:
        place.fault("host and domain are needed")
    port = place.sub("port")
    if port is None:
        place.fault("port is needed")
    descriptors = tuple(map(_descriptor, place.each("descriptors")))
    if not 0 < len(descriptors) <= _MOST_RULES:
        place.fault(f"from one to {_MOST_RULES} descriptors are needed")
    return GlobalLimit(
        host or "-",
        (read_port(port) if port is not None else 0) or 1,
        domain,
        descriptors,
        read_duration(place, "timeout", 0.001) or 0.02,
        place.flag("failureModeDeny"),
        _count(place, "hitsAddend", least=1) or 1,
    )


def _descriptor(place: Field) -> Descriptor:
    place.only(["clientSelectors", "entries"])
    terms, keys = read_selectors(place)
    if keys:
        place.fault("Distinct is for local limits: here it is the service that tells entries apart")
    entries = tuple(map(_entry, place.each("entries")))
    if not 0 < len(entries) <= _MOST_RULES:
        place.fault(f"from one to {_MOST_RULES} entries are needed")
    return Descriptor(entries, terms)


def _entry(place: Field) -> Entry:
    place.only(["claim", "header", "key", "type", "value"])
    kind = read_choice(place, "type", "Generic", *_SOURCES) or "Generic"
    for name, its_kind in (("value", "Generic"), ("header", "Header"), ("claim", "Claim")):
        if (place.sub(name) is not None) != (kind == its_kind):
            place.fault(f"type {its_kind} has a {name}, and no other has one")
    if kind not in _SOURCES:
        return Entry(place.text("key") or "generic_key", place.text("value"))
    name, attribute = _SOURCES[kind]
    argument: tuple[str, ...] = ()
    if attribute is Attribute.HEADER:
        argument = (place.text("header").lower() or "-",)
    elif attribute is Attribute.CLAIM:
        argument = tuple(place.text("claim").split("."))
    key = place.text("key") or (argument[0] if attribute is Attribute.HEADER else name)
    return Entry(key, "", LimitKey(attribute, argument))
