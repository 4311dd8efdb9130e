"""The authority in force: signs with the one that was taken over last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ztunnel.errors import NoCertificate
from ztunnel.identity.authority import Authority
from ztunnel.model.identity import SpiffeId


class StandingAuthority:
    """Holds an authority, which may be replaced while another thread signs with it.

    Attributes:
        current: the one in force; None before the first.
    """

    def __init__(self, current: Authority | None = None) -> None:
        self.current = current
        self._callbacks: list[Callable[[Authority], None]] = []

    def on_change(self, callback: Callable[[Authority], None]) -> None:
        """Have `callback` called, by whoever calls `take`, for each authority that comes into force."""
        self._callbacks.append(callback)

    def take(self, authority: Authority) -> bool:
        """Sign with this one from now on. False where it is the same as before."""
        if self.current is not None and self.current.shown == authority.shown:
            return False
        self.current = authority
        for callback in self._callbacks:
            callback(authority)
        return True

    def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float, now: datetime) -> list[str]:
        """As `Authority.sign`; from any thread.

        Raises:
            NoCertificate: there is no authority yet.
        """
        current = self.current  # one read: it may be replaced meanwhile
        if current is None:
            raise NoCertificate("the certificate authority has not been read yet")
        return current.sign(csr_pem, identity, ttl_seconds, now)
