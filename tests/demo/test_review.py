import pytest
import yaml

from ztunnel.demo.review import review
from ztunnel.state.manifest import Chunk

POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec:
  action: DENY
  rules:
  - from:
    - source: {principals: ["*"]}
"""


def found(text: str) -> list[str]:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    return list(map(str, review(Chunk(11, text), root, "x.yaml")))


def test_a_good_policy_has_no_faults() -> None:
    assert found(POLICY) == []


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("principals", "principls", "x.yaml:18: spec.rules[0].from[0].source.principls: unknown field; did"),
        ("DENY", "Deny", "x.yaml:15: spec.action: must be one of"),
        (
            "kind: AuthorizationPolicy",
            "kind: AuthorizationPolicie",
            "x.yaml:12: kind: no kind 'Authorization",
        ),
        ("security.istio.io/v1", "security.istio.oi/v1", "x.yaml:11: apiVersion: AuthorizationPolicy is of"),
        ("security.istio.io/v1", "security.istio.io/v2", "x.yaml:11: AuthorizationPolicy is read in"),
    ],
)
def test_what_would_not_come_into_force_is_named(before: str, after: str, fault: str) -> None:
    said = found(POLICY.replace(before, after))
    assert len([each for each in said if each.startswith(fault)]) == 1
    assert [each for each in said if not each.startswith(fault) and "attribute" not in each] == []


def test_the_items_of_a_list_are_reviewed_each() -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: Pdo, metadata: {name: a}}\n"
        "- apiVersion: apps/v1\n  kind: DaemonSet\n  metadata: {name: a}\n"
    )
    assert found(text) == [
        "x.yaml:14: items[0].kind: no kind 'Pdo' in the core group, v1; did you mean Pod?",
        "x.yaml:15: items[1]: spec is missing",
    ]
