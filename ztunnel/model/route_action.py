"""What becomes of a request that a routing rule is for: it is sent on, redirected or answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.model.service import ServiceName

Field = tuple[str, str]


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes of one message's headers, in this order: remove, set (instead of what is there), add (besides
    it).

    Names are in small letters. Values are Envoy's formats: `%REQ(x)%` and so on, `%%` for a percent sign; the
    translation of a resource whose values are plain text doubles its percent signs. What is said of `host`
    is an authority (`Rewrite`, `Destination`), not one of these.
    """

    remove: tuple[str, ...] = ()
    set: tuple[Field, ...] = ()
    add: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.remove, *(name for name, _ in (*self.set, *self.add))):
            if not name or name != name.lower() or name.startswith(":") or name == "host":
                raise ValueError(
                    f"a header to edit is named in small letters, is no pseudo-header and not host: {name!r}"
                )


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes of the headers of a request, as it is sent on, and of its response."""

    request: HeaderEdits = HeaderEdits()
    response: HeaderEdits = HeaderEdits()


NO_EDITS = Edits()


class PathEditKind(StrEnum):
    """Which part of a path is replaced; its query stays, but for one that a FULL text of a redirect has
    itself.

    MATCHED is VirtualService's `rewrite.uri`: what a prefix matched, else the whole path. SEGMENTS is
    HTTPRoute's `ReplacePrefixMatch`: the path segments that matched, with one slash where the rest joins.
    FULL is the whole path. REGEX is what `pattern` finds, each time, by a text with `\\1` to `\\9`.
    """

    MATCHED = "matched"
    SEGMENTS = "segments"
    FULL = "full"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class PathEdit:
    """Another path."""

    kind: PathEditKind
    text: str
    pattern: str = ""

    def __post_init__(self) -> None:
        if (self.kind is PathEditKind.REGEX) != bool(self.pattern):
            raise ValueError(
                "a path is edited by a pattern if it is by a regular expression, and else by none"
            )
        if self.kind is PathEditKind.FULL and not self.text.startswith("/"):
            raise ValueError(f"a whole path begins with a slash: {self.text!r}")


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How a request is sent on: with another path, another authority, or both."""

    path: PathEdit | None = None
    authority: str = ""

    def __post_init__(self) -> None:
        if self.path is None and not self.authority:
            raise ValueError("a rewrite says another path or another authority")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing can be sent to a destination, and with which status its share of the requests is
    answered: 500 says the Gateway API of an HTTPRoute's backendRef that is invalid, 503 Istio of a host or
    subset that is unknown, and a GRPCRoute: it is UNAVAILABLE to a client of gRPC."""

    status: int
    reason: str

    def __post_init__(self) -> None:
        if self.status not in (500, 503):
            raise ValueError(f"what has no destination is answered with 500 or 503, not {self.status}")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where requests are sent.

    Attributes:
        service: that they go to; it need not be the one that was called.
        port: of that service; 0: the one that was called.
        subset: its name, for log and metrics; empty for the whole service.
        labels: of the workloads that are the subset, sorted; none: all of the service's.
        weight: its share among the destinations of its rule. One that is alone gets all, whatever it says.
        edits: after those of the rule.
        authority: that its requests get, where the rule's rewrite says none.
        refusal: why it cannot be used; None if it can.
    """

    service: ServiceName
    port: int = 0
    subset: str = ""
    labels: tuple[Field, ...] = ()
    weight: int = 1
    edits: Edits = NO_EDITS
    authority: str = ""
    refusal: Refusal | None = None

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"a weight is not negative: {self.weight}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"not a port: {self.port}")
        if list(self.labels) != sorted(self.labels):
            raise ValueError("labels are sorted")


@dataclass(frozen=True, slots=True)
class Forward:
    """A request is sent to one of these, by weight. Nowhere to send it to at all is one destination with a
    refusal."""

    destinations: tuple[Destination, ...]

    def __post_init__(self) -> None:
        if not self.destinations:
            raise ValueError("a rule that sends requests on has a destination")
        if len(self.destinations) > 1 and not any(each.weight for each in self.destinations):
            raise ValueError("of several destinations one has a weight")


class RedirectPort(StrEnum):
    """Which port a redirect names where it says no number. KEPT: the one in the authority, but for the
    default one of a scheme that changes (Envoy). SCHEME: the scheme's, so none. REQUEST: the one that was
    called."""

    KEPT = "kept"
    SCHEME = "scheme"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Redirect:
    """A response with a Location. What is empty or None stays as the request has it. A port is left out
    where it is the scheme's own: 80 of http, 443 of https."""

    status: int = 301
    scheme: str = ""
    authority: str = ""
    path: PathEdit | None = None
    port: int = 0
    port_from: RedirectPort = RedirectPort.KEPT

    def __post_init__(self) -> None:
        if self.status not in (301, 302, 303, 307, 308):
            raise ValueError(f"a redirect has status 301, 302, 303, 307 or 308, not {self.status}")
        if self.scheme not in ("", "http", "https"):
            raise ValueError(f"a redirect is to http or https, not {self.scheme!r}")
        if not 0 <= self.port < 65536:
            raise ValueError(f"not a port: {self.port}")


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """A response of our own."""

    status: int
    body: bytes = b""

    def __post_init__(self) -> None:
        if not 200 <= self.status < 600:
            raise ValueError(f"a direct response has a status from 200 to 599, not {self.status}")


Action = Forward | Redirect | DirectResponse
