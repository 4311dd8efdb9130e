"""The matches of a VirtualService's rules, as networking.istio.io/v1 has them.

A comparison without a text, and the regular expression `*`, ask only that there is a value (istio/istio
pilot/pkg/networking/core/route/route.go, isCatchAllStringMatch)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.model.address import IPNetwork
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch
from ztunnel.state.field import Field
from ztunnel.state.header_edits import read_header_name
from ztunnel.state.istio import parse_block
from ztunnel.state.meta import read_labels, read_port
from ztunnel.state.pattern import read_pattern

_REQUEST: Final = (
    "authority", "gateways", "headers", "ignoreUriCase", "method", "name", "port", "queryParams", "scheme",
    "sourceLabels", "sourceNamespace", "statPrefix", "uri", "withoutHeaders",
)  # fmt: skip
_CONNECTION: Final = (
    "destinationSubnets", "gateways", "port", "sourceLabels", "sourceNamespace", "sourceSubnet",
)  # fmt: skip
_KINDS: Final = {"exact": TextKind.EXACT, "prefix": TextKind.PREFIX, "regex": TextKind.REGEX}
_PRESENT: Final = TextMatch(TextKind.PRESENT)
_CLAIMS: Final = "@request.auth.claims"
_BRACKETS: Final = re.compile(r"(\[[^\[\]]+\])+")
_NOT_COMPARED: Final = ("uri", "scheme", "method", "authority")
"""Keys of `headers` that Istio passes over."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Who calls: what can be known only where the call is made."""

    labels: Mapping[str, str]
    namespace: str = ""
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RequestMatch:
    """An entry of `http[].match`. `ignore_case` is there without a `uri`, too."""

    match: Match
    sources: Sources
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionMatch:
    """An entry of `tcp[].match` or, with `hosts` (SNI, in small letters), of `tls[].match`."""

    sources: Sources
    port: int = 0
    subnets: tuple[IPNetwork, ...] = ()
    hosts: tuple[str, ...] = ()


def read_request_match(place: Field) -> RequestMatch:
    """An HTTPMatchRequest."""
    place.only(_REQUEST)
    ignore_case, port = place.flag("ignoreUriCase"), place.sub("port")
    compared = [*_compared(place, "headers"), *_compared(place, "withoutHeaders")]
    return RequestMatch(
        Match(
            place.text("name"),
            (read_port(port) or 1,) if port is not None else (),
            _text(place, "uri", ignore_case=ignore_case),
            _text(place, "method"),
            _text(place, "scheme"),
            _text(place, "authority"),
            tuple(one for one in compared if isinstance(one, FieldMatch)),
            tuple(_query(place)),
            tuple(one for one in compared if isinstance(one, ClaimMatch)),
        ),
        _sources(place),
        ignore_case,
    )


def read_connection_match(place: Field, *, tls: bool) -> ConnectionMatch:
    """An L4MatchAttributes, or a TLSMatchAttributes."""
    place.only((*_CONNECTION, "sniHosts") if tls else _CONNECTION)
    port = place.sub("port")
    hosts = tuple(one.as_text().lower() for one in place.each("sniHosts"))
    if tls and not hosts:
        place.fault("sniHosts are missing")
    return ConnectionMatch(
        _sources(place),
        read_port(port) if port is not None else 0,
        tuple(_subnets(place)),
        hosts,
    )


def read_text_match(place: Field) -> TextMatch | None:
    """A StringMatch; None where it says nothing."""
    place.only(tuple(_KINDS))
    found = [(kind, below) for name, kind in _KINDS.items() if (below := place.sub(name)) is not None]
    if len(found) > 1:
        place.fault("exact, prefix and regex exclude each other")
    if not found:
        return None
    kind, below = found[0]
    text = below.as_text()
    if not text or (kind is TextKind.REGEX and text == "*"):
        return None
    if kind is TextKind.REGEX:
        read_pattern(below)
    return TextMatch(kind, text)


def _text(parent: Field, name: str, *, ignore_case: bool = False) -> TextMatch | None:
    place = parent.sub(name)
    found = read_text_match(place) if place is not None else None
    if found is not None and ignore_case and found.kind is not TextKind.REGEX:
        return TextMatch(found.kind, found.text, ignore_case=True)
    return found


def _compared(parent: Field, name: str) -> Iterator[FieldMatch | ClaimMatch]:
    negated = name == "withoutHeaders"
    for key, match, place in _matches(parent, name):
        if key.startswith(_CLAIMS):
            if path := _claim(key):
                yield ClaimMatch(path, match, negated)
            else:
                place.fault(f"not a claim: {_CLAIMS}.name, or {_CLAIMS}[name][name]")
        elif key.lower() not in _NOT_COMPARED:
            yield FieldMatch(read_header_name(place, key), match, negated)


def _query(parent: Field) -> Iterator[FieldMatch]:
    for key, match, place in _matches(parent, "queryParams"):
        if key:
            yield FieldMatch(key, match)
        else:
            place.fault("a query parameter has a name")


def _matches(parent: Field, name: str) -> Iterator[tuple[str, TextMatch, Field]]:
    below = parent.sub(name)
    for key, place in below.pairs() if below else ():
        if place.is_null():
            place.fault("is null: {} asks that there is a value")
        else:
            yield key, read_text_match(place) or _PRESENT, place


def _claim(key: str) -> tuple[str, ...]:
    """The path of a claim; empty where it is none."""
    rest = key.removeprefix(_CLAIMS)
    if _BRACKETS.fullmatch(rest):
        return tuple(rest[1:-1].split("]["))
    path = tuple(rest[1:].split("."))
    return path if rest.startswith(".") and all(path) else ()


def _sources(place: Field) -> Sources:
    return Sources(
        read_labels(place, "sourceLabels"),
        place.text("sourceNamespace"),
        tuple(one.as_text() for one in place.each("gateways")),
    )


def _subnets(place: Field) -> Iterator[IPNetwork]:
    for one in place.each("destinationSubnets"):
        try:
            yield parse_block(one.as_text())
        except ValueError:
            one.fault("neither an address nor a CIDR")
