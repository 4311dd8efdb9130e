"""One request as policies look at it: texts as they are compared, made when they are asked for."""

from __future__ import annotations

from typing import Any

from ztunnel.errors import PeerError
from ztunnel.l7.request import Request
from ztunnel.model.address import IPAddress, parse_ip


class Attributes:
    """The request and who is at the other end of the connection.

    Args:
        peer: the connection's client.
        hops: proxies before this one that are trusted to have written X-Forwarded-For (Istio's
            numTrustedProxies).
    """

    __slots__ = ("_headers", "_hops", "_path", "_peer", "_remote", "_request")

    def __init__(self, request: Request, peer: IPAddress, hops: int = 0) -> None:
        self._request = request
        self._peer = peer
        self._hops = hops
        self._path: str | None = None
        self._remote: IPAddress | None = None
        self._headers: dict[str, str] | None = None

    @property
    def path(self) -> str:
        """Without its query (Envoy's PathMatcher)."""
        if self._path is None:
            self._path = _text(self._request.path.partition(b"?")[0])
        return self._path

    @property
    def method(self) -> str:
        """As it was sent: methods have cases."""
        return _text(self._request.method)

    @property
    def host(self) -> str:
        """The authority in lower case, with its port where it has one."""
        return _text(self._request.authority).lower()

    @property
    def remote_ip(self) -> IPAddress:
        """The client, as proxies before this one tell it: what X-Forwarded-For has at its end, but for the
        hops that are trusted; the connection's own where there is no address (Envoy's
        getLastAddressFromXFF, but for ports: those that some proxies add are passed over)."""
        if self._remote is None:
            self._remote = self._forwarded() or self._peer
        return self._remote

    def _forwarded(self) -> IPAddress | None:
        value = self.header("x-forwarded-for")
        if value is None:
            return None
        entries = value.split(",")
        if len(entries) <= self._hops:
            return None
        try:
            return parse_ip(_without_port(entries[-1 - self._hops].strip()))
        except PeerError:
            return None

    def header(self, name: str) -> str | None:
        """The values of a header, joined by commas where there are several (RFC 9110 section 5.3); None: it
        has none. Pseudo-header fields are headers, and `host` is the authority."""
        if self._headers is None:
            self._headers = self._read()
        return self._headers.get(name)

    def _read(self) -> dict[str, str]:
        request = self._request
        found = {
            ":method": self.method,
            ":authority": _text(request.authority),
            ":path": _text(request.path),
            ":scheme": _text(request.scheme),
            "host": _text(request.authority),
        }
        for untrusted, value in request.fields:
            name, text = _text(untrusted), _text(value)
            found[name] = f"{found[name]},{text}" if name in found else text
        return found

    def claim(self, path: tuple[str, ...]) -> list[str]:
        """The texts of a claim: itself, or what is in its list; none for what is anything else."""
        found: Any = self._request.claims
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str):
            return [found]
        if isinstance(found, list | tuple):
            return [each for each in found if isinstance(each, str)]
        return []

    @property
    def issuer(self) -> str:
        """Of the token; empty where none was verified."""
        return self._one("iss")

    @property
    def subject(self) -> str:
        """Of the token; empty where none was verified."""
        return self._one("sub")

    def _one(self, name: str) -> str:
        found = self._request.claims.get(name)
        return found if isinstance(found, str) else ""


def _without_port(untrusted: str) -> str:
    """`192.0.2.1:80` and `[2001:db8::1]:80` as an address (Azure's Application Gateway adds ports)."""
    if untrusted.startswith("["):
        return untrusted[1:].partition("]")[0]
    return untrusted.partition(":")[0] if untrusted.count(":") == 1 else untrusted


def _text(octets: bytes) -> str:
    """Bytes that are no UTF-8 are equal to no text of a policy, and to nothing else."""
    return octets.decode("utf-8", "surrogateescape")
