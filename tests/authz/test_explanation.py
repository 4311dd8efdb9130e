"""The explanation: which rule matches, or what keeps each from matching."""

from __future__ import annotations

import pytest

from tests.builders import BuiltPolicy, connection, match, policy
from ztunnel.authz.explanation import explain

CALL = connection("10.0.0.1", "10.0.1.1:8080", "default/client")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (policy("a"), "it has no rules"),
        (policy("b").rule(), "rule 1 has no conditions"),
        (policy("c").when(principals=["x"]).when(namespaces=["default"]), "rule 2 matches"),
        (
            policy("d")
            .rule(
                [match(destination_ports=[8080])],
                [match(namespaces=["x"]), match(source_ips=["192.0.2.0/24"])],
            )
            .when(principals=["y"]),
            "rule 1: namespaces or source_ips; rule 2: principals",
        ),
        (policy("e").rule([match()]), "rule 1: (no condition)"),
    ],
)
def test_it_says_why_a_policy_matches_or_not(given: BuiltPolicy, said: str) -> None:
    assert explain(given, CALL) == said


def test_of_very_many_rules_some_are_explained() -> None:
    many = policy("a")
    for _ in range(500):
        many = many.when(principals=["x"])
    assert explain(many, CALL) == "; ".join([*(f"rule {n}: principals" for n in range(1, 6)), "495 more"])
