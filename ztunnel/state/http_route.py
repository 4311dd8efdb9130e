"""The Gateway API's HTTPRoute and GRPCRoute read from manifests (apis/v1 httproute_types.go,
grpcroute_types.go).

Routes of other controllers are read as well: fields that are not known here are left alone, and only slips of
those that are have a fault. `hostnames` have no meaning below a Service (GEP-1294): they are not read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import ISTIO_RETRY, MOST_ATTEMPTS, Retry, RetryOn
from ztunnel.state.duration import read_gateway_duration
from ztunnel.state.field import Field
from ztunnel.state.header_edits import read_header_name
from ztunnel.state.meta import Meta, read_choice, read_meta
from ztunnel.state.numbers import read_count
from ztunnel.state.pattern import read_pattern
from ztunnel.state.retry import Retries
from ztunnel.state.route_filter import (
    NO_FILTERS,
    Backend,
    Filters,
    Reference,
    read_backends,
    read_filters,
    read_parents,
)

_SPEC: Final = ("hostnames", "parentRefs", "rules")
_RULE: Final = ("backendRefs", "filters", "matches", "name", "retry", "timeouts")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_BAD_PATH: Final = re.compile(r"//|/\./|/\.\./|%2[fF]|#|/\.\.$|/\.$")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.]{1,1024}")
_EVERYTHING: Final = Match(path=TextMatch(TextKind.SEGMENTS, "/"))
_SEGMENT: Final = "[^/]+"


@dataclass(frozen=True, slots=True)
class RouteRule:
    """An entry of `rules`. `timeout` and `try_timeout` are in seconds; they and `retries` are None where they
    are not said. `unread` are fields that are not acted on."""

    name: str = ""
    matches: tuple[Match, ...] = (_EVERYTHING,)
    filters: Filters = NO_FILTERS
    backends: tuple[Backend, ...] = ()
    timeout: float | None = None
    try_timeout: float | None = None
    retries: Retries | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HTTPRoute:
    """An HTTPRoute."""

    meta: Meta
    parents: tuple[Reference, ...] = ()
    rules: tuple[RouteRule, ...] = ()


@dataclass(frozen=True, slots=True)
class GRPCRoute:
    """A GRPCRoute, whose matches are of the paths that gRPC has on HTTP/2."""

    meta: Meta
    parents: tuple[Reference, ...] = ()
    rules: tuple[RouteRule, ...] = ()


def read_http_route(root: Field) -> HTTPRoute:
    """gateway.networking.k8s.io HTTPRoute. Without rules it is for everything, and has no backend."""
    meta, spec = read_meta(root), _spec(root)
    if spec is None:
        return HTTPRoute(meta)
    rules = tuple(_http_rule(place) for place in spec.each("rules"))
    return HTTPRoute(meta, read_parents(spec), rules or (RouteRule(),))


def read_grpc_route(root: Field) -> GRPCRoute:
    """gateway.networking.k8s.io GRPCRoute."""
    meta, spec = read_meta(root), _spec(root)
    if spec is None:
        return GRPCRoute(meta)
    return GRPCRoute(meta, read_parents(spec), tuple(_grpc_rule(place) for place in spec.each("rules")))


def _spec(root: Field) -> Field | None:
    spec = root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
    else:
        spec.only(_SPEC, similar_to=_SPEC)
    return spec


def _http_rule(place: Field) -> RouteRule:
    place.only(_RULE, similar_to=_RULE)
    matches = tuple(map(_http_match, place.each("matches"))) or (_EVERYTHING,)
    filters, backends = read_filters(place), read_backends(place)
    for one in (filters, *(backend.filters for backend in backends)):
        _check_path_edit(place, one, matches)
    if filters.redirect is not None and backends:
        place.fault("a RequestRedirect has no backendRefs")
    timeout, each = None, None
    if (below := place.sub("timeouts")) is not None:
        below.only(["backendRequest", "request"], similar_to=["backendRequest", "request"])
        timeout = read_gateway_duration(below, "request")
        each = read_gateway_duration(below, "backendRequest")
        if timeout and each and each > timeout:
            below.fault("backendRequest cannot be longer than request")
    retry = place.sub("retry")
    return RouteRule(
        place.text("name"),
        matches,
        filters,
        backends,
        timeout,
        each,
        _retries(retry) if retry is not None else None,
        tuple(name for name in ("sessionPersistence",) if place.sub(name) is not None),
    )


def _check_path_edit(place: Field, filters: Filters, matches: tuple[Match, ...]) -> None:
    edits = [one.path for one in (filters.redirect, filters.rewrite) if one is not None]
    if any(edit is not None and edit.kind == "segments" for edit in edits):
        path = matches[0].path
        if len(matches) != 1 or path is None or path.kind is not TextKind.SEGMENTS:
            place.fault("replacePrefixMatch needs exactly one match, with a path of type PathPrefix")


def _http_match(place: Field) -> Match:
    names = ("headers", "method", "path", "queryParams")
    place.only(names, similar_to=names)
    path, method = place.sub("path"), read_choice(place, "method", *_METHODS)
    return Match(
        path=_path(path) if path is not None else TextMatch(TextKind.SEGMENTS, "/"),
        method=TextMatch(TextKind.EXACT, method) if method else None,
        headers=tuple(_fields(place, "headers")),
        query=tuple(_fields(place, "queryParams")),
    )


def _path(place: Field) -> TextMatch:
    kind = read_choice(place, "type", "Exact", "PathPrefix", "RegularExpression") or "PathPrefix"
    text = place.text("value", "/")
    if kind == "RegularExpression":
        value = place.sub("value")
        return TextMatch(TextKind.REGEX, read_pattern(value) if value is not None else ".*")
    if not text.startswith("/") or len(text) > 1024 or _BAD_PATH.search(text):
        place.fault("a path begins with a slash and has no '//', '/./', '/../', '%2f' and '#' in it")
        text = "/"
    if kind == "Exact":
        return TextMatch(TextKind.EXACT, text)
    return TextMatch(TextKind.SEGMENTS, text.rstrip("/") or "/")


def _fields(parent: Field, name: str) -> Iterator[FieldMatch]:
    """Of headers or query parameters of one name the first counts."""
    seen = set[str]()
    for place in parent.each(name):
        place.only(["name", "type", "value"])
        text, value = place.text("name"), place.sub("value")
        if name == "headers":
            text = read_header_name(place, text)
        elif not text:
            place.fault("name is missing")
            continue
        regex = read_choice(place, "type", "Exact", "RegularExpression") == "RegularExpression"
        if value is None:
            place.fault("value is missing")
        elif text not in seen:
            seen.add(text)
            wanted = read_pattern(value) if regex else value.as_text()
            yield FieldMatch(text, TextMatch(TextKind.REGEX if regex else TextKind.EXACT, wanted))


def _retries(place: Field) -> Retries:
    """An HTTPRouteRetry: of these statuses, and where the connection fails. Two attempts where it does not
    say (Istio)."""
    place.only(["attempts", "backoff", "codes"], similar_to=["attempts", "backoff", "codes"])
    attempts = read_count(place, "attempts", ISTIO_RETRY.attempts)
    codes, base = list[int](), read_gateway_duration(place, "backoff") or ISTIO_RETRY.base_seconds
    for one in place.each("codes"):
        code = one.as_number() or 0
        if 400 <= code < 600:
            codes.append(code)
        else:
            one.fault("a status that is tried again is one from 400 to 599")
    if not attempts:
        return Retries(None)
    on = ISTIO_RETRY.on | {RetryOn.RESET} | ({RetryOn.STATUS_CODES} if codes else set())
    found = tuple(dict.fromkeys(codes))
    retry = Retry(min(attempts, MOST_ATTEMPTS), frozenset(on), found, base, base * 10)
    return Retries(retry, asked=attempts)


def _grpc_rule(place: Field) -> RouteRule:
    names = ("backendRefs", "filters", "matches", "name")
    place.only(names, similar_to=names)
    return RouteRule(
        place.text("name"),
        tuple(map(_grpc_match, place.each("matches"))) or (_EVERYTHING,),
        read_filters(place),
        read_backends(place),
        unread=tuple(name for name in ("sessionPersistence",) if place.sub(name) is not None),
    )


def _grpc_match(place: Field) -> Match:
    place.only(["headers", "method"], similar_to=["headers", "method"])
    method = place.sub("method")
    path = _grpc_path(method) if method is not None else None
    return Match(path=path or _EVERYTHING.path, headers=tuple(_fields(place, "headers")))


def _grpc_path(place: Field) -> TextMatch:
    """`/service/method` (istio/istio pilot/pkg/config/kube/gateway createGRPCURIMatch)."""
    place.only(["method", "service", "type"], similar_to=["method", "service", "type"])
    service, method = place.text("service"), place.text("method")
    if not service and not method:
        place.fault("needs a service or a method")
        return TextMatch(TextKind.SEGMENTS, "/")
    if read_choice(place, "type", "Exact", "RegularExpression") == "RegularExpression":
        for below in (place.sub("service"), place.sub("method")):
            if below is not None:
                read_pattern(below)
        return TextMatch(TextKind.REGEX, f"/{service or _SEGMENT}/{method or _SEGMENT}")
    for text in (service, method):
        if text and not _TOKEN.fullmatch(text):
            place.fault(f"not the name of a service or method: {text[:80]!r}")
            return TextMatch(TextKind.SEGMENTS, "/")
    if service and method:
        return TextMatch(TextKind.EXACT, f"/{service}/{method}")
    if service:
        return TextMatch(TextKind.PREFIX, f"/{service}/")
    return TextMatch(TextKind.REGEX, f"/{_SEGMENT}/{method}")
