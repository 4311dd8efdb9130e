"""Who a workload is, and whether it is in the mesh."""

from __future__ import annotations

import pytest

from tests.builders import BuiltWorkload, identity, workload
from ztunnel.model.workload import SameNode, WorkloadKind


def test_a_workload_has_the_identity_of_its_account() -> None:
    pod = workload("a", "shop").account("seller")
    assert pod.identity == identity("shop/seller")
    assert pod.account("seller", "example.org").identity == identity("example.org/ns/shop/sa/seller")


@pytest.mark.parametrize(
    ("pod", "enrolled"),
    [
        (workload("a"), False),
        (workload("a").hbone(), True),
        (workload("a").hbone().plain(), False),
        (workload("a").native(), False),
        (workload("a").hbone().host_networked(), False),
    ],
    ids=["plain", "in the mesh", "opted out", "speaks HBONE itself", "in the host's network"],
)
def test_the_node_proxy_serves_who_is_in_the_mesh(pod: BuiltWorkload, enrolled: bool) -> None:
    assert pod.enrolled is enrolled


def test_words_are_istios() -> None:
    assert [kind.value for kind in WorkloadKind] == ["deployment", "cronjob", "pod", "job"]
    assert [mode.value for mode in SameNode] == ["auto", "direct", "mtls"]
