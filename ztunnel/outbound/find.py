"""Finds a session for each call that needs a tunnel: the engine's half. `dial` dials those that are missing.

A call whose session is ready is started within the same callback. One that finds none waits in a line, one
line for each pool key, and as many sessions are dialled as the line needs.

    open ── a session has room ──> started ── the peer refuses it unseen ──> later, again
      └───> line ── a session stands, or has room again ──> still wanted, by the world as it is ──> started
              └──── dialling failed, or nobody had room in time ──> the whole line fails, with the reason

Nothing of the application has been read by then, so nothing is lost by another try.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ztunnel.errors import NOT_TAKEN, Busy, ConnectionFailed, Exhausted, Unreachable
from ztunnel.flow.engine import Engine
from ztunnel.hbone.carry import Session
from ztunnel.hbone.ledger import Ledger
from ztunnel.hbone.pool import Pool, PoolKey
from ztunnel.identity.rotate import Certificates
from ztunnel.kernel.sockets import Keepalive
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.redirect.enroll import PodNetwork
from ztunnel.state.change import Change
from ztunnel.state.world import World

_FIRST_PAUSE_SECONDS: Final = 0.005
_LONGEST_PAUSE_SECONDS: Final = 0.25

Ask = Callable[[PoolKey, PodNetwork], bool]
"""Has a session dialled; `dialled` or `failed` follows. False where too many are asked for already."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, and how many may.

    Attributes:
        session_seconds: for a session to stand: certificate, TCP, TLS; and for one to have room.
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


class Wanted:
    """Whoever wants a session.

    Attributes:
        key: which sessions will do.
        network: from where one is dialled.
        give_up_at: monotonic seconds until when a busy peer is asked again; 0 until it was busy.
    """

    __slots__ = ("give_up_at", "key", "network")

    def __init__(self, key: PoolKey, network: PodNetwork) -> None:
        self.key = key
        self.network = network
        self.give_up_at = 0.0

    @property
    def live(self) -> bool:
        """Whether it has not ended meanwhile."""
        raise NotImplementedError

    def still_wants(self) -> bool:
        """Whether it is to be started now, after a wait: it lives, and still goes this way."""
        raise NotImplementedError

    def begin(self, session: Session, answer_seconds: float) -> None:
        """A session has room for it."""
        raise NotImplementedError

    def count_retry(self) -> int:
        """It is tried again. Returns how often it was before."""
        raise NotImplementedError

    def fail(self, error: ConnectionFailed) -> None:
        """There is none for it."""
        raise NotImplementedError


class Tunnels:
    """The sessions to other proxies. One for the node; a pod's sessions are its own, because its address is
    in the key, and they are dialled from its own namespace."""

    def __init__(
        self, engine: Engine, ledger: Ledger, certificates: Certificates, patience: Patience, ask: Ask
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._certificates = certificates
        self._patience = patience
        self._ask = ask
        self._pool: Pool[Session] = Pool(ledger.limits.open_streams)
        self._lines: dict[PoolKey, deque[Wanted]] = {}
        certificates.on_change(self._renewed)

    def open(self, call: Wanted) -> None:
        """Start a call: on a session that has room, or when one has been dialled."""
        if self._ledger.held.refuses(call.network.cookie, call.key.destination.ip):
            call.fail(Exhausted(NOT_TAKEN))
            return
        session = self._pool.take(call.key)
        if session is not None:
            self._start(session, call)
            return
        line = self._lines.setdefault(call.key, deque())
        if len(line) >= self._patience.line_calls:
            call.fail(Unreachable(f"too many connections wait for a session with {call.key.destination}"))
            return
        line.append(call)
        closed = self._pool.closed(call.key)
        if closed is None:
            self._dial_for(call.key)
        elif len(line) == 1:
            self._wait_for_room(call.key, closed)

    def again(self, call: Wanted, error: Busy) -> None:
        """The peer refused a call before it looked at it: try again, after a pause that grows, until the time
        for a session is over."""
        now = self._engine.now
        call.give_up_at = call.give_up_at or now + self._patience.session_seconds
        if now >= call.give_up_at:
            call.fail(error)
            return
        self._ledger.retried += 1
        pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(call.count_retry(), 10), _LONGEST_PAUSE_SECONDS)
        self._engine.after(pause, partial(self._open_if_wanted, call))

    def count_retry(self) -> None:
        """A call is tried at another endpoint."""
        self._ledger.retried += 1

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

    def end(self, error: ConnectionFailed) -> None:
        """Nobody dials any more: whoever waits is told so."""
        for key in tuple(self._lines):
            self._fail_line(key, error)

    # What becomes of what is dialled.

    def dialled(self, key: PoolKey, session: Session) -> None:
        """A session stands: start on it who waits."""
        self._pool.dialled(key, session)
        self._serve_line(key, session)

    def failed(self, key: PoolKey, error: ConnectionFailed) -> None:
        """None could be dialled: everybody who waits is told why."""
        self._pool.failed(key)
        self._fail_line(key, error)

    def ended(self, key: PoolKey, session: Session) -> None:
        """A session that was dialled is over."""
        self._pool.drop(key, session)

    def _open_if_wanted(self, call: Wanted) -> None:
        if call.still_wants():
            self.open(call)

    def _start(self, session: Session, call: Wanted) -> None:
        call.begin(session, self._patience.answer_seconds)

    def _dial_for(self, key: PoolKey) -> None:
        """Have one more session dialled, if those that are being dialled are too few for the line."""
        line = self._lines[key]
        if not self._pool.should_dial(key, len(line)):
            return
        if self._ask(key, line[0].network):
            self._pool.dialling(key)
        # With one under way the line has somebody who serves it, or tells it why not.
        elif self._pool.should_dial(key, 1):
            self._fail_line(key, Unreachable("too many sessions are being dialled"))

    def _serve_line(self, key: PoolKey, session: Session) -> None:
        """Start on a session who waits. Where a new one takes nobody, the next one would not either: then it
        is waited for, for a while."""
        session.on_room = None
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
            return
        if len(line) < waiting:
            self._dial_for(key)
        elif session.alive:
            self._wait_for_room(key, session)
        else:
            self._fail_line(key, Unreachable(f"the session with {key.destination} takes no tunnels"))

    def _wait_for_room(self, key: PoolKey, session: Session) -> None:
        line = self._lines[key]
        session.on_room = partial(self._serve_line, key, session)
        self._engine.after(self._patience.session_seconds, partial(self._no_room, key, line, line[0]))

    def _no_room(self, key: PoolKey, line: deque[Wanted], first: Wanted) -> None:
        """A session was full when the line came to it. Where nobody of the line has been served since, nobody
        will be."""
        if self._lines.get(key) is line and line and line[0] is first:
            self._fail_line(key, Unreachable(f"the session with {key.destination} takes no tunnels"))

    def _fail_line(self, key: PoolKey, error: ConnectionFailed) -> None:
        """Nobody is going to serve this line, except where an older session has room again."""
        for call in self._lines.pop(key, ()):
            if not call.live:
                continue
            session = self._pool.take(key)
            if session is not None and call.still_wants():
                self._start(session, call)
            elif session is None:
                call.fail(error)

    def _renewed(self, identity: SpiffeId) -> None:
        """A certificate was replaced: new tunnels prove the new one, those that are open live on."""
        self.leave(lambda key: key.source == identity)


def _moved(old: Workload | None, new: Workload | None) -> bool:
    """Whether the address that was the one's is not its address any more."""
    return old is not None and (new is None or new.uid != old.uid or new.identity != old.identity)
