"""Who a workload is, and whether it is in the mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import BuiltWorkload, identity, workload
from ztunnel.model.workload import LeftTo, SameNode, WorkloadKind


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


def test_whether_a_pod_is_istio_s_its_node_proxy_finds_out() -> None:
    annotated = replace(workload("a").native(), left_to=LeftTo.ISTIO)
    assert (annotated.enrolled, annotated.may_be_enrolled) == (False, True)
    assert workload("a").hbone().may_be_enrolled
    assert not replace(workload("a"), left_to=LeftTo.SIDECAR).may_be_enrolled


def test_words_are_istios() -> None:
    assert [kind.value for kind in WorkloadKind] == ["deployment", "cronjob", "pod", "job"]
    assert [mode.value for mode in SameNode] == ["auto", "direct", "mtls"]
