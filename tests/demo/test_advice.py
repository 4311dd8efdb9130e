from itertools import count

import pytest

from ztunnel.demo.advice import advice
from ztunnel.demo.manifest import parse
from ztunnel.demo.schedule import complete

UIDS = map(str, count())
SHOP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: %s}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: %s}
spec: %s
"""
GOOD = "{selector: {matchLabels: {app: web}}, rules: [{}]}"


def said(mode: str = "ambient", namespace: str = "shop", spec: str = GOOD) -> tuple[str, ...]:
    return advice(complete({}, parse(SHOP % (mode, namespace, spec), ""), UIDS.__next__))


def test_what_is_in_force_as_written_needs_no_advice() -> None:
    assert said() == ()
    assert said(namespace="istio-system") == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "Ambient"}, "is neither ambient nor none"),
        ({"spec": "{action: CUSTOM, provider: {name: x}, rules: [{}]}"}, "do not support the CUSTOM action"),
        ({"spec": "{rules: [{to: [{operation: {methods: [GET]}}]}]}"}, "do not support HTTP attributes"),
        (
            {"spec": GOOD.replace("app: web", "app: wep")},
            "AuthorizationPolicy shop/p: its selector selects no pod",
        ),
        ({"namespace": "other"}, "AuthorizationPolicy other/p: its selector selects no pod"),
    ],
)
def test_what_means_something_else_is_said(change: dict[str, str], words: str) -> None:
    (line,) = said(**change)
    assert words in line
