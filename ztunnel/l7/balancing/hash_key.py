"""The key of a request by which it is hashed, and the cookie that it is given where it has none (Envoy's
hash_policy.cc)."""

from __future__ import annotations

from ztunnel.l7.balancing.host import hash_of
from ztunnel.l7.chance import Rng
from ztunnel.l7.request import Request
from ztunnel.model.address import IPAddress
from ztunnel.model.traffic import ConsistentHash, HashCookie


class HashKey:
    """What was found of one request.

    Attributes:
        key: None: it has none, and goes anywhere.
        cookie: a `set-cookie` for its response; empty: none.
    """

    __slots__ = ("cookie", "key")

    def __init__(self, key: int | None, cookie: bytes = b"") -> None:
        self.key = key
        self.cookie = cookie


NO_KEY = HashKey(None)


def hash_key(by: ConsistentHash, request: Request, source: IPAddress, rng: Rng) -> HashKey:
    """The key of a request.

    A cookie that is made is of chance, not of the client's address as Envoy's is: behind a gateway all
    clients have one address, and would all get one cookie.
    """
    if by.source_ip:
        return HashKey(hash_of(source.packed))
    if by.header:
        name = by.header.encode()
        if name == b"host":
            return HashKey(hash_of(request.authority))
        values = [value for each, value in request.fields if each == name]
        return HashKey(hash_of(b",".join(sorted(values)))) if values else NO_KEY
    if by.query:
        value = _parameter(request.path, by.query.encode())
        return NO_KEY if value is None else HashKey(hash_of(value))
    if by.cookie is None:
        return NO_KEY
    value = _cookie(request, by.cookie.name.encode())
    if value:
        return HashKey(hash_of(value))
    if by.cookie.ttl_seconds is None:
        return NO_KEY
    made = b"%016x" % int(rng.random() * (1 << 53))
    return HashKey(hash_of(made), _set_cookie(by.cookie, made))


def _set_cookie(cookie: HashCookie, value: bytes) -> bytes:
    parts = [b'%b="%b"' % (cookie.name.encode(), value)]
    if cookie.ttl_seconds:
        parts.append(b"Max-Age=%d" % max(int(cookie.ttl_seconds), 1))
    if cookie.path:
        parts.append(b"Path=" + cookie.path.encode())
    for name, text in cookie.attributes:
        parts.append(f"{name}={text}".encode() if text else name.encode())
    parts.append(b"HttpOnly")
    return b"; ".join(parts)


def _cookie(request: Request, name: bytes) -> bytes:
    """The value of the first cookie of that name, without its quotes (RFC 6265 section 4.2)."""
    for each, value in request.fields:
        if each == b"cookie":
            for pair in value.split(b";"):
                key, equals, found = pair.strip().partition(b"=")
                if equals and key == name:
                    return found[1:-1] if len(found) > 1 and found[:1] == found[-1:] == b'"' else found
    return b""


def _parameter(path: bytes, name: bytes) -> bytes | None:
    """The first value of a query parameter, as it is written."""
    query = path.partition(b"?")[2].partition(b"#")[0]
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name:
            return value
    return None
