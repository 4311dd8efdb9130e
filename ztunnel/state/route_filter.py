"""Filters of the Gateway API's HTTPRoute and GRPCRoute, and what they and backendRefs refer to (apis/v1
httproute_types.go, object_reference_types.go).

What the schema of the CustomResourceDefinitions refuses is refused here, too: in a folder nobody else
does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ztunnel.model.route_action import (
    NO_EDITS,
    Edits,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Rewrite,
)
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import MILLION, Cors
from ztunnel.state.field import Field
from ztunnel.state.header_edits import read_modifier
from ztunnel.state.meta import read_choice, read_port
from ztunnel.state.numbers import read_count, read_percent

_FILTERS: Final = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
    "CORS": "cors",
}
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SCHEMES: Final = ("http", "https")
_MOST_WEIGHT: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Reference:
    """Another object. An empty namespace is that of the object that refers; port 0 and an empty section: none
    is given. Prints as `Service shop/reviews`."""

    group: str
    kind: str
    namespace: str
    name: str
    port: int = 0
    section: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class RouteMirror:
    """Where requests are mirrored to, and how many of a million."""

    backend: Reference
    per_million: int = MILLION


@dataclass(frozen=True, slots=True)
class Filters:
    """All filters of a rule or of a backend. `foreign` are the types of those that are not known here:
    requests that need them cannot be served."""

    edits: Edits = NO_EDITS
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[RouteMirror, ...] = ()
    cors: Cors | None = None
    foreign: tuple[str, ...] = ()


NO_FILTERS: Final = Filters()


@dataclass(frozen=True, slots=True)
class Backend:
    """An entry of `backendRefs`."""

    reference: Reference
    weight: int = 1
    filters: Filters = NO_FILTERS


@dataclass(slots=True)
class _Found:
    places: dict[str, Field] = field(default_factory=dict)
    mirrors: list[RouteMirror] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def read_filters(parent: Field) -> Filters:
    """`filters`, of which none but a mirror stands there twice."""
    found = _Found()
    for place in parent.each("filters"):
        _take(place, found)
    redirect, rewrite = found.places.get("requestRedirect"), found.places.get("urlRewrite")
    if redirect is not None and rewrite is not None:
        redirect.fault("RequestRedirect and URLRewrite exclude each other")
    request, response = (found.places.get(f"{name}HeaderModifier") for name in ("request", "response"))
    cors = found.places.get("cors")
    return Filters(
        Edits(
            read_modifier(request) if request is not None else NO_EDITS.request,
            read_modifier(response) if response is not None else NO_EDITS.response,
        ),
        _redirect(redirect) if redirect is not None else None,
        _rewrite(rewrite) if rewrite is not None else None,
        tuple(found.mirrors),
        _cors(cors) if cors is not None else None,
        tuple(found.foreign),
    )


def _take(place: Field, found: _Found) -> None:
    kind = place.text("type")
    name = _FILTERS.get(kind)
    if name is None:
        if not kind:
            place.fault("type is missing")
        found.foreign.append(kind)
        return
    place.only([*_FILTERS.values(), "type"], similar_to=list(_FILTERS.values()))
    below = place.sub(name)
    if below is None:
        place.fault(f"{name} is missing")
    elif name == "requestMirror":
        found.mirrors.append(_mirror(below))
    elif name in found.places:
        place.fault(f"{kind} stands here twice")
    else:
        found.places[name] = below


def read_backends(parent: Field) -> tuple[Backend, ...]:
    """`backendRefs`."""
    found = []
    for place in parent.each("backendRefs"):
        weight = read_count(place, "weight", 1)
        if weight > _MOST_WEIGHT:
            place.fault(f"a weight is from 0 to {_MOST_WEIGHT}")
        found.append(Backend(read_reference(place), weight, read_filters(place)))
    return tuple(found)


def read_parents(spec: Field) -> tuple[Reference, ...]:
    """`parentRefs`."""
    return tuple(
        read_reference(place, "gateway.networking.k8s.io", "Gateway") for place in spec.each("parentRefs")
    )


def read_reference(place: Field, group: str = "", kind: str = "Service") -> Reference:
    """A reference to an object, a Service where it does not say."""
    port, name = place.sub("port"), place.text("name")
    if not name:
        place.fault("name is missing")
    return Reference(
        place.text("group", group),
        place.text("kind", kind),
        place.text("namespace"),
        name,
        read_port(port) if port is not None else 0,
        place.text("sectionName"),
    )


def _mirror(place: Field) -> RouteMirror:
    below, percent, fraction = (place.sub(name) for name in ("backendRef", "percent", "fraction"))
    if below is None:
        place.fault("backendRef is missing")
    if percent is not None and fraction is not None:
        place.fault("percent and fraction exclude each other")
    share = read_percent(place, "percent", 100) * MILLION // 100
    if fraction is not None:
        whole = read_count(fraction, "denominator", 100)
        part = read_count(fraction, "numerator")
        if not whole or part > whole:
            fraction.fault("numerator is from 0 to denominator, which is not 0")
            part, whole = 0, 1
        share = part * MILLION // whole
    return RouteMirror(read_reference(below) if below is not None else Reference("", "", "", ""), share)


def _redirect(place: Field) -> Redirect:
    """Without a port it is the scheme's, where one is given, else that which was called."""
    status, port = read_count(place, "statusCode", 302), place.sub("port")
    if status not in _REDIRECTS:
        place.fault(f"statusCode must be one of {', '.join(map(str, _REDIRECTS))}")
        status = 302
    scheme = read_choice(place, "scheme", *_SCHEMES)
    return Redirect(
        status,
        scheme if scheme in _SCHEMES else "",
        place.text("hostname"),
        _path(place),
        read_port(port) if port is not None else 0,
        RedirectPort.SCHEME if scheme else RedirectPort.REQUEST,
    )


def _rewrite(place: Field) -> Rewrite | None:
    path, authority = _path(place), place.text("hostname")
    return Rewrite(path, authority) if path is not None or authority else None


def _path(parent: Field) -> PathEdit | None:
    place = parent.sub("path")
    if place is None:
        return None
    kind = read_choice(place, "type", "ReplaceFullPath", "ReplacePrefixMatch")
    if kind == "ReplaceFullPath":
        text = place.text("replaceFullPath")
        return PathEdit(PathEditKind.FULL, text if text.startswith("/") else f"/{text}")
    if kind != "ReplacePrefixMatch":
        place.fault("type is missing: ReplaceFullPath or ReplacePrefixMatch")
    return PathEdit(PathEditKind.SEGMENTS, place.text("replacePrefixMatch"))


def _cors(place: Field) -> Cors:
    return Cors(
        tuple(_origins(place)),
        _texts(place, "allowMethods"),
        _texts(place, "allowHeaders"),
        _texts(place, "exposeHeaders"),
        read_count(place, "maxAge", 5),
        place.flag("allowCredentials"),
        forward_unmatched=False,
    )


def _origins(place: Field) -> Iterator[TextMatch]:
    """`*` stands for any origin, or in one for any number of labels."""
    for text in _texts(place, "allowOrigins"):
        if text == "*":
            yield TextMatch(TextKind.PREFIX)
        elif "*" in text:
            yield TextMatch(TextKind.REGEX, "[^/]+".join(re.escape(part) for part in text.split("*")))
        else:
            yield TextMatch(TextKind.EXACT, text)


def _texts(place: Field, name: str) -> tuple[str, ...]:
    return tuple(one.as_text() for one in place.each(name))
