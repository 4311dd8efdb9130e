"""What a match asks of a request, compiled: texts, headers, parameters and claims (Envoy's StringMatcher and
HeaderMatcher, as Istio's route.go sets them up)."""

from __future__ import annotations

from collections.abc import Mapping

from ztunnel.l7.regex import Regex, regex
from ztunnel.l7.request import Request
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch

Claims = Mapping[str, object]

_EXACT, _PREFIX, _SEGMENTS, _REGEX, _PRESENT = range(5)
_NUMBERS = {
    TextKind.EXACT: _EXACT,
    TextKind.PREFIX: _PREFIX,
    TextKind.SEGMENTS: _SEGMENTS,
    TextKind.REGEX: _REGEX,
    TextKind.PRESENT: _PRESENT,
}


class Text:
    """One comparison."""

    __slots__ = ("_ignore_case", "_kind", "_regex", "_slash", "_text")

    def __init__(self, match: TextMatch) -> None:
        """Raises ValueError, with a reason: a regular expression that is none."""
        text = match.text.encode()
        self._kind = _NUMBERS[match.kind]
        self._ignore_case = match.ignore_case
        self._text = text.lower() if match.ignore_case else text
        if self._kind == _SEGMENTS:
            self._text = self._text.rstrip(b"/")
        self._slash = self._text + b"/"
        self._regex: Regex | None = regex(match.text) if self._kind == _REGEX else None

    def meets(self, value: bytes) -> bool:
        """Whether that value is one."""
        if self._regex is not None:
            return self._regex.matches(value)
        if self._ignore_case:
            value = value.lower()
        kind = self._kind
        if kind == _EXACT:
            return value == self._text
        if kind == _PREFIX:
            return value.startswith(self._text)
        return kind == _PRESENT or value == self._text or value.startswith(self._slash)


class Field:
    """One comparison of what stands under a name."""

    __slots__ = ("_negated", "_present", "_text", "name")

    def __init__(self, field: FieldMatch) -> None:
        """Raises ValueError, with a reason."""
        self.name = field.name.encode()
        self._text = Text(field.match)
        self._present = field.match.kind is TextKind.PRESENT
        self._negated = field.negated

    def meets(self, value: bytes | None) -> bool:
        """Whether that value is one; None: there is none."""
        if value is None:
            if not self._negated:
                return False
            return self._present or not self._text.meets(b"")
        return self._text.meets(value) != self._negated


class Claim:
    """One comparison of a claim of the request's token."""

    __slots__ = ("_negated", "_path", "_text")

    def __init__(self, claim: ClaimMatch) -> None:
        """Raises ValueError, with a reason."""
        self._path = claim.path
        self._text = Text(claim.match)
        self._negated = claim.negated

    def meets(self, claims: Claims) -> bool:
        """Whether these have one that is."""
        value: object = claims
        for name in self._path:
            value = value.get(name) if isinstance(value, Mapping) else None
        values = value if isinstance(value, list | tuple) else [value]
        met = any(isinstance(each, str) and self._text.meets(each.encode()) for each in values)
        return met != self._negated


class Asked:
    """A request, as rules look at it; what they look at is found out once.

    Attributes:
        method, scheme, path: the path is without its query.
        authority: in small letters.
        claims: of the token that was verified.
    """

    __slots__ = (
        "_headers",
        "_query",
        "_request",
        "_values",
        "authority",
        "claims",
        "method",
        "path",
        "scheme",
    )

    def __init__(self, request: Request) -> None:
        self._request = request
        self._headers: dict[bytes, bytes] | None = None
        self._values: dict[bytes, bytes] | None = None
        self.claims: Claims = request.claims
        self.method = request.method
        self.scheme = request.scheme
        self.authority = request.authority.lower()
        self.path, _, self._query = request.path.partition(b"?")

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, several joined as they are in one; None: there is none."""
        headers = self._headers
        if headers is None:
            headers = self._headers = joined(self._request)
        return headers.get(name)

    def parameter(self, name: bytes) -> bytes | None:
        """The first value of a query parameter, as it is written; None: there is none."""
        values = self._values
        if values is None:
            values = self._values = {}
            for part in self._query.split(b"&"):
                if part:
                    key, _, value = part.partition(b"=")
                    values.setdefault(key, value)
        return values.get(name)


def joined(request: Request) -> dict[bytes, bytes]:
    """The headers of a request by name, `host` and `upgrade` among them. Crumbs of cookies are joined as
    RFC 9113 section 8.2.3 says, all else as RFC 9110 section 5.3 does."""
    made = {b"host": request.authority}
    if request.upgrade:
        made[b"upgrade"] = request.upgrade
    for name, value in request.fields:
        before = made.get(name)
        if before is None:
            made[name] = value
        else:
            made[name] = b"%b%b%b" % (before, b"; " if name == b"cookie" else b",", value)
    return made


class Conditions:
    """All that one match asks."""

    __slots__ = ("_authority", "_claims", "_headers", "_method", "_path", "_query", "_scheme")

    def __init__(self, match: Match) -> None:
        """Raises ValueError, with a reason."""
        self._path = _text(match.path)
        self._method = _text(match.method)
        self._scheme = _text(match.scheme)
        self._authority = _text(lowered(match.authority))
        self._headers = [Field(each) for each in match.headers]
        self._query = [Field(each) for each in match.query]
        self._claims = [Claim(each) for each in match.claims]

    def meets(self, asked: Asked) -> bool:
        """Whether the request is one."""
        if self._path is not None and not self._path.meets(asked.path):
            return False
        if self._method is not None and not self._method.meets(asked.method):
            return False
        for field in self._headers:
            if not field.meets(asked.header(field.name)):
                return False
        for field in self._query:
            if not field.meets(asked.parameter(field.name)):
                return False
        if self._authority is not None and not self._authority.meets(asked.authority):
            return False
        if self._scheme is not None and not self._scheme.meets(asked.scheme):
            return False
        return all(claim.meets(asked.claims) for claim in self._claims)


def lowered(match: TextMatch | None) -> TextMatch | None:
    """A comparison of an authority, whose letters are small."""
    if match is None or match.kind is TextKind.REGEX:
        return match
    return TextMatch(match.kind, match.text.lower())


def _text(match: TextMatch | None) -> Text | None:
    return Text(match) if match is not None else None
