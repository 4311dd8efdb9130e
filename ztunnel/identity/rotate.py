"""The certificates of the identities of this node: fetched, kept, renewed at half of their life, dropped.

States of one identity, from the first `want` to the last `forget`:

    wanted ──fetched──> held ──half of its life──> held, fetching ──fetched──> held (the new one)
      │ failed                                        │ failed: the old one stays, again after a backoff,
      v                                               v          but not later than its expiry
    without ──backoff──> without, fetching          held ──expired──> without
      callers get NoCertificate at once

One task (`run`) starts every fetch, at most eight at a time; the next one is whose turn it is by
`renewal.Priority`. What `want`, `forget` and `fetch` change is seen by it at once, because they wake it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from ztunnel.errors import ConfigError, ConnectionFailed, NoCertificate, PeerError
from ztunnel.identity import csr, issued, secure
from ztunnel.identity.chain import TrustBundles
from ztunnel.identity.renewal import Expiry, Priority, Rng, renew_at, retry_at
from ztunnel.model.identity import SpiffeId

_CONCURRENT = 8  # ztunnel src/identity/manager.rs
_TTL_SECONDS = 86_400.0  # ztunnel: SECRET_TTL
_FETCH_SECONDS = 15.0
_NAP_SECONDS = 30.0  # at most: when the wall clock is set, it is seen this late


class CertificateSource(Protocol):
    """Whoever signs for us: istiod, or the authority in this process."""

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        """Have a request signed.

        Returns:
            PEM texts: the leaf, intermediates, and last the bundle of roots.

        Raises:
            ConnectionFailed, PeerError, ConfigError, OSError: it could not be had; it is asked again later.
        """


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one identity proves itself with, and by which roots it believes others."""

    identity: SpiffeId
    key_pem: str = field(repr=False)
    chain_pem: str = field(repr=False)
    """The leaf, then its intermediates."""
    roots_pem: str = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime
    bundles: TrustBundles = field(repr=False, compare=False)
    """The roots again, for `secure.peer`; one object for all certificates that came with the same roots."""
    server_context: ssl.SSLContext = field(repr=False, compare=False)
    client_context: ssl.SSLContext = field(repr=False, compare=False)


@dataclass(slots=True, eq=False)
class _Kept:
    identity: SpiffeId
    due: datetime
    wanted: int = 0
    priority: Priority = Priority.PREFETCH
    certificate: Certificate | None = None
    failures: int = 0
    cause: Exception | None = None
    fetching: trio.CancelScope | None = None
    settled: trio.Event = field(default_factory=trio.Event)
    """Set, and replaced by a new one, when a fetch has ended either way."""


