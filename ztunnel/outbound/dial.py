"""Finds a session for each call that needs a tunnel, and dials one where there is none.

The engine's side is synchronous: a call whose session is ready is started within the same callback. A call
that finds none waits in a line, one line for each pool key, and Trio's side dials as many sessions as the
line needs.

    open ── a session has room ──> started
      └───> line ── a session stands ──> still wanted, by the world as it is now ──> started
              └──── dialling failed, or the new session took nobody ──> the whole line fails, with the reason

A peer that refuses the connection is asked again for a second: its proxy may be restarting, or may be about
to listen in a pod that has just been enrolled. Nothing of the application has been sent by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import trio

from ztunnel.errors import ConnectionFailed, Drained, HboneTimedOut, NoCertificate, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.hbone.carry import Session
from ztunnel.hbone.dial import dial
from ztunnel.hbone.limits import Ledger
from ztunnel.hbone.pool import Pool, PoolKey
from ztunnel.identity.rotate import Certificate, Certificates
from ztunnel.identity.secure import peer
from ztunnel.kernel.dial import dial_socket
from ztunnel.kernel.sockets import Keepalive
from ztunnel.model.address import ip_text
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.outbound.connect import TunnelCall
from ztunnel.redirect.attach import PodNetwork
from ztunnel.state.delta import Change
from ztunnel.state.world import World

Contain = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
"""Runs one connection's part; a bug in it ends that part, is logged and counted, and nothing else
(`run/reporting.py`)."""

_AGAIN_SECONDS = 0.05
_FULL = "applications do not take what was sent to them, and no more can be held (ZTUNNEL_BUFFER_LIMIT)"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how many may.

    Attributes:
        session_seconds: for a session to stand: certificate, TCP, TLS.
        answer_seconds: for the answer to a CONNECT.
        refused_seconds: for a peer that refuses the connection to listen again.
        line_calls: calls that wait for one session; a longer line would only time out.
        dials: dials that are asked for and have not begun.
        keepalive: how peers that are silent are asked for.
    """

    session_seconds: float = 10.0
    answer_seconds: float = 15.0
    refused_seconds: float = 1.0
    line_calls: int = 4096
    dials: int = 1024
    keepalive: Keepalive | None = None


