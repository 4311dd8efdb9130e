"""Tunnels with somebody of this process at both ends."""

from __future__ import annotations

from typing import Any

from tests.hbone.peers import CONNECT_BLOCK, OK_BLOCK, Lab
from ztunnel.errors import ConnectionFailed
from ztunnel.hbone.carry import Session
from ztunnel.hbone.originate import OriginatedTunnel
from ztunnel.hbone.terminate import TerminatedTunnel


class Listener:
    """A receiver that writes down; `takes`: what it gets leaves its hands at once."""

    def __init__(self, takes: bool = True) -> None:
        self.takes = takes
        self.got = bytearray()
        self.parts: list[int] = []
        self.words: list[str] = []
        self.error: ConnectionFailed | None = None
        self.tunnel: Any = None

    def received(self, untrusted: memoryview) -> None:
        self.got += untrusted
        self.parts.append(len(untrusted))
        if self.takes:
            self.tunnel.taken(len(untrusted))

    def ended(self) -> None:
        self.words.append("ended")

    def writable(self) -> None:
        self.words.append("writable")

    def lost(self, error: ConnectionFailed | None) -> None:
        self.words.append("lost")
        self.error = error


class Answers:
    """What becomes of a tunnel that was asked for."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def established(self) -> None:
        self.log.append("established")

    def refused(self, status: int) -> None:
        self.log.append(status)

    def lost(self, error: ConnectionFailed) -> None:
        self.log.append(error)


class Pair:
    """A client's session and a server's, whose tunnels end in this process."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        near, far = lab._links()
        self.asked: list[TerminatedTunnel] = []
        self.client = Session(lab.engine, near, lab.ledger, self._over)
        self.server = Session(
            lab.engine, far, lab.ledger, self._over, self.asked.append, incoming=TerminatedTunnel
        )
        self.ends: list[ConnectionFailed | None] = []

    def _over(self, session: Session, error: ConnectionFailed | None) -> None:
        self.ends.append(error)

    def ask(self) -> tuple[OriginatedTunnel, Answers, TerminatedTunnel]:
        answers = Answers()
        before = len(self.asked)
        tunnel = self.client.originate(CONNECT_BLOCK, answers, 5.0)
        self.lab.go(until=lambda: len(self.asked) > before)
        return tunnel, answers, self.asked[-1]

    def join(self, takes: bool = True) -> tuple[OriginatedTunnel, TerminatedTunnel, Listener, Listener]:
        """Both ends of a tunnel and who listens at them."""
        near, answers, far = self.ask()
        here, there = Listener(), Listener(takes)
        here.tunnel, there.tunnel = near, far
        far.accept(OK_BLOCK, there)
        self.lab.go(until=lambda: answers.log)
        assert answers.log == ["established"]
        near.attach(here)
        return near, far, here, there
