"""Changes of headers in manifests of Istio and of the Gateway API, read into one form.

What Istio lets one say of the headers `host` and `:authority` is an authority, and kept apart
(pkg/config/validation/virtualservice.go)."""

from __future__ import annotations

import re
from typing import Final

from ztunnel.model.route_action import Field as Header
from ztunnel.model.route_action import HeaderEdits
from ztunnel.state.field import Field
from ztunnel.state.pattern import read_format

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
"""RFC 9110 section 5.6.2."""
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]{0,8192}")
_AUTHORITY: Final = ("host", ":authority")


def read_header_name(place: Field, text: str) -> str:
    """A name in small letters, with a fault at `place` where it is none that may be compared or changed."""
    if text.startswith(":") or text.lower() == "host":
        place.fault(f"{text!r} is no header that can be named here")
    elif not _NAME.fullmatch(text):
        place.fault(f"not the name of a header: {text[:80]!r}")
    else:
        return text.lower()
    return "x"


def read_edits(parent: Field, name: str) -> tuple[HeaderEdits, str]:
    """Istio's `headers.request` or `headers.response`: mappings `set` and `add`, a list `remove`; and the
    authority, which only requests may be given."""
    place = parent.sub(name)
    if place is None:
        return HeaderEdits(), ""
    place.only(["add", "remove", "set"])
    added, authority = _pairs(place, "add", authority=name == "request")
    replaced, overwritten = _pairs(place, "set", authority=name == "request")
    removed = tuple(read_header_name(one, one.as_text("x")) for one in place.each("remove"))
    return HeaderEdits(removed, replaced, added), overwritten or authority


def _pairs(parent: Field, name: str, *, authority: bool) -> tuple[tuple[Header, ...], str]:
    below, found, host = parent.sub(name), dict[str, str](), ""
    for key, place in below.pairs() if below else ():
        value = read_format(place)
        if authority and key.lower() in _AUTHORITY:
            host = value
        else:
            found[read_header_name(place, key)] = value
    return tuple(sorted(found.items())), host


def read_header_value(place: Field) -> str:
    """The value of a header as it is."""
    text = place.as_text()
    if not _VALUE.fullmatch(text):
        place.fault("not the value of a header: control characters, or more than 8192 characters")
        return ""
    return text


def read_modifier(place: Field) -> HeaderEdits:
    """The Gateway API's HTTPHeaderFilter, whose values are plain text: lists `set` and `add` of names and
    values, of which the first of a name counts, and a list `remove`."""
    place.only(["add", "remove", "set"])
    return HeaderEdits(
        tuple(read_header_name(one, one.as_text("x")) for one in place.each("remove")),
        _headers(place, "set"),
        _headers(place, "add"),
    )


def _headers(parent: Field, name: str) -> tuple[Header, ...]:
    found: dict[str, str] = {}
    for place in parent.each(name):
        place.only(["name", "value"])
        value = place.sub("value")
        text = read_header_value(value) if value is not None else ""
        found.setdefault(read_header_name(place, place.text("name")), text.replace("%", "%%"))
    return tuple(found.items())
