"""What a term of a policy is compared with, put so that a comparison is cheap: exact texts are a set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ztunnel.l7.regex import regex
from ztunnel.model.address import IPAddress, IPNetwork
from ztunnel.model.http_policy import TextKind, TextMatch, Value

_PLACEHOLDER = re.compile(r"(\{\*{1,2}\})")
_MEANING: Final = {"{*}": "[^/]+", "{**}": ".*"}


class Texts:
    """Comparisons with texts, of which any has to match.

    Attributes:
        exact, prefixes: for whoever sorts rules by what they can match at all.
        only_exact: there is nothing but these.
        anchored: there is nothing but these and prefixes.
    """

    __slots__ = (
        "anchored",
        "exact",
        "only_exact",
        "patterns",
        "prefixes",
        "present",
        "suffixes",
        "templates",
        "wildcards",
    )

    def __init__(self, values: Iterable[Value], fold: bool = False) -> None:
        """With `fold` all are in lower case, as what is compared has to be."""
        found: dict[TextKind, list[str]] = {kind: [] for kind in TextKind}
        for value in values:
            if isinstance(value, TextMatch):
                found[value.kind].append(value.text.lower() if fold else value.text)
        self.exact = frozenset(found[TextKind.EXACT])
        self.prefixes = tuple(found[TextKind.PREFIX])
        self.suffixes = tuple(found[TextKind.SUFFIX])
        self.wildcards = tuple([tuple(text.split("*")) for text in found[TextKind.WILDCARD]])
        self.templates = tuple(map(compile_template, found[TextKind.TEMPLATE]))
        self.patterns = list(map(regex, found[TextKind.REGEX]))
        self.present = bool(found[TextKind.PRESENCE])
        others = self.suffixes or self.present or self.wildcards or self.templates or self.patterns
        self.anchored = not others
        self.only_exact = self.anchored and not self.prefixes

    def match(self, text: str) -> bool:
        """Whether any of them does."""
        if text in self.exact:
            return True
        if self.prefixes and text.startswith(self.prefixes):
            return True
        if self.only_exact:
            return False
        if self.suffixes and text.endswith(self.suffixes):
            return True
        if self.present and text:
            return True
        for template in self.templates:
            if template.fullmatch(text) is not None:
                return True
        if self.patterns:
            octets = text.encode("utf-8", "surrogateescape")
            if any(pattern.matches(octets) for pattern in self.patterns):
                return True
        return any(_fits(parts, text) for parts in self.wildcards)


class Blocks:
    """Ranges of addresses, of which any has to hold the one that is asked about."""

    __slots__ = ("_networks",)

    def __init__(self, values: Iterable[Value]) -> None:
        self._networks: list[IPNetwork] = [
            value for value in values if not isinstance(value, int) and not isinstance(value, TextMatch)
        ]

    def match(self, ip: IPAddress | None) -> bool:
        """Whether any of them does."""
        return ip is not None and any(ip in network for network in self._networks)


def compile_template(text: str) -> re.Pattern[str]:
    """A path with `{*}`, one segment that is not empty, and `{**}`, any number of them (Envoy's URI template
    matching; that knows no other characters in a segment than RFC 3986 has, here it is all but a slash)."""
    parts = _PLACEHOLDER.split(text)
    return re.compile("".join(_MEANING.get(part) or re.escape(part) for part in parts), re.DOTALL)


def _fits(parts: tuple[str, ...], text: str) -> bool:
    """Whether `text` is these parts, in order, with anything between them."""
    first, last = parts[0], parts[-1]
    if not text.startswith(first):
        return False
    at, end = len(first), len(text) - len(last)
    for part in parts[1:-1]:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return at <= end and text.endswith(last)


class Principals:
    """Values of `requestPrincipals`: `issuer/subject`, with `*` at one end (istiod's generator.go: what
    stands behind the last slash is the subject, as an issuer may be a URL)."""

    __slots__ = ("_pairs",)

    def __init__(self, values: Iterable[Value]) -> None:
        self._pairs = [_pair(value) for value in values if isinstance(value, TextMatch)]

    def match(self, issuer: str, subject: str) -> bool:
        """Whether any of them does; both are empty where no token was verified."""
        return any(of.match(issuer) and by.match(subject) for of, by in self._pairs)


_ANY = TextMatch(TextKind.PRESENCE)


def _pair(value: TextMatch) -> tuple[Texts, Texts]:
    """The comparisons with issuer and subject."""
    issuer, slash, subject = value.text.rpartition("/")
    of = by = _ANY
    if value.kind is TextKind.EXACT:
        if not slash:
            return Texts(()), Texts(())  # an issuer without a subject: nobody
        of, by = TextMatch(TextKind.EXACT, issuer), TextMatch(TextKind.EXACT, subject)
    elif value.kind is TextKind.PREFIX:
        of = TextMatch(TextKind.EXACT, issuer) if slash else TextMatch(TextKind.PREFIX, value.text)
        by = TextMatch(TextKind.PREFIX, subject) if slash and subject else _ANY
    elif value.kind is TextKind.SUFFIX:
        of = TextMatch(TextKind.SUFFIX, issuer) if slash and issuer else _ANY
        by = TextMatch(TextKind.EXACT, subject) if slash else TextMatch(TextKind.SUFFIX, value.text)
    return Texts([of]), Texts([by])
