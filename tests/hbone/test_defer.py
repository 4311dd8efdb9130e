"""Tunnels of a peer in debt begin one by one, in order, and none after the session's end."""

from __future__ import annotations

import pytest

from tests.flow.driving import Bugs, Clock
from tests.hbone.peers import CONNECT, Lab
from ztunnel.flow.engine import Engine
from ztunnel.hbone.answer import IncomingTunnel
from ztunnel.hbone.defer import Slowed
from ztunnel.hbone.ledger import Ledger
from ztunnel.http2.fields import Fields
from ztunnel.http2.standing import CHURN, Standing


class Case:
    def __init__(self, lab: Lab) -> None:
        self.clock, self.bugs = Clock(), Bugs()
        self.engine = Engine(self.bugs, self.clock)
        self.standing, self.ledger = Standing(self.engine.now), Ledger()
        self.begun: list[IncomingTunnel] = []
        self.session, _ = lab.server_to_h2()
        self.slowed = Slowed(self.engine, self.standing, self.ledger, self.start)

    def start(self, tunnel: IncomingTunnel) -> None:
        tunnel.started = True
        self.begun.append(tunnel)

    def tunnel(self) -> IncomingTunnel:
        return IncomingTunnel(self.session, Fields(CONNECT))

    def spend(self) -> None:
        self.standing.churn.take(CHURN.capacity, self.engine.now)

    def after(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.engine.round(0)


@pytest.fixture
def case(lab: Lab) -> Case:
    return Case(lab)


def test_whoever_has_points_waits_for_nothing(case: Case) -> None:
    assert not case.slowed.take(case.tunnel())
    assert case.ledger.slowed == 0


def test_without_points_they_begin_in_order_as_the_peer_pays(case: Case) -> None:
    case.spend()
    tunnels = [case.tunnel() for _ in range(3)]
    assert all(case.slowed.take(each) for each in tunnels)
    assert (case.begun, case.ledger.slowed) == ([], 3)
    case.after(1.5 / CHURN.per_second)
    case.after(1.5 / CHURN.per_second)
    assert case.begun == tunnels[: len(case.begun)]
    case.after(1)
    case.after(1)
    assert case.begun == tunnels


def test_who_comes_while_others_wait_waits_behind_them(case: Case) -> None:
    case.spend()
    first, second = case.tunnel(), case.tunnel()
    assert case.slowed.take(first)
    case.clock.move(10)  # there are points again, and nobody has begun yet
    assert case.slowed.take(second)
    case.after(0)
    case.after(1)
    assert case.begun == [first, second]


def test_one_that_has_ended_does_not_begin(case: Case) -> None:
    case.spend()
    first, second = case.tunnel(), case.tunnel()
    assert case.slowed.take(first)
    assert case.slowed.take(second)
    case.slowed.drop(first)
    case.after(1)
    assert case.begun == [second]
    case.slowed.drop(second)  # it has begun: nothing waits


def test_after_the_session_nobody_begins(case: Case) -> None:
    case.spend()
    assert case.slowed.take(case.tunnel())
    case.slowed.clear()
    case.after(10)
    assert case.begun == []


def test_a_bug_in_one_keeps_no_other_from_beginning(case: Case) -> None:
    def broken(tunnel: IncomingTunnel) -> None:
        if not case.begun:
            case.begun.append(tunnel)
            raise KeyError("a bug")
        case.start(tunnel)

    slowed = Slowed(case.engine, case.standing, case.ledger, broken)
    case.spend()
    first, second = case.tunnel(), case.tunnel()
    assert slowed.take(first)
    assert slowed.take(second)
    for _ in range(3):
        case.after(1)
    assert case.begun == [first, second]
    assert [type(bug) for bug in case.bugs] == [KeyError]
    case.bugs.clear()