class Tunnels:
    """The sessions to other proxies. One for the node; a pod's sessions are its own, because its address is
    in the key, and they are dialled from its own namespace."""

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
        self._pool: Pool[Session] = Pool(ledger.limits.open_streams)
        self._lines: dict[PoolKey, deque[TunnelCall]] = {}
        self._dials, self._wanted = trio.open_memory_channel[tuple[PoolKey, PodNetwork]](patience.dials)
        certificates.on_change(self._renewed)

    def open(self, call: TunnelCall) -> None:
        """Start a call: on a session that has room, or when one has been dialled."""
        if self._ledger.full:
            call.call.fail(Unreachable(_FULL))
            return
        session = self._pool.take(call.key)
        if session is not None:
            self._start(session, call)
            return
        line = self._lines.setdefault(call.key, deque())
        if len(line) >= self._patience.line_calls:
            call.call.fail(
                Unreachable(f"too many connections wait for a session with {call.key.destination}")
            )
            return
        line.append(call)
        self._dial_for(call.key)

    def proves(self, *identities: SpiffeId) -> bool:
        """Whether there is a valid certificate for each of these now."""
        current = self._certificates.current
        return all(current(identity) is not None for identity in identities)

    def leave(self, concerns: Callable[[PoolKey], bool]) -> None:
        """Open no more tunnels on the sessions of these keys; those that are open live on."""
        for session in self._pool.take_out(concerns):
            session.retire()

    def changed(self, before: World, world: World, change: Change) -> None:
        """Leave the sessions with addresses that are another workload's now, or nobody's: who answers there
        next is to prove itself. A subscriber of `Hold`."""
        if not change.reclassified:
            return
        gone = {ip for ip in change.addresses if _moved(before.by_ip(ip), world.by_ip(ip))}
        if gone:
            self.leave(lambda key: key.destination.ip in gone)

    def retire_idle(self, idle_seconds: float) -> None:
        """Close the sessions that have carried nothing for so long."""
        for session in self._pool.take_idle(self._engine.now, idle_seconds):
            session.retire()

    async def run(self, contain: Contain) -> None:
        """Dial what is asked for, until cancelled: then whoever still waits is told so."""
        try:
            async with trio.open_nursery() as connections:
                async for key, network in self._wanted:
                    connections.start_soon(contain, partial(self._serve, key, network))
        finally:
            for key in tuple(self._lines):
                self._fail_line(key, Drained("connection closed due to connection drain"))

    def _start(self, session: Session, call: TunnelCall) -> None:
        held = call.call
        app = held.hand_over()
        try:
            tunnel = session.open(call.block, app, held.counts, call, self._patience.answer_seconds)
        except BaseException:
            held.opener = app
            held.fail(ConnectionFailed("internal error"))
            raise
        call.start(tunnel)

    def _dial_for(self, key: PoolKey) -> None:
        """Have one more session dialled, if those that are being dialled are too few for the line."""
        line = self._lines[key]
        if not self._pool.should_dial(key, len(line)):
            return
        try:
            self._dials.send_nowait((key, line[0].network))
        except trio.WouldBlock:
            # With one under way the line has somebody who serves it, or tells it why not.
            if self._pool.should_dial(key, 1):
                self._fail_line(key, Unreachable("too many sessions are being dialled"))
        else:
            self._pool.dialling(key)

    async def _serve(self, key: PoolKey, network: PodNetwork) -> None:
        """Dial one session, and start on it who waits. Where it fails, everybody who waits is told why."""
        error = ConnectionFailed("internal error")
        session = None
        try:
            session = await self._dial(key, network)
        except ConnectionFailed as failure:
            error = failure
        except trio.Cancelled:
            error = Drained("connection closed due to connection drain")
            raise
        finally:
            if session is None or not session.alive:
                self._pool.failed(key)
            else:
                self._pool.dialled(key, session)
            if session is None:
                self._fail_line(key, error)
        if session is not None:
            self._serve_line(key, session)

    def _serve_line(self, key: PoolKey, session: Session) -> None:
        """Start on a new session who waits. Where it takes nobody, the next one would not either."""
        line = self._lines.get(key)
        if line is None:
            return
        waiting = len(line)
        while line and session.can_take():
            call = line.popleft()
            if call.still_wants():
                self._start(session, call)
        if not line:
            self._lines.pop(key, None)
        elif len(line) < waiting:
            self._dial_for(key)
        else:
            self._fail_line(key, Unreachable(f"the session with {key.destination} takes no tunnels"))

    def _fail_line(self, key: PoolKey, error: ConnectionFailed) -> None:
        """Nobody is going to serve this line, except where an older session has room again."""
        for call in self._lines.pop(key, ()):
            if call.call.opener is None:
                continue
            session = self._pool.take(key)
            if session is not None and call.still_wants():
                self._start(session, call)
            elif session is None:
                call.call.fail(error)

    async def _dial(self, key: PoolKey, network: PodNetwork) -> Session:
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
                    session = await self._attempt(key, network, certificate)
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

    async def _attempt(self, key: PoolKey, network: PodNetwork, certificate: Certificate) -> Session:
        ip = key.destination.ip
        try:
            sock = dial_socket(network.netns, ip, self._patience.keepalive)
        except OSError as error:
            raise Unreachable(f"connection failed: {key.destination}: {error}") from error
        link = await dial(sock, (ip_text(ip), key.destination.port), certificate.client_context)
        try:
            peer(link.tls, certificate.bundles, self._now(), key.destinations)
            return Session(self._engine, link, self._ledger, lambda ended, _: self._pool.drop(key, ended))
        except BaseException:
            link.sock.close()
            raise

    def _renewed(self, identity: SpiffeId) -> None:
        """A certificate was replaced: new tunnels prove the new one, those that are open live on."""
        self.leave(lambda key: key.source == identity)


def _moved(old: Workload | None, new: Workload | None) -> bool:
    """Whether the address that was the one's is not its address any more."""
    return old is not None and (new is None or new.uid != old.uid or new.identity != old.identity)
