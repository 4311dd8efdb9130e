"""Dials sessions with other proxies, as `find` asks for them: Trio's half.

A peer that refuses the connection is asked again for a second: its proxy may be restarting, or may be about
to listen in a pod that has just been enrolled. Nothing of the application has been sent by then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import trio

from ztunnel.errors import ConnectionFailed, Drained, HboneTimedOut, NoCertificate, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.hbone.carry import Session
from ztunnel.hbone.dial import dial
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.pool import PoolKey
from ztunnel.identity.rotate import Certificate, Certificates
from ztunnel.identity.secure import peer
from ztunnel.kernel.dial import dial_socket, keep_source
from ztunnel.model.address import ip_text
from ztunnel.outbound.find import Patience, Tunnels
from ztunnel.redirect.enroll import PodNetwork

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else
(`run/reporting.py`)."""

_AGAIN_SECONDS = 0.05
_THREADS = 2
"""Handshakes are computed in so many: what more of them took would stay with the process."""


class Dialler:
    """Dials, one task for each session."""

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        certificates: Certificates,
        now: Callable[[], datetime],
        patience: Patience,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._certificates = certificates
        self._now = now
        self._patience = patience
        self._threads = trio.CapacityLimiter(_THREADS)
        self._dials, self._wanted = trio.open_memory_channel[tuple[PoolKey, PodNetwork]](patience.dials)

    def ask(self, key: PoolKey, network: PodNetwork) -> bool:
        """Have a session dialled from there; False where too many are asked for."""
        try:
            self._dials.send_nowait((key, network))
        except trio.WouldBlock:
            return False
        return True

    async def run(self, contain: Contain, tunnels: Tunnels) -> None:
        """Dial what is asked for, until cancelled: then whoever still waits is told so."""
        try:
            async with trio.open_nursery() as connections:
                async for key, network in self._wanted:
                    connections.start_soon(contain, partial(self._serve, tunnels, key, network))
        finally:
            tunnels.end(Drained("connection closed due to connection drain"))

    async def _serve(self, tunnels: Tunnels, key: PoolKey, network: PodNetwork) -> None:
        """Dial one session, and say what came of it."""
        error = ConnectionFailed("internal error")
        session = None
        try:
            session = await self._dial(tunnels, key, network)
        except ConnectionFailed as failure:
            error = failure
        except trio.Cancelled:
            error = Drained("connection closed due to connection drain")
            raise
        finally:
            if session is None:
                tunnels.failed(key, error)
            else:
                tunnels.dialled(key, session)

    async def _dial(self, tunnels: Tunnels, key: PoolKey, network: PodNetwork) -> Session:
        """A session that stands, with a peer that proved to be one of those expected.

        Where the certificate is replaced while it is dialled, it is dialled again: what is pooled proves the
        new one.
        """
        certificate = None
        until = None
        with trio.move_on_after(self._patience.session_seconds):
            while True:
                certificate = await self._certificates.fetch(key.source)
                until = until or trio.current_time() + self._patience.refused_seconds
                try:
                    session = await self._attempt(tunnels, key, network, certificate)
                except Unreachable:
                    if trio.current_time() >= until:
                        raise
                else:
                    if self._certificates.current(key.source) in (certificate, None):
                        return session
                    session.retire()
                await trio.sleep(_AGAIN_SECONDS)
        if certificate is None:
            raise NoCertificate(f"no certificate for {key.source} in time")
        raise HboneTimedOut(
            "connection timed out, maybe a NetworkPolicy is blocking HBONE port "
            f"{key.destination.port}: deadline has elapsed"
        )

    async def _attempt(
        self, tunnels: Tunnels, key: PoolKey, network: PodNetwork, certificate: Certificate
    ) -> Session:
        ip = key.destination.ip
        try:
            sock = dial_socket(network.netns, ip, self._patience.keepalive)
            keep = network.chosen(key.source_ip, ip)
            if keep is not None:
                keep_source(sock, keep)
        except OSError as error:
            raise Unreachable(f"connection failed: {key.destination}: {error}") from error
        address = ip_text(ip), key.destination.port
        link = await dial(sock, address, certificate.client_context, self._compute)
        try:
            peer(link.tls, certificate.bundles, self._now(), key.destinations)
            share = self._ledger.held.share(network.cookie, ip)
            return Session(
                self._engine, link, self._ledger, lambda ended, _: tunnels.ended(key, ended), share=share
            )
        except BaseException:
            link.sock.close()
            raise

    async def _compute(self, step: Callable[[], None]) -> None:
        """One step of a handshake."""
        await trio.to_thread.run_sync(step, limiter=self._threads)
