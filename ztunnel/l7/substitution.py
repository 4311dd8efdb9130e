"""Values with Envoy's command operators in them: `%REQ(x-user)%` and the like, `%%` for a percent sign
(Envoy's substitution formatter, as header values use it).

A value is parsed once; what an operator has no value for is left out, and `-` stands where Envoy's log has
it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_OPERATOR = re.compile(r"%(?:%|([A-Z_]+)(?:\(([^()%]*)\))?(?::([0-9]{1,5}))?%)")
_HEADER = re.compile(r":?[!#$&'*+.^_`|~0-9A-Za-z-]+")
_MOST_CHARACTERS = 8192


class Facts(NamedTuple):
    """What operators speak of. Names of headers are in small letters; an empty text is one that is not known.

    Attributes:
        request, response: give the value of a header, `:method` and the like among them; None: there is none.
        protocol: `HTTP/1.1` or `HTTP/2`.
        remote, local: the client's address with its port, and the one that it called.
        principal: the client's SPIFFE identity.
        route: the name of the rule.
        status: of the response; 0 for none.
    """

    request: Callable[[bytes], bytes | None]
    response: Callable[[bytes], bytes | None]
    protocol: str = ""
    remote: str = ""
    local: str = ""
    principal: str = ""
    route: str = ""
    upstream: str = ""
    status: int = 0


_Part = bytes | Callable[[Facts], bytes]


class Value:
    """One value.

    Attributes:
        plain: it, where it has no operators; else None.
    """

    __slots__ = ("_parts", "plain")

    def __init__(self, text: str) -> None:
        """Raises ValueError, with a reason: an operator that there is not, or a character that no header
        has."""
        if len(text) > _MOST_CHARACTERS or any(
            (ord(each) < 32 and each != "\t") or each == "\x7f" for each in text
        ):
            raise ValueError(f"not the value of a header: {text[:80]!r}")
        self._parts: list[_Part] = []
        at = 0
        for found in _OPERATOR.finditer(text):
            start, end = found.span()
            self._add(text[at:start], text)
            self._parts.append(b"%" if found[1] is None else _operator(found[1], found[2], found[3]))
            at = end
        self._add(text[at:], text)
        plain = [part for part in self._parts if isinstance(part, bytes)]
        self.plain = b"".join(plain) if len(plain) == len(self._parts) else None

    def _add(self, part: str, text: str) -> None:
        if "%" in part:
            raise ValueError(f"a percent sign that stands for itself is doubled (%%): {text[:80]!r}")
        if part:
            self._parts.append(part.encode())

    def text(self, facts: Facts) -> bytes:
        """The value for these."""
        if self.plain is not None:
            return self.plain
        return b"".join([part if isinstance(part, bytes) else part(facts) for part in self._parts])


def _operator(name: str, argument: str | None, limit: str | None) -> Callable[[Facts], bytes]:
    """Raises ValueError, with a reason."""
    if name in ("REQ", "RESP"):
        return _cut(_header(name, argument or ""), limit)
    plain = _PLAIN.get(name)
    if plain is None:
        known = ", ".join(sorted((*_PLAIN, "REQ(header)", "RESP(header)")))
        raise ValueError(f"there is no %{name}% here; there are {known}")
    if argument is not None or limit is not None:
        raise ValueError(f"%{name}% has no argument")
    return plain


def _header(name: str, argument: str) -> Callable[[Facts], bytes]:
    """`%REQ(first?other)%`: the other where there is no first."""
    names = argument.split("?")
    if not 1 <= len(names) <= 2 or not all(_HEADER.fullmatch(each) for each in names):
        raise ValueError(f"%{name}(...)% names a header, or two: {argument!r}")
    wanted = [each.lower().encode() for each in names]

    def found(facts: Facts) -> bytes:
        get = facts.request if name == "REQ" else facts.response
        for each in wanted:
            value = get(each)
            if value is not None:
                return value
        return b""

    return found


def _cut(value: Callable[[Facts], bytes], limit: str | None) -> Callable[[Facts], bytes]:
    if limit is None:
        return value
    most = int(limit)
    return lambda facts: value(facts)[:most]


def _without_port(endpoint: str) -> bytes:
    return endpoint.rpartition(":")[0].strip("[]").encode()


_PLAIN: dict[str, Callable[[Facts], bytes]] = {
    "PROTOCOL": lambda facts: facts.protocol.encode(),
    "DOWNSTREAM_REMOTE_ADDRESS": lambda facts: facts.remote.encode(),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda facts: _without_port(facts.remote),
    "DOWNSTREAM_LOCAL_ADDRESS": lambda facts: facts.local.encode(),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda facts: _without_port(facts.local),
    "DOWNSTREAM_LOCAL_PORT": lambda facts: facts.local.rpartition(":")[2].encode(),
    "DOWNSTREAM_PEER_URI_SAN": lambda facts: facts.principal.encode(),
    "UPSTREAM_HOST": lambda facts: facts.upstream.encode(),
    "ROUTE_NAME": lambda facts: facts.route.encode(),
    "RESPONSE_CODE": lambda facts: b"%d" % facts.status,
}
