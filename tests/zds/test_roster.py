"""What the agent wants served: snapshots, single pods, and what it gets wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.zds.message import Add, Delete, Keep, Named, Request, SnapshotSent
from ztunnel.zds.roster import Roster, Step

HOME = 1
A, B = Named("a", "shop", "a"), Named("b", "shop", "b")
SENT = SnapshotSent()


def roster(*requests: tuple[Request, int], most: int = 100) -> Roster:
    made = Roster(HOME, most)
    made.connect()
    for request, cookie in requests:
        made.take(request, cookie)
    return made


def test_a_pod_that_is_named_is_started_once() -> None:
    made = roster()
    assert made.take(Add("a", A), 11) == Step(start="a")
    assert made.take(Add("a", A), 11) == Step()
    assert made.listed["a"].pod == A


@pytest.mark.parametrize(
    ("again", "cookie"), [(A, 12), (A._replace(service_account="other"), 11), (A._replace(name="a2"), 11)]
)
def test_a_pod_in_another_namespace_or_with_another_account_is_another_one(again: Named, cookie: int) -> None:
    made = roster((Add("a", A), 11))
    assert made.take(Add("a", again), cookie) == Step(stop=("a",), start="a")


def test_a_pod_that_is_deleted_is_stopped_and_one_that_is_not_there_is_not_missed() -> None:
    made = roster((Add("a", A), 11), (SENT, 0))
    assert made.take(Delete("a")) == Step(stop=("a",))
    assert made.take(Delete("a")) == Step()
    assert not made.listed


def test_who_a_snapshot_does_not_name_leaves() -> None:
    made = roster((Add("a", A), 11), (Add("b", B), 12), (SENT, 0))
    made.connect()
    assert not made.whole
    assert made.take(Add("b", B), 12) == Step()
    assert made.take(SENT) == Step(stop=("a",))
    assert made.whole
    assert set(made.listed) == {"b"}


def test_who_is_kept_stays_without_its_namespace() -> None:
    made = roster((Add("a", A), 11), (SENT, 0))
    made.connect()
    assert made.take(Keep("a")) == Step()
    assert made.take(SENT) == Step()
    assert set(made.listed) == {"a"}


def test_who_is_deleted_within_a_snapshot_is_stopped_once() -> None:
    made = roster((Add("a", A), 11), (SENT, 0))
    made.connect()
    made.take(Keep("a"))
    assert made.take(Delete("a")) == Step(stop=("a",))
    assert made.take(SENT) == Step()


def test_an_empty_snapshot_removes_all() -> None:
    made = roster((Add("a", A), 11), (SENT, 0))
    made.connect()
    assert made.take(SENT) == Step(stop=("a",))


@pytest.mark.parametrize(
    ("request_", "cookie", "reason"),
    [
        (Add("c", A), HOME, "in the node proxy's own network namespace"),
        (Add("c", Named("c", "shop", "c")), 11, r"is that of shop/a \(a\)"),
        (Keep("a"), 0, "after the snapshot"),
        (SENT, 0, "a second time"),
    ],
)
def test_what_makes_no_sense_changes_nothing(request_: Request, cookie: int, reason: str) -> None:
    made = roster((Add("a", A), 11), (SENT, 0))
    with pytest.raises(PeerError, match=reason):
        made.take(request_, cookie)
    assert set(made.listed) == {"a"}
    assert made.whole


def test_who_is_unknown_cannot_be_kept() -> None:
    with pytest.raises(PeerError, match="not known here: send its namespace"):
        roster().take(Keep("a"))


def test_there_are_not_more_pods_than_a_node_can_have() -> None:
    made = roster((Add("a", A), 11), most=1)
    with pytest.raises(PeerError, match="which is the most"):
        made.take(Add("b", B), 12)
    made.take(Delete("a"))
    assert made.take(Add("b", B), 12) == Step(start="b")


_UIDS = st.sampled_from("abc")
_REQUESTS = st.lists(
    st.one_of(
        st.tuples(st.builds(Add, _UIDS, st.sampled_from([A, B])), st.integers(0, 5)),
        st.tuples(st.builds(Keep, _UIDS), st.just(0)),
        st.tuples(st.builds(Delete, _UIDS), st.just(0)),
        st.tuples(st.just(SENT), st.just(0)),
        st.none(),
    )
)


@given(_REQUESTS)
def test_whatever_comes_what_runs_is_what_is_listed_and_no_namespace_is_two_pods(
    requests: list[tuple[Request, int] | None],
) -> None:
    made = Roster(HOME, 3)
    made.connect()
    running: dict[str, int] = {}
    for each in requests:
        if each is None:
            made.connect()
            continue
        try:
            step = made.take(*each)
        except PeerError:
            continue
        for uid in step.stop:
            del running[uid]
        if step.start:
            assert step.start not in running
            running[step.start] = each[1]
    assert running == {uid: listed.cookie for uid, listed in made.listed.items()}
    assert len(set(running.values())) == len(running) <= 3
    assert HOME not in running.values()
