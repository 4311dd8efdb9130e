"""Where a redirect sends a client to: its Location (Envoy's RouteEntryImplBase::newUri; HTTPRoute's
HTTPRequestRedirectFilter says the same of ports)."""

from __future__ import annotations

import re

from ztunnel.l7.routing.path_edit import CompiledPathEdit, edited
from ztunnel.model.route_action import Redirect, RedirectPort
from ztunnel.model.route_match import TextMatch

_DEFAULT = {b"http": b"80", b"https": b"443"}
_AUTHORITY = re.compile(r"(?:[0-9A-Za-z._~*-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Location:
    """The Locations of one redirect, for requests that one match of its rule is for."""

    __slots__ = ("_authority", "_path", "_port", "_port_from", "_scheme", "status")

    def __init__(self, redirect: Redirect, matched: TextMatch | None) -> None:
        """Raises ValueError, with a reason."""
        if redirect.authority and not _AUTHORITY.fullmatch(redirect.authority):
            raise ValueError(f"a redirect is to a host, perhaps with a port, not {redirect.authority[:80]!r}")
        self.status = redirect.status
        self._scheme = redirect.scheme.encode()
        self._authority = redirect.authority.encode()
        self._path = CompiledPathEdit(redirect.path, matched) if redirect.path is not None else None
        self._port = b"%d" % redirect.port if redirect.port else b""
        self._port_from = redirect.port_from

    def of(self, scheme: bytes, authority: bytes, target: bytes, port: int) -> bytes:
        """The Location for a request of that scheme, authority and target, at that port of the service."""
        path: bytes | None = target
        if self._path is not None:
            path = edited(self._path, target)
        to_scheme = self._scheme or scheme
        host, said = _split(self._authority or authority)
        if self._port:
            said = self._port
        elif self._port_from is RedirectPort.SCHEME:
            said = b""
        elif self._port_from is RedirectPort.REQUEST:
            # A client of https is behind a gateway that ends its TLS, and has called a port of that.
            said = said if scheme == b"https" else b"%d" % port
        elif not self._authority and to_scheme != scheme and said == _DEFAULT.get(scheme):
            said = b""
        if said == _DEFAULT.get(to_scheme):
            said = b""
        return b"%b://%b%b%b" % (to_scheme, host, b":" + said if said else b"", path or b"/")


def _split(authority: bytes) -> tuple[bytes, bytes]:
    """Host and port; no port is an empty one."""
    host, colon, port = authority.rpartition(b":")
    return (host, port) if colon and port.isdigit() else (authority, b"")
