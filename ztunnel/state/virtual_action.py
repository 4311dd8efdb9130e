"""What a VirtualService's rules do with a request: fields of networking.istio.io/v1's HTTPRoute.

What istiod's validation refuses is refused here (istio/istio pkg/config/validation: validateHTTPRedirect,
validateHTTPRewrite, validateHTTPRetry, validateHTTPFaultInjection, validateCORSPolicy)."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error
from collections.abc import Iterator
from typing import Final

from ztunnel.model.route_action import (
    DirectResponse,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Rewrite,
)
from ztunnel.model.route_match import TextKind, TextMatch
from ztunnel.model.route_policy import MILLION, Abort, Cors, Delay, Fault
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field
from ztunnel.state.meta import read_choice, read_port
from ztunnel.state.pattern import read_pattern, read_substitute
from ztunnel.state.virtual_match import read_text_match

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_DERIVED: Final = {
    "FROM_PROTOCOL_DEFAULT": RedirectPort.SCHEME,
    "FROM_REQUEST_PORT": RedirectPort.REQUEST,
}
_GRPC: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_MOST_BODY: Final = 1 << 20


def read_redirect(place: Field) -> Redirect:
    """An HTTPRedirect."""
    place.only(["authority", "derivePort", "port", "redirectCode", "scheme", "uri"])
    status, port, uri = read_number(place, "redirectCode", 301), place.sub("port"), place.text("uri")
    if status not in _REDIRECTS:
        place.fault(f"redirectCode must be one of {', '.join(map(str, _REDIRECTS))}")
        status = 301
    scheme = read_choice(place, "scheme", "http", "https")
    derived = read_choice(place, "derivePort", *_DERIVED)
    if port is not None and derived:
        place.fault("port and derivePort exclude each other")
    if not any((uri, scheme, derived, port, place.text("authority"))):
        place.fault("says nothing: it needs a uri, an authority, a scheme or a port")
    if uri and not uri.startswith("/"):
        place.fault("uri begins with a slash")
        uri = ""
    return Redirect(
        status,
        scheme if scheme in ("http", "https") else "",
        place.text("authority"),
        PathEdit(PathEditKind.FULL, uri) if uri else None,
        read_port(port) if port is not None else 0,
        _DERIVED.get(derived, RedirectPort.KEPT),
    )


def read_direct_response(place: Field) -> DirectResponse:
    """An HTTPDirectResponse."""
    place.only(["body", "status"])
    status, body = read_number(place, "status", 0), place.sub("body")
    if not 200 <= status < 600:
        place.fault("status must be from 200 to 599")
        status = 200
    return DirectResponse(status, _body(body) if body is not None else b"")


def _body(place: Field) -> bytes:
    place.only(["bytes", "string"])
    text, coded = place.sub("string"), place.sub("bytes")
    if text is not None and coded is not None:
        place.fault("string and bytes exclude each other")
    body = text.as_text().encode() if text is not None else b""
    if coded is not None:
        try:
            body = b64decode(coded.as_text(), validate=True)
        except (Error, ValueError):
            coded.fault("not Base64")
    if len(body) > _MOST_BODY:
        place.fault("a body has at most 1 MiB")
        return b""
    return body


def read_rewrite(place: Field) -> Rewrite | None:
    """An HTTPRewrite; None, with a fault, where it says nothing."""
    place.only(["authority", "uri", "uriRegexRewrite"])
    uri, below, authority = place.text("uri"), place.sub("uriRegexRewrite"), place.text("authority")
    if uri and below is not None:
        place.fault("uri and uriRegexRewrite exclude each other")
    path = PathEdit(PathEditKind.MATCHED, uri) if uri else None
    if below is not None:
        below.only(["match", "rewrite"])
        pattern, by = below.sub("match"), below.sub("rewrite")
        text = read_pattern(pattern) if pattern is not None else ""
        if not text:
            below.fault("match is missing")
        path = PathEdit(PathEditKind.REGEX, read_substitute(by, text) if by is not None else "", text or ".")
    if path is None and not authority:
        place.fault("says nothing: it needs a uri, a uriRegexRewrite or an authority")
        return None
    return Rewrite(path, authority)


def read_fault(place: Field) -> Fault:
    """An HTTPFaultInjection. Without a percentage it never happens."""
    place.only(["abort", "delay"])
    delay, abort = place.sub("delay"), place.sub("abort")
    if delay is None and abort is None:
        place.fault("needs a delay or an abort")
    return Fault(_delay(delay) if delay is not None else None, _abort(abort) if abort is not None else None)


def _delay(place: Field) -> Delay | None:
    place.only(["exponentialDelay", "fixedDelay", "percent", "percentage"])
    share = read_share(place, "percentage")
    if share is None:
        share = read_whole_share(place, "percent") or 0
    seconds = read_duration(place, "fixedDelay", 0.001)
    if seconds is None and place.sub("exponentialDelay") is not None:
        place.fault("exponentialDelay is not supported, by Istio neither: did you mean fixedDelay?")
    elif seconds is None and place.sub("fixedDelay") is None:
        place.fault("fixedDelay is missing")
    return Delay(seconds, share) if seconds is not None else None


def _abort(place: Field) -> Abort | None:
    place.only(["grpcStatus", "http2Error", "httpStatus", "percentage"])
    share = read_share(place, "percentage") or 0
    status, name = place.sub("httpStatus"), place.sub("grpcStatus")
    if (status is None) is (name is None):
        place.fault("needs an httpStatus or a grpcStatus, and not both")
    elif name is not None:
        if name.as_text() in _GRPC:
            return Abort(share, grpc_status=_GRPC.index(name.as_text()))
        name.fault(f"must be one of {', '.join(_GRPC)}")
    else:
        number = read_number(place, "httpStatus", 0)
        if 200 <= number < 600:
            return Abort(share, number)
        place.fault("httpStatus must be from 200 to 599")
    return None


def read_cors(place: Field) -> Cors:
    """A CorsPolicy."""
    place.only(
        [
            "allowCredentials", "allowHeaders", "allowMethods", "allowOrigin", "allowOrigins",
            "exposeHeaders", "maxAge", "unmatchedPreflights",
        ]
    )  # fmt: skip
    choice = read_choice(place, "unmatchedPreflights", "UNSPECIFIED", "FORWARD", "IGNORE")
    age = read_duration(place, "maxAge")
    return Cors(
        tuple(_origins(place)),
        read_texts(place, "allowMethods"),
        read_texts(place, "allowHeaders"),
        read_texts(place, "exposeHeaders"),
        int(age) if age is not None else None,
        place.flag("allowCredentials"),
        choice != "IGNORE",
    )


def _origins(place: Field) -> Iterator[TextMatch]:
    for one in place.each("allowOrigin"):
        text = one.as_text()
        yield TextMatch(TextKind.PREFIX, "") if text == "*" else TextMatch(TextKind.EXACT, text)
    for one in place.each("allowOrigins"):
        found = read_text_match(one)
        if found is None:
            one.fault("an origin has an exact text, a prefix or a regular expression")
        elif found == TextMatch(TextKind.EXACT, "*"):
            yield TextMatch(TextKind.PREFIX, "")
        else:
            yield found


def read_share(parent: Field, name: str) -> int | None:
    """A Percent, `{value: 0.1}`, as a number of a million; None where it is absent."""
    place = parent.sub(name)
    if place is None:
        return None
    place.only(["value"])
    below = place.sub("value")
    value = below.as_decimal() if below is not None else 0.0
    if value is not None and not 0 <= value <= 100:
        place.fault("a percentage is from 0 to 100")
        return 0
    return round((value or 0.0) * MILLION / 100)


def read_whole_share(parent: Field, name: str) -> int | None:
    """A whole number of percent as a number of a million; None where it is absent."""
    if parent.sub(name) is None:
        return None
    value = read_number(parent, name, 0)
    if not 0 <= value <= 100:
        parent.fault(f"{name} is from 0 to 100")
        return 0
    return value * MILLION // 100


def read_number(parent: Field, name: str, default: int) -> int:
    """The whole number of that name."""
    place = parent.sub(name)
    found = place.as_number() if place is not None else default
    return default if found is None else found


def read_texts(parent: Field, name: str) -> tuple[str, ...]:
    """The strings of the list of that name."""
    return tuple(one.as_text() for one in parent.each(name))
