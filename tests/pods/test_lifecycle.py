"""The comparison of wanted with enrolled pods."""

import pytest

from ztunnel.pods.lifecycle import Plan, plan

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
