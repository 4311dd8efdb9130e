"""The rules of a service's port, compiled: a request in, the first rule that is for it out.

Most rules ask for something that few others ask for: a path, the beginning of one, a header's value. Each
is put under the rarest thing that it asks for; only those are tried, in their order, that stand under
something that the request has, and those that stand under nothing.

```
path /a ──────── exact ────> [0, 7]   ┐
beginning /api ─ prefixes ─> [3]      ├─ sorted: 0 3 5 7 ─┐
x-user: jason ── headers ──> [5]      │                   ├─ the first whose conditions are met
all other rules ───────────> [..]     ┘                   │
only .*/x ────── expressions, those that match, in order ─┘
```
"""

from __future__ import annotations

from collections import Counter

from ztunnel.l7.regex import regex
from ztunnel.l7.request import Request
from ztunnel.l7.routing.alternation import Alternation
from ztunnel.l7.routing.comparison import Asked, lowered
from ztunnel.l7.routing.route import Route, routes_of
from ztunnel.model.route import Routes
from ztunnel.model.route_match import FieldMatch, Match, TextKind

_MOST_LENGTHS = 32
"""Lengths of beginnings that are looked up; others are looked up by less than they have."""

_MOST_NAMES = 8
"""Headers, and parameters, that are looked up."""

_EXACT, _PREFIX, _HEADER, _PARAMETER, _AUTHORITY = range(5)

_Key = tuple[int, bytes, bytes]
_Under = dict[bytes, list[int]]


class Router:
    """Those of one port.

    Attributes:
        empty: there are none, and requests go where they would without routes.
    """

    __slots__ = (
        "_authorities", "_exact", "_expressions", "_headers", "_lengths", "_parameters", "_prefixes", "_rest",
        "_routes", "empty",
    )  # fmt: skip

    def __init__(self, routes: Routes, port: int) -> None:
        """Raises ValueError, with a reason: a rule that cannot be compiled."""
        self._routes = [route for rule in routes.rules for route in routes_of(rule, port)]
        self.empty = not self._routes
        self._exact: _Under = {}
        self._prefixes: _Under = {}
        self._headers: dict[bytes, _Under] = {}
        self._parameters: dict[bytes, _Under] = {}
        self._authorities: _Under = {}
        self._rest: list[int] = []
        self._expressions: Alternation | None = None
        keys = [_keys(route.match) for route in self._routes]
        lengths = sorted({len(text) for found in keys for kind, _, text in found if kind == _PREFIX})
        step = -(-len(lengths) // _MOST_LENGTHS) if lengths else 1
        self._lengths = lengths[::step]
        self._put([[_cut(key, self._lengths) for key in found] for found in keys])

    def _put(self, keys: list[list[_Key]]) -> None:
        how_many = Counter(key for found in keys for key in found)
        names = Counter(key[:2] for found in keys for key in found if key[1])
        rest: list[int] = []
        usual = {name for name, _ in names.most_common(_MOST_NAMES)}
        for number, found in enumerate(keys):
            known = [key for key in found if not key[1] or key[:2] in usual]
            if not known:
                rest.append(number)
                continue
            kind, name, text = min(known, key=lambda key: (how_many[key], -len(key[2])))
            self._under(kind, name).setdefault(text, []).append(number)
        by_path = [
            (number, path.text)
            for number in rest
            if (path := self._routes[number].match.path) and path.kind is TextKind.REGEX
        ]
        self._expressions = Alternation(by_path) if by_path else None
        looked_up = {number for number, _ in by_path}
        self._rest = [number for number in rest if number not in looked_up]

    def _under(self, kind: int, name: bytes) -> _Under:
        if kind == _HEADER:
            return self._headers.setdefault(name, {})
        if kind == _PARAMETER:
            return self._parameters.setdefault(name, {})
        return (self._exact, self._prefixes, {}, {}, self._authorities)[kind]

    def decide(self, asked: Asked) -> Route | None:
        """The first route that the request is one for; None: there is none."""
        routes = self._routes
        expressions, path = self._expressions, asked.path
        matching = expressions.next(path, 0) if expressions is not None else -1
        for number in self._candidates(asked):
            while 0 <= matching < number:
                route = routes[matching]
                if route.conditions.meets(asked):
                    return route
                matching = self._after(matching, path)
            route = routes[number]
            if route.conditions.meets(asked):
                return route
        while matching >= 0:
            route = routes[matching]
            if route.conditions.meets(asked):
                return route
            matching = self._after(matching, path)
        return None

    def _after(self, number: int, path: bytes) -> int:
        assert self._expressions is not None
        return self._expressions.next(path, number + 1)

    def _candidates(self, asked: Asked) -> list[int]:
        """In their order."""
        found = [self._rest] if self._rest else []
        _look_up(self._exact, asked.path, found)
        path, size = asked.path, len(asked.path)
        for length in self._lengths:
            if length > size:
                break
            _look_up(self._prefixes, path[:length], found)
        for name, under in self._headers.items():
            _look_up(under, asked.header(name), found)
        for name, under in self._parameters.items():
            _look_up(under, asked.parameter(name), found)
        if self._authorities:
            _look_up(self._authorities, asked.authority, found)
        if len(found) == 1:
            return found[0]
        return sorted([number for each in found for number in each])


def decide_about(router: Router, request: Request) -> Route | None:
    """The route of a request. A preflight that no rule is for is one for the rule that its page's request
    would be for, where that shares its responses: whoever lists methods in a rule seldom thinks of
    OPTIONS."""
    asked = Asked(request)
    found = router.decide(asked)
    if found is not None or request.method != b"OPTIONS":
        return found
    asked.method = request.get(b"access-control-request-method")
    meant = router.decide(asked) if asked.method else None
    return meant if meant is not None and meant.cors is not None else None


def _look_up(under: _Under, text: bytes | None, found: list[list[int]]) -> None:
    """Add what stands under that text to what was found."""
    if text is not None:
        numbers = under.get(text)
        if numbers is not None:
            found.append(numbers)


def _keys(match: Match) -> list[_Key]:
    """All that a request must have that the match is for, of what can be looked up."""
    made: list[_Key] = []
    path = match.path
    if path is not None and not path.ignore_case:
        if path.kind is TextKind.EXACT:
            made.append((_EXACT, b"", path.text.encode()))
        elif path.kind in (TextKind.PREFIX, TextKind.SEGMENTS):
            made.append((_PREFIX, b"", path.text.encode()))
        elif path.kind is TextKind.REGEX and regex(path.text).prefix:
            made.append((_PREFIX, b"", regex(path.text).prefix))
    made += [(_HEADER, *key) for each in match.headers for key in _exact(each)]
    made += [(_PARAMETER, *key) for each in match.query for key in _exact(each)]
    authority = lowered(match.authority)
    if authority is not None and authority.kind is TextKind.EXACT:
        made.append((_AUTHORITY, b"", authority.text.encode()))
    return [key for key in made if key[0] != _PREFIX or key[2]]


def _exact(field: FieldMatch) -> list[tuple[bytes, bytes]]:
    match = field.match
    if field.negated or match.kind is not TextKind.EXACT or match.ignore_case:
        return []
    return [(field.name.encode(), match.text.encode())]


def _cut(key: _Key, lengths: list[int]) -> _Key:
    """A beginning by no more than is looked up."""
    if key[0] != _PREFIX:
        return key
    return key[0], key[1], key[2][: max(length for length in lengths if length <= len(key[2]))]
