"""Those who wait."""

from tests.waypoint.pooled import Pooled
from ztunnel.errors import Unreachable
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.model.traffic import Pool
from ztunnel.waypoint.upstream.line import Line, begin


class Waits:
    """Pools that let everything wait in one line."""

    def __init__(self, clock, call) -> None:
        self.line: Line | None = None

    def connect(self, exchange, spot) -> None:
        if self.line is None:
            self.line = Line(spot.key.cluster.circuit)
        self.line.join(exchange)


def test_the_first_is_the_first_to_go():
    rig = Pooled(Waits)
    asked = [rig.ask() for _ in range(3)]
    assert len(rig.pools.line) == rig.used(Limit.PENDING) == 3
    assert [rig.pools.line.next() for _ in range(4)] == [*asked, None]
    assert rig.used(Limit.PENDING) == 0


def test_who_has_gone_is_passed_over_and_makes_room():
    rig = Pooled(Waits, Pool(pending_requests=2))
    first, second = rig.ask(), rig.ask()
    first.gone()
    third = rig.ask()
    assert (third.status, rig.used(Limit.PENDING)) == (0, 2)
    over = rig.ask()
    assert (over.status, over.flag) == (503, "UO")
    assert rig.pools.line.next() is second
    assert rig.pools.line.next() is third


def test_a_try_that_was_given_up_does_not_come_instead_of_a_later_one():
    rig = Pooled(Waits)
    exchange = rig.ask()
    exchange.attempts.ask(None)
    assert rig.pools.line.next() is None
    assert rig.used(Limit.PENDING) == 0


def test_one_or_all_are_told_why_there_is_no_connection():
    rig = Pooled(Waits)
    asked = [rig.ask() for _ in range(3)]
    error = Unreachable("nobody is there")
    error.elsewhere = error.retryable = False
    rig.pools.line.fail(error, only_first=True)
    assert [exchange.status for exchange in asked] == [503, 0, 0]
    rig.pools.line.fail(error, only_first=False)
    assert [exchange.status for exchange in asked] == [503] * 3
    assert "nobody_is_there" in asked[2].details


def test_without_a_cluster_nobody_counts():
    rig = Pooled(Waits)
    exchange = rig.ask()
    exchange.attempts.ask(None)
    line = Line(None)
    assert line.join(exchange)
    line.tidy()
    assert line.next() is exchange
    assert begin(exchange)
    assert Circuit().used == [0, 0, 0, 0]