class Certificates:
    """The certificates of this node.

    Args:
        now: the wall clock; sleeping is by Trio's.
        ttl_seconds: the lifetime to ask for.
    """

    def __init__(
        self,
        source: CertificateSource,
        now: Callable[[], datetime],
        rng: Rng,
        ttl_seconds: float = _TTL_SECONDS,
    ) -> None:
        self._source = source
        self._now = now
        self._rng = rng
        self._ttl_seconds = ttl_seconds
        self._kept: dict[SpiffeId, _Kept] = {}
        self._fetches = 0
        self._stirred = trio.Event()
        self._callbacks: list[Callable[[SpiffeId], None]] = []
        self._bundles: WeakValueDictionary[tuple[str, str], TrustBundles] = WeakValueDictionary()
        self.fetched_total = 0
        self.failed_total = 0

    def want(self, identity: SpiffeId) -> None:
        """Have a certificate for `identity` from now on, until as many `forget`s."""
        kept = self._kept.get(identity)
        if kept is None:
            kept = self._kept[identity] = _Kept(identity, due=self._now())
            self._stirred.set()
        kept.wanted += 1

    def forget(self, identity: SpiffeId) -> None:
        """Undo one `want`. After the last one the certificate is dropped and a fetch under way cancelled."""
        kept = self._kept[identity]
        kept.wanted -= 1
        if kept.wanted == 0:
            del self._kept[identity]
            if kept.fetching is not None:
                kept.fetching.cancel()

    def current(self, identity: SpiffeId) -> Certificate | None:
        """The certificate to use now, if there is a valid one."""
        kept = self._kept.get(identity)
        if kept is None or kept.certificate is None or kept.certificate.not_after <= self._now():
            return None
        return kept.certificate

    async def fetch(self, identity: SpiffeId) -> Certificate:
        """The certificate to use now; waits for the first one, ahead of every prefetch and refresh.

        An identity that nobody wants is kept only while this waits.

        Raises:
            NoCertificate: there is none and the last attempt failed; does not wait for the next attempt.
        """
        await trio.lowlevel.checkpoint()
        self.want(identity)
        try:
            kept = self._kept[identity]
            while (certificate := self.current(identity)) is None:
                if kept.cause is not None:
                    raise NoCertificate(f"no certificate for {identity}: {kept.cause}") from kept.cause
                kept.priority = Priority.CALLER
                self._stirred.set()
                await kept.settled.wait()
            return certificate
        finally:
            self.forget(identity)

    def on_change(self, callback: Callable[[SpiffeId], None]) -> None:
        """Have `callback` called whenever an identity has a new certificate, its first one included."""
        self._callbacks.append(callback)

    def expiring(self) -> tuple[Expiry, ...]:
        """How each wanted identity stands."""
        now = self._now()
        return tuple(_expiry(kept, now) for kept in self._kept.values())

    async def run(self) -> None:
        """Fetch and renew until cancelled. What is kept stays usable after that, and it may be run again."""
        async with trio.open_nursery() as fetches:
            while True:
                self._stirred = trio.Event()
                self._start_due(fetches)
                with trio.move_on_after(self._nap_seconds()):
                    await self._stirred.wait()

    def _start_due(self, fetches: trio.Nursery) -> None:
        now = self._now()
        due = [kept for kept in self._kept.values() if kept.fetching is None and kept.due <= now]
        due.sort(key=lambda kept: (kept.priority, kept.due))
        for kept in due[: _CONCURRENT - self._fetches]:
            kept.fetching = trio.CancelScope()
            self._fetches += 1
            fetches.start_soon(self._fetch, kept, kept.fetching)

    def _nap_seconds(self) -> float:
        if self._fetches >= _CONCURRENT:
            return _NAP_SECONDS
        idle = [kept.due for kept in self._kept.values() if kept.fetching is None]
        until = (min(idle) - self._now()).total_seconds() if idle else _NAP_SECONDS
        return min(max(until, 0.0), _NAP_SECONDS)

    async def _fetch(self, kept: _Kept, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._attempt(kept)
        finally:
            kept.fetching = None
            self._fetches -= 1
            self._stirred.set()

    async def _attempt(self, kept: _Kept) -> None:
        request = csr.create(kept.identity)
        try:
            with trio.fail_after(_FETCH_SECONDS):
                answer = await self._source.create(request.csr_pem, kept.identity, self._ttl_seconds)
            certificate = self._build(issued.accept(answer, kept.identity, request, self._now()))
        except trio.TooSlowError:
            self._failed(kept, NoCertificate(f"the CA did not answer within {_FETCH_SECONDS:.0f} s"))
        except (ConnectionFailed, PeerError, ConfigError, OSError) as error:
            self._failed(kept, error)
        else:
            self._succeeded(kept, certificate)

    def _build(self, new: issued.Issued) -> Certificate:
        pems = (new.key_pem, new.chain_pem, new.roots_pem)
        return Certificate(
            new.identity,
            *pems,
            serial=new.serial,
            not_before=new.not_before,
            not_after=new.not_after,
            bundles=self._bundles.setdefault((new.identity.trust_domain, new.roots_pem), new.bundles),
            server_context=secure.server_context(*pems),
            client_context=secure.client_context(*pems),
        )

    def _succeeded(self, kept: _Kept, certificate: Certificate) -> None:
        self.fetched_total += 1
        if self._kept.get(kept.identity) is not kept:
            return  # forgotten while the answer was on its way
        kept.certificate, kept.failures, kept.cause = certificate, 0, None
        kept.due = renew_at(certificate.not_before, certificate.not_after, self._now(), self._rng)
        self._settle(kept)
        for callback in self._callbacks:
            callback(kept.identity)

    def _failed(self, kept: _Kept, error: Exception) -> None:
        self.failed_total += 1
        if self._kept.get(kept.identity) is not kept:
            return
        kept.failures += 1
        kept.cause = error.with_traceback(None)  # its frames hold the request's private key
        expiry = kept.certificate.not_after if kept.certificate else None
        kept.due = retry_at(self._now(), kept.failures, expiry, self._rng)
        logging.getLogger(__name__).warning(
            "fetch %d of a certificate for %s failed: %s", kept.failures, kept.identity, error
        )
        self._settle(kept)

    def _settle(self, kept: _Kept) -> None:
        kept.priority = Priority.REFRESH if self.current(kept.identity) else Priority.PREFETCH
        kept.settled.set()
        kept.settled = trio.Event()


def _expiry(kept: _Kept, now: datetime) -> Expiry:
    left_seconds = (kept.certificate.not_after - now).total_seconds() if kept.certificate else None
    cause = str(kept.cause) if kept.cause else ""
    return Expiry(kept.identity, left_seconds, kept.failures, cause)
