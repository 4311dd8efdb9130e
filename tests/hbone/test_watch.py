"""What is waited for at an application's socket is what the kernel is told, and nothing once it has left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from select import EPOLLIN, EPOLLOUT

import pytest

from tests.flow.driving import stream_pair
from tests.hbone.peers import Lab
from ztunnel.hbone.hold import TunnelSession
from ztunnel.hbone.watch import ApplicationEnd


class End(ApplicationEnd):
    """Says what has come."""

    def __init__(self, session: TunnelSession, app: socket.socket) -> None:
        super().__init__(session)
        self._app, self._fd = app, app.fileno()
        self.seen: list[int] = []

    def _ready(self, mask: int) -> None:
        self.seen.append(mask)

    def _abandon(self, bug: BaseException) -> None:
        raise AssertionError(bug)


class Case:
    def __init__(self, lab: Lab) -> None:
        self.engine = lab.engine
        session, _ = lab.server_to_h2()
        lab.go()
        self.other, self.app = stream_pair()
        self.end = End(session, self.app)

    def seen(self) -> list[int]:
        self.end.seen.clear()
        self.engine.round(0)
        return list(self.end.seen)


@pytest.fixture
def case(lab: Lab) -> Iterator[Case]:
    made = Case(lab)
    yield made
    made.end._unwatch()
    made.other.close()
    made.app.close()


def test_what_is_waited_for_comes_and_nothing_else(case: Case) -> None:
    case.other.send(b"x")
    assert case.seen() == []
    case.end._watch(EPOLLIN)
    assert case.seen() == [EPOLLIN]
    case.end._watch_more(EPOLLOUT)
    assert case.seen() == [EPOLLIN | EPOLLOUT]
    case.end._watch_less(EPOLLIN)
    assert case.seen() == [EPOLLOUT]
    case.end._watch_less(EPOLLOUT)
    assert case.seen() == []
    case.end._unwatch()
    case.end._unwatch()
    assert case.seen() == []


def test_more_of_what_is_not_waited_for_yet_is_all(case: Case) -> None:
    case.end._watch_less(EPOLLIN)
    assert case.seen() == []
    case.end._watch_more(EPOLLOUT)
    assert case.seen() == [EPOLLOUT]


def test_a_socket_that_is_closed_at_once_is_forgotten(case: Case) -> None:
    case.end._watch(EPOLLOUT)
    case.end._forget()
    case.app.close()
    assert case.seen() == []
