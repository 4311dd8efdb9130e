"""What a routing rule asks of a request: of its path, method, scheme, authority, headers, query and
claims."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_SEGMENTS = re.compile("/|/.*[^/]", re.DOTALL)


class TextKind(StrEnum):
    """How a text is compared.

    PREFIX is of characters, as a VirtualService has it: `/foo` is one of `/foobar`. SEGMENTS is of path
    segments, as an HTTPRoute has it: `/foo` is one of `/foo` and `/foo/bar` only. REGEX is of RE2, of the
    whole text. PRESENT asks for no text, only that there is a value.
    """

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"
    REGEX = "regex"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class TextMatch:
    """One comparison. `ignore_case` is of ASCII, and not for a REGEX, which says it itself: `(?i)`."""

    kind: TextKind
    text: str = ""
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if self.kind is TextKind.PRESENT and self.text:
            raise ValueError(f"whether a value is there is asked without a text, not {self.text!r}")
        if self.kind is TextKind.REGEX and self.ignore_case:
            raise ValueError("a regular expression ignores case by (?i), not by a flag")
        if self.kind is TextKind.SEGMENTS and not _SEGMENTS.fullmatch(self.text):
            raise ValueError(f"path segments begin with a slash and end with none, but for /: {self.text!r}")


@dataclass(frozen=True, slots=True)
class FieldMatch:
    """A comparison of what stands under a name: of a header, in small letters, whose values are joined by
    commas (RFC 9110 section 5.3), or of a query parameter, whose first value counts.

    `negated` is VirtualService's `withoutHeaders`: the request is met where the comparison is not. A header
    that is missing is compared as an empty text then; negated PRESENT asks that it is missing.
    """

    name: str
    match: TextMatch
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a comparison is of a header or parameter that has a name")
        if self.match.kind is TextKind.SEGMENTS:
            raise ValueError(f"only a path has segments, not {self.name!r}")


@dataclass(frozen=True, slots=True)
class ClaimMatch:
    """A comparison of a claim of the request's JWT, by its path: `("group", "id")`. Of a list any element
    will do. A request without a valid token has no claims."""

    path: tuple[str, ...]
    match: TextMatch
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.path or not all(self.path):
            raise ValueError("a claim has a name, and so has each that it stands in")


@dataclass(frozen=True, slots=True)
class Match:
    """All that is said here AND; an empty one is met by every request.

    Attributes:
        name: by which Istio names the match of a rule (`match[].name`): the log has `<rule>.<match>`.
        ports: of the service, at which the match is one at all; none: at all of them.
        path: without its query.
        authority: as the request has it, with its port if it says one; compared in small letters.
    """

    name: str = ""
    ports: tuple[int, ...] = ()
    path: TextMatch | None = None
    method: TextMatch | None = None
    scheme: TextMatch | None = None
    authority: TextMatch | None = None
    headers: tuple[FieldMatch, ...] = ()
    query: tuple[FieldMatch, ...] = ()
    claims: tuple[ClaimMatch, ...] = ()

    def __post_init__(self) -> None:
        for one in (self.method, self.scheme, self.authority):
            if one is not None and one.kind is TextKind.SEGMENTS:
                raise ValueError(f"only a path has segments, not what is compared with {one.text!r}")
        for field in self.headers:
            if field.name != field.name.lower() or field.name.startswith(":"):
                raise ValueError(f"a header is named in small letters, and no pseudo-header: {field.name!r}")

    def is_at(self, port: int) -> bool:
        """Whether it is one for requests to that port of the service."""
        return not self.ports or port in self.ports
