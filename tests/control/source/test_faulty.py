"""A policy that is faulty as it is written names the pods that it is about."""

import json

import pytest

from ztunnel.control.source.faulty import dump, mark
from ztunnel.control.source.inventory import Inventory, gather

PODS = "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}\n"
    for ns, name in (("shop", "a"), ("shop", "b"), ("other", "a"))
)


def policy(namespace, spec):
    return f"""apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: {namespace}}}
spec: {spec}
"""


@pytest.mark.parametrize(
    ("namespace", "spec", "pods"),
    [
        ("shop", "{rulez: [{}]}", ("shop/a", "shop/b")),
        ("shop", "{rulez: [{}], selector: {matchLabels: {app: b}}}", ("shop/b",)),
        ("shop", "{selector: {matchLabels: {app: '*'}}}", ("shop/a", "shop/b")),
        ("istio-system", "{rulez: [{}]}", ("other/a", "shop/a", "shop/b")),
        ("istio-system", "{rulez: [{}], selector: {matchLabels: {app: a}}}", ("other/a", "shop/a")),
        ("nowhere", "{rulez: [{}]}", ()),
    ],
)
def test_the_pods_of_its_scope_are_named(namespace, spec, pods):
    (marked,) = mark(gather({"p.yaml": policy(namespace, spec), "x.yaml": PODS}, Inventory()), "istio-system")
    assert marked.pods == pods
    assert (marked.name, marked.in_force) == (f"{namespace}/p", "none")
    assert "not in force, and never was" in str(marked)


def test_of_one_with_a_good_version_that_is_said():
    good = gather({"p.yaml": policy("shop", "{}"), "x.yaml": PODS}, Inventory())
    assert mark(good, "istio-system") == ()
    bad = gather({"p.yaml": policy("shop", "{rulez: []}"), "x.yaml": PODS}, good)
    (marked,) = mark(bad, "istio-system")
    assert marked.in_force == "last good version"
    shown = json.loads(json.dumps(dump(bad, bad.faults, (marked,))))
    assert shown == {
        "objects": 4,
        "faults": ["p.yaml:4: spec.rulez: unknown field; did you mean rules?"],
        "lastGoodVersions": ["AuthorizationPolicy shop/p"],
        "policyFaults": [
            {
                "kind": "AuthorizationPolicy",
                "policy": "shop/p",
                "inForce": "last good version",
                "faults": ["p.yaml:4: spec.rulez: unknown field; did you mean rules?"],
                "pods": ["shop/a", "shop/b"],
            }
        ],
    }
