"""`clientSelectors` of a RateLimitPolicy: which requests a limit is for, and of which values each counts for
itself. Names and meanings are those of Envoy Gateway's BackendTrafficPolicy, with what a mesh knows besides:
principals, namespaces and claims of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch, Value
from ztunnel.model.rate_limit import LimitKey
from ztunnel.state.field import Field
from ztunnel.state.istio import parse_block
from ztunnel.state.meta import read_choice
from ztunnel.state.pattern import read_pattern

_MOST: Final = 8
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_SELECTOR: Final = ("claims", "headers", "methods", "namespaces", "path", "principals", "sourceCIDR")
_DISTINCT: Final = "Distinct"
_TEXTS: Final = ("Exact", "Prefix", "RegularExpression", _DISTINCT)

Keys = list[LimitKey]
_Meant = Callable[[Field], Iterator[Value]]


def read_selectors(place: Field) -> tuple[tuple[Term, ...], Keys]:
    """What `clientSelectors` ask, all of them, and of which values each has a bucket of its own."""
    terms: list[Term] = []
    keys: Keys = []
    places = place.each("clientSelectors")
    if len(places) > _MOST:
        place.fault(f"more than {_MOST} clientSelectors")
    for one in places:
        one.only(_SELECTOR)
        if not list(one.pairs()):
            one.fault(f"one of {', '.join(_SELECTOR)} is needed")
        terms += [_compared(each, Attribute.HEADER, keys, _header(each)) for each in one.each("headers")]
        terms += [_compared(each, Attribute.CLAIM, keys, _claim(each)) for each in one.each("claims")]
        for name, attribute in _PLAIN.items():
            terms += [_compared(each, attribute, keys, ()) for each in one.each(name)]
        if (path := one.sub("path")) is not None:
            terms.append(_path(path, keys))
        if (block := one.sub("sourceCIDR")) is not None:
            terms.append(_source(block, keys))
    return tuple(term for term in terms if term.values or term.not_values), keys


_PLAIN: Final[Mapping[str, Attribute]] = {
    "methods": Attribute.METHOD,
    "principals": Attribute.PRINCIPAL,
    "namespaces": Attribute.NAMESPACE,
}


def _header(place: Field) -> tuple[str, ...]:
    name = place.text("name")
    if not _HEADER.fullmatch(name) and name not in (":authority", ":path", ":method"):
        place.fault("name must be the name of a header")
    return (name.lower(),)


def _claim(place: Field) -> tuple[str, ...]:
    """A claim, `a.b` for one in another."""
    name = place.text("name")
    if not name or not all(name.split(".")):
        place.fault("name must be the name of a claim, such as sub or realm.role")
    return tuple(name.split("."))


def _compared(place: Field, attribute: Attribute, keys: Keys, argument: tuple[str, ...]) -> Term:
    place.only(["invert", "type", "value", *(["name"] if argument else [])])
    kind = read_choice(place, "type", *_TEXTS) or "Exact"
    return _term(place, attribute, keys, argument, _MEANT.get(kind))


def _path(place: Field, keys: Keys) -> Term:
    place.only(["invert", "type", "value"])
    kind = read_choice(place, "type", *_PATHS, _DISTINCT) or "PathPrefix"
    if kind != _DISTINCT and not place.text("value").startswith("/") and kind != "RegularExpression":
        place.fault("value must begin with a slash")
    return _term(place, Attribute.PATH, keys, (), _PATHS.get(kind))


def _term(
    place: Field, attribute: Attribute, keys: Keys, argument: tuple[str, ...], meant: _Meant | None
) -> Term:
    """Of a comparison; without `meant` values are told apart, and any will do."""
    invert, value = place.flag("invert"), place.sub("value")
    if meant is None:
        if value is not None or invert:
            place.fault("Distinct takes neither value nor invert: each value counts for itself")
        keys.append(LimitKey(attribute, argument))
        return Term(attribute, (), (), argument)
    if value is None:
        if attribute is Attribute.HEADER:  # that it is there, or is not
            any_value = (TextMatch(TextKind.PRESENCE),)
            return Term(attribute, () if invert else any_value, any_value if invert else (), argument)
        place.fault("value is needed")
        return Term(attribute, (), (), argument)
    values = tuple(meant(value))
    return Term(attribute, () if invert else values, values if invert else (), argument)


def _exact(value: Field) -> Iterator[Value]:
    yield TextMatch(TextKind.EXACT, value.as_text())


def _prefix(value: Field) -> Iterator[Value]:
    yield TextMatch(TextKind.PREFIX, value.as_text())


def _pattern(value: Field) -> Iterator[Value]:
    yield TextMatch(TextKind.REGEX, read_pattern(value))


def _segments(value: Field) -> Iterator[Value]:
    """Path segments, as an HTTPRoute has them: `/foo` is one of `/foo` and `/foo/bar` only."""
    text = value.as_text().rstrip("/")
    if text:
        yield TextMatch(TextKind.EXACT, text)
    yield TextMatch(TextKind.PREFIX, f"{text}/")


_MEANT: Final[Mapping[str, _Meant]] = {
    "Exact": _exact,
    "Prefix": _prefix,
    "RegularExpression": _pattern,
}
_PATHS: Final[Mapping[str, _Meant]] = {
    "Exact": _exact,
    "PathPrefix": _segments,
    "RegularExpression": _pattern,
}


def _source(place: Field, keys: Keys) -> Term:
    """`sourceCIDR`: of the connection, whose address nobody can forge; X-Forwarded-For is not read."""
    place.only(["invert", "type", "value"])
    distinct = read_choice(place, "type", "Exact", _DISTINCT) == _DISTINCT
    value, invert = place.sub("value"), place.flag("invert")
    if distinct:
        keys.append(LimitKey(Attribute.SOURCE_IP))
    if value is None:
        if not distinct or invert:
            place.fault("value is needed, such as 10.0.0.0/8")
        return Term(Attribute.SOURCE_IP)
    blocks = tuple(_block(value))
    return Term(Attribute.SOURCE_IP, () if invert else blocks, blocks if invert else ())


def _block(value: Field) -> Iterator[Value]:
    try:
        yield parse_block(value.as_text())
    except ValueError as error:
        value.fault(str(error))
