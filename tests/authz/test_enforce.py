"""LiveConnections: exactly what a change can touch is judged again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.builders import connection, policy, service, workload, world_of
from ztunnel.authz.enforce import LiveConnections
from ztunnel.authz.verdict import Admitted, judge
from ztunnel.errors import ConnectionFailed, Denied, Drained
from ztunnel.model.connection import Connection
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload
from ztunnel.state.delta import apply
from ztunnel.state.world import World

A, B, C = workload("a"), workload("b"), workload("c", "other")


@dataclass(eq=False)
class Open:
    """A live connection that remembers how it was aborted."""

    workload_uid: str
    connection: Connection
    ended: list[ConnectionFailed] = field(default_factory=list)

    def abort(self, error: ConnectionFailed) -> None:
        """Remember the error."""
        self.ended.append(error)


def to(target: Workload, principal: str = "default/client") -> Open:
    """A connection to that workload."""
    return Open(target.uid, connection("10.0.0.1", f"{target.addresses[0]}:80", principal))


def recording() -> tuple[LiveConnections, list[str]]:
    """A registry, and the uids of the workloads that it judges."""
    judged: list[str] = []

    def judge_and_record(world: World, target: Workload, call: Connection) -> Admitted:
        judged.append(target.uid)
        return judge(world, target, call)

    return LiveConnections(judge_and_record), judged


def test_what_a_new_policy_refuses_is_aborted_with_its_key() -> None:
    registry, (mine, theirs) = LiveConnections(), (to(A), to(A, "default/other"))
    registry.register(mine)
    registry.register(theirs)
    rule = policy("d").deny().when(principals=["*/sa/other"])
    assert registry.rejudge(*apply(world_of(A), [rule])) == 1
    assert mine.ended == []
    (error,) = theirs.ended
    assert isinstance(error, Denied)
    assert (str(error), error.policy) == (
        "connection closed due to policy change: explicitly denied by: default/d",
        "default/d",
    )
    assert "explicitly denied" in str(error.__cause__)


def test_a_workload_that_lists_a_policy_from_now_on_is_judged_by_it() -> None:
    registry, live = LiveConnections(), to(A)
    registry.register(live)
    world = world_of(A, policy("d").selecting().deny().rule())
    assert registry.rejudge(*apply(world, [A.selected_by("default/d")])) == 1


def test_only_what_a_change_can_touch_is_judged() -> None:
    listed = B.selected_by("root/s")
    world = world_of(A, listed, C, policy("s", "root").selecting().when(destination_ports=[80]))
    cases: list[tuple[list[Workload | Service | Policy], set[str]]] = [
        ([policy("p")], {A.uid, B.uid}),
        ([policy("p", "other")], {C.uid}),
        ([policy("p", "elsewhere")], set()),
        ([policy("p", "root").everywhere()], {A.uid, B.uid, C.uid}),
        ([policy("s", "root").selecting()], {B.uid}),
        ([policy("t", "root").selecting()], set()),
        ([A.account("x")], {A.uid}),
        ([A.unhealthy()], set()),
        ([workload("d")], set()),
        ([service("web")], set()),
    ]
    for upserts, expected in cases:
        registry, judged = recording()
        for target in (A, listed, C):
            registry.register(to(target))
        registry.rejudge(*apply(world, upserts))
        assert set(judged) == expected, upserts
        assert len(judged) == len(expected)


def test_a_change_of_the_source_touches_what_was_registered_with_it() -> None:
    registry, judged = recording()
    live = to(A)
    registry.register(live, B.uid)
    registry.rejudge(*apply(world_of(A, B), [B.account("x")]))
    assert judged == [A.uid]
    registry.unregister(live, B.uid)
    assert registry.of(A.uid) == registry.of(B.uid) == frozenset()


def test_a_connection_whose_both_ends_change_is_judged_once() -> None:
    registry, judged = recording()
    registry.register(to(A), B.uid)
    registry.rejudge(*apply(world_of(A, B), [A.account("x"), B.account("y")]))
    assert judged == [A.uid]


def test_what_has_ended_is_not_judged() -> None:
    registry, judged = recording()
    first, second = to(A), to(A)
    registry.register(first)
    registry.register(second)
    registry.unregister(first)
    registry.unregister(first)
    assert registry.of(A.uid) == {second}
    registry.unregister(second)
    registry.rejudge(*apply(world_of(A), [policy("p").everywhere()]))
    assert judged == []


def test_a_workload_that_leaves_keeps_its_connections() -> None:
    registry, live = LiveConnections(), to(A)
    registry.register(live)
    assert registry.rejudge(*apply(world_of(A), [policy("p").everywhere()], [A.uid])) == 0
    assert live.ended == []


def test_an_abort_that_unregisters_at_once_disturbs_nothing() -> None:
    registry = LiveConnections()

    class Leaving(Open):
        def abort(self, error: ConnectionFailed) -> None:
            registry.unregister(self)
            super().abort(error)

    lives = [Leaving(A.uid, connection("10.0.0.1", "10.0.0.2:80")) for _ in range(5)]
    for live in lives:
        registry.register(live)
    assert registry.rejudge(*apply(world_of(A), [policy("p")])) == 5
    assert registry.of(A.uid) == frozenset()


def test_an_abort_with_a_bug_keeps_no_other_connection_open() -> None:
    class Broken(Open):
        def abort(self, error: ConnectionFailed) -> None:
            raise LookupError("a bug")

    registry, fine = LiveConnections(), [to(A), to(A)]
    for live in (Broken(A.uid, connection("10.0.0.1", "10.0.0.2:80")), *fine):
        registry.register(live)
    with pytest.raises(LookupError):
        registry.rejudge(*apply(world_of(A), [policy("p")]))
    assert all(live.ended for live in fine)


def test_a_drains_deadline_ends_everything_once() -> None:
    registry, opened = LiveConnections(), [to(A), to(A), to(B)]
    for live in opened[:2]:
        registry.register(live)
    registry.register(opened[2], C.uid)
    assert len(registry) == 3
    drained = Drained("connection closed due to connection drain")
    registry.abort_all(drained)
    assert [live.ended for live in opened] == [[drained]] * 3
    for live in opened:
        registry.unregister(live, C.uid)
    assert len(registry) == 0
    registry.abort_all(drained)


def test_connections_that_differ_in_their_source_port_alone_are_judged_once() -> None:
    """A pod may have ten thousand of them, and the thread that judges carries all flows."""
    registry, judged = recording()
    ways = [
        ("10.0.0.1", A, "default/client"),
        ("10.0.0.1", A, "default/other"),
        ("10.0.0.9", A, "default/client"),
        ("10.0.0.1", B, "default/client"),
    ]
    opened = [
        Open(target.uid, connection(f"{source}:{port}", f"{target.addresses[0]}:80", principal))
        for source, target, principal in ways
        for port in range(40000, 40050)
    ]
    for one in opened:
        registry.register(one)
    rule = policy("d").deny().when(principals=["*/sa/other"])
    assert registry.rejudge(*apply(world_of(A, B), [rule])) == 50
    assert len(judged) == len(ways)
    refused = [one for one in opened if one.ended]
    assert {str(one.connection.identity).rpartition("/")[2] for one in refused} == {"other"}
    assert len({id(error) for one in refused for error in one.ended}) == 50  # each may be told apart
