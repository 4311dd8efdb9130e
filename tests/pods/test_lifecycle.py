"""The comparison of wanted with enrolled pods."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import workload
from ztunnel.pods.lifecycle import (
    NO_ADDRESSES,
    NO_NAMESPACE,
    NO_SOCKETS,
    STARTS_SECONDS,
    Plan,
    Spaces,
    Told,
    cause_of,
    plan,
    summary,
)

CASES = [
    ("a new pod is enrolled", {"a": 1}, {}, Plan(("a",), (), (), ())),
    ("a pod without a namespace is waited for", {"a": None}, {}, Plan((), (), (), ("a",))),
    ("an enrolled pod is left alone", {"a": 1}, {"a": (1, True)}, Plan((), (), (), ())),
    ("a recreated pod is withdrawn and enrolled", {"a": 2}, {"a": (1, True)}, Plan(("a",), ("a",), (), ())),
    (
        "a recreated pod whose old namespace is gone",
        {"a": 2},
        {"a": (1, False)},
        Plan(("a",), (), ("a",), ()),
    ),
    ("an unlabelled pod is removed", {}, {"a": (1, True)}, Plan((), ("a",), (), ())),
    ("a deleted pod is dropped", {}, {"a": (1, False)}, Plan((), (), ("a",), ())),
    ("a wanted pod that lost its namespace", {"a": None}, {"a": (1, False)}, Plan((), (), ("a",), ("a",))),
]


@pytest.mark.parametrize(
    ("wanted", "enrolled", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_plan_of(wanted, enrolled, expected):
    assert plan(wanted, enrolled) == expected


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (NO_NAMESPACE, "no namespace"),
        ("pod a/b: the namespace /x has the addresses 10.0.0.2, the pod 10.0.0.1", "other addresses"),
        (f"pod a/b: {NO_ADDRESSES}: none of 10.0.0.1 is in /x", "no address"),
        (f"pod a/b: {NO_SOCKETS}: it is a virtual machine", "no sockets"),
        ("pod a/b: port 15008 is taken by a process of the pod; the mesh needs it: x (pid 1)", "port taken"),
        ("cannot be removed: [Errno 1] x", "not removed"),
        ("it cannot be repaired: x", "not repaired"),
        ("pod a/b: [Errno 30] Read-only file system", "kernel"),
    ],
)
def test_a_reason_has_a_short_name_for_a_label(reason, cause) -> None:
    assert cause_of(reason) == cause


def test_of_many_that_are_pending_some_are_named():
    assert summary({}) == ""
    assert summary({"b": "no", "a": "why"}) == "a: why; b: no"
    text = summary({f"{number:03}": "no" for number in range(100)})
    assert text.startswith("000: no; 001: no")
    assert text.endswith("019: no; and 80 more")


def test_each_reason_is_told_once_and_that_a_pod_starts_after_a_while():
    told = Told()
    starts, taken = {"a": f"{NO_NAMESPACE}: it starts"}, {"b": "port taken"}
    assert told.fresh(starts | taken, 0.0) == [("b", "port taken")]
    assert told.fresh(starts | taken, 1.0) == []
    assert told.fresh(starts, STARTS_SECONDS) == list(starts.items())
    assert told.fresh(starts | taken, 9.0) == [("b", "port taken")]
    assert told.fresh({}, 10.0) == []
    assert told.fresh(starts, 11.0) == []


def test_a_namespace_is_in_the_mesh_when_all_its_pods_are():
    spaces = Spaces()
    assert "shop" not in spaces
    web, db = workload("web", "shop").hbone(), workload("db", "shop")
    spaces.change(None, web)
    assert "shop" in spaces
    assert "default" not in spaces
    spaces.change(None, db)
    assert "shop" not in spaces
    spaces.change(db, db.hbone())
    assert "shop" in spaces
    spaces.change(None, workload("agent", "shop").host_networked())
    assert "shop" in spaces
    spaces.change(web, None)
    spaces.change(db.hbone(), None)
    assert "shop" not in spaces


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["in", "out", "gone"])), max_size=20))
def test_a_namespace_is_counted_right_whatever_comes_and_goes(changes):
    spaces, now = Spaces(), {}
    for name, state in changes:
        made = {"in": workload(name, "shop").hbone(), "out": workload(name, "shop"), "gone": None}[state]
        spaces.change(now.get(name), made)
        now[name] = made
    there = [each for each in now.values() if each is not None]
    assert ("shop" in spaces) == (bool(there) and all(each.enrolled for each in there))
