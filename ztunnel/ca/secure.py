"""The TLS of the control plane's port: a certificate of its own making, renewed while it serves."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import trio

from ztunnel.errors import ConfigError, NoCertificate
from ztunnel.identity.authority import Authority
from ztunnel.identity.secure import load_key
from ztunnel.identity.serving import Serving, make_serving
from ztunnel.identity.standing import StandingAuthority

_LIFETIME: Final = timedelta(hours=24)
_LOOK_SECONDS: Final = 30.0
"""When the wall clock is set, it is seen this late."""


class ServingTls:
    """Holds the context for new connections. Those that stand keep the certificate that they began with.

    It is renewed at half of its life, when another authority comes into force, and when a connection comes
    and it has expired (a clock that was set, a machine that slept).
    """

    def __init__(
        self,
        authority: StandingAuthority,
        names: Sequence[str],
        now: Callable[[], datetime],
        lifetime: timedelta = _LIFETIME,
    ) -> None:
        """`names` are the DNS names and addresses by which clients call."""
        self._authority = authority
        self._names = tuple(names)
        self._now = now
        self._lifetime = lifetime
        self._signer: Authority | None = None
        self._serving: Serving | None = None
        self._context: ssl.SSLContext | None = None
        self.renewed_total = 0

    @property
    def not_after(self) -> datetime | None:
        """When the certificate in force expires."""
        return self._serving.not_after if self._serving is not None else None

    def context(self) -> ssl.SSLContext:
        """For one new connection. Client certificates of the mesh are verified where they are shown.

        Raises:
            OSError: there is no authority that could sign; the client tries again.
        """
        try:
            return self._current()
        except (ConfigError, NoCertificate) as error:
            raise OSError(f"no certificate to serve with: {error}") from error

    async def run(self) -> None:
        """Renew in time, until cancelled; so no client waits for it."""
        while True:
            with suppress(ConfigError, NoCertificate):  # who watches the authority says it
                self._current()
            await trio.sleep(min(_LOOK_SECONDS, self._lifetime.total_seconds() / 10))

    def _current(self) -> ssl.SSLContext:
        signer, now = self._authority.current, self._now()
        if signer is None:
            raise NoCertificate("the certificate authority has not been read yet")
        serving = self._serving
        if self._context is None or serving is None or signer is not self._signer or _is_due(serving, now):
            serving = make_serving(signer, self._names, self._lifetime, now)
            self._context = _server_context(serving, signer.roots_pem)
            self._serving, self._signer = serving, signer
            self.renewed_total += 1
        return self._context


def _is_due(serving: Serving, now: datetime) -> bool:
    return not serving.not_before <= now < serving.not_before + (serving.not_after - serving.not_before) / 2


def _server_context(serving: Serving, roots_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # a resumed session would keep a client certificate of roots that are gone
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=roots_pem)
    load_key(context, serving.key_pem + serving.chain_pem)
    return context
