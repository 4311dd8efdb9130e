"""Which session takes the next tunnel."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from ztunnel.hbone.pool import Pool, PoolKey
from ztunnel.model.address import parse_endpoint
from ztunnel.model.identity import SpiffeId

ALICE = SpiffeId("cluster.local", "default", "alice")
BOB = SpiffeId("cluster.local", "default", "bob")


def key(
    source: SpiffeId = ALICE, source_ip: str = "10.0.0.1", destination: str = "10.0.0.2:15008"
) -> PoolKey:
    return PoolKey(source, frozenset({BOB}), ip_address(source_ip), parse_endpoint(destination))


def test_keys_are_compared_by_all_that_they_say() -> None:
    assert key() == key()
    assert hash(key()) == hash(key())
    for other in (key(source=BOB), key(source_ip="10.0.0.9"), key(destination="10.0.0.2:15009"), "a key"):
        assert key() != other
    assert key() != PoolKey(ALICE, frozenset(), key().source_ip, key().destination)


@dataclass(eq=False)
class FakeSession:
    room: bool = True
    idle_since: float | None = None
    closed: bool = False

    def can_take(self) -> bool:
        return self.room


def pool_with(*sessions: FakeSession, at: PoolKey | None = None) -> Pool[FakeSession]:
    pool: Pool[FakeSession] = Pool(100)
    for session in sessions:
        pool.dialling(at or key())
        pool.dialled(at or key(), session)
    return pool


def test_a_session_with_room_is_taken_the_first_one_first() -> None:
    first, second = FakeSession(), FakeSession()
    pool = pool_with(first, second)
    assert pool.take(key()) is first
    first.room = False
    assert pool.take(key()) is second
    second.room = False
    assert pool.take(key()) is None
    first.room = True
    assert pool.take(key()) is first


def test_nothing_is_shared_between_keys() -> None:
    pool = pool_with(FakeSession())
    for other in (key(source=BOB), key(source_ip="10.0.0.9"), key(destination="10.0.0.3:15008")):
        assert pool.take(other) is None
    assert pool.take(key()) is not None


def test_equal_keys_are_one_key() -> None:
    assert pool_with(FakeSession()).take(key()) is not None
    assert len({key(), key()}) == 1


def test_the_first_who_wait_share_one_dial() -> None:
    pool: Pool[FakeSession] = Pool(100)
    assert pool.should_dial(key(), 1)
    pool.dialling(key())
    assert not pool.should_dial(key(), 1)
    assert not pool.should_dial(key(), 100)
    assert pool.should_dial(key(), 101)
    pool.dialling(key())
    assert not pool.should_dial(key(), 200)
    pool.failed(key())
    assert pool.should_dial(key(), 200)
    pool.dialled(key(), FakeSession())
    assert pool.should_dial(key(), 1)
    assert pool._dialling == {}


def test_a_session_that_ended_is_dropped_and_dropping_again_is_nothing() -> None:
    gone, left = FakeSession(), FakeSession()
    pool = pool_with(gone, left)
    pool.drop(key(), gone)
    pool.drop(key(), gone)
    assert pool.take(key()) is left
    pool.drop(key(), left)
    pool.drop(key(), left)
    assert len(pool) == 0
    assert pool._sessions == {}


def test_sessions_that_a_change_concerns_leave() -> None:
    pool = pool_with(FakeSession(), FakeSession())
    other = FakeSession()
    pool.dialling(key(source=BOB))
    pool.dialled(key(source=BOB), other)
    assert len(pool.take_out(lambda found: found.source == ALICE)) == 2
    assert [session for _, session in pool] == [other]
    assert pool.take_out(lambda found: found.destination.ip == ip_address("10.0.0.2")) == [other]
    assert len(pool) == 0


def test_sessions_without_tunnels_leave_after_a_time() -> None:
    idle, busy, young = FakeSession(idle_since=0.0), FakeSession(), FakeSession(idle_since=200.0)
    pool = pool_with(idle, busy, young)
    assert pool.take_idle(299.0, 300) == []
    assert pool.take_idle(300.0, 300) == [idle]
    assert [session for _, session in pool] == [busy, young]


def test_a_session_whose_peer_takes_none_is_named() -> None:
    open_, closed = FakeSession(), FakeSession(closed=True)
    pool = pool_with(open_, closed)
    assert pool.closed(key()) is closed
    pool.drop(key(), closed)
    assert pool.closed(key()) is None
