"""The comparison of wanted with enrolled pods."""

import pytest

from ztunnel.pods.lifecycle import NO_NAMESPACE, Plan, cause_of, plan

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
        ("pod a/b: the namespace /x has the addresses none, the pod 10.0.0.1", "other addresses"),
        ("pod a/b: port 15008 is taken by a process of the pod; the mesh needs it: x (pid 1)", "port taken"),
        ("cannot be removed: [Errno 1] x", "not removed"),
        ("it cannot be repaired: x", "not repaired"),
        ("pod a/b: [Errno 30] Read-only file system", "kernel"),
    ],
)
def test_a_reason_has_a_short_name_for_a_label(reason, cause) -> None:
    assert cause_of(reason) == cause
