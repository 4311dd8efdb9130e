"""Who would be cut off by STRICT."""

from __future__ import annotations

import pytest

from tests.builders import strict, workload, world_of
from ztunnel.analyze.checks import State
from ztunnel.analyze.strict import Plain, outside, seen, strict_already, strict_checks

HEAD = "# HELP istio_tcp_connections_opened_total x\n# TYPE istio_tcp_connections_opened_total counter\n"


def sample(value: int, **labels: str) -> str:
    usual = {
        "reporter": "destination",
        "source_workload": "old",
        "source_workload_namespace": "bank",
        "source_principal": "unknown",
        "destination_workload": "web",
        "destination_workload_namespace": "shop",
    }
    text = ",".join(f'{key}="{each}"' for key, each in {**usual, **labels}.items())
    return f"istio_tcp_connections_opened_total{{{text}}} {value}\n"


def test_plaintext_callers_are_counted_over_all_nodes() -> None:
    first = HEAD + sample(3) + sample(2, source_workload="unknown")
    second = HEAD + sample(4, response_flags="x") + sample(1, destination_workload="db")
    assert seen([first, second], "shop") == [
        Plain("shop/db", "bank/old", 1),
        Plain("shop/web", "bank/old", 7),
        Plain("shop/web", "unknown", 2),
    ]


@pytest.mark.parametrize(
    "labels",
    [
        {"reporter": "source"},
        {"source_principal": "spiffe://cluster.local/ns/bank/sa/old"},
        {"destination_workload_namespace": "bank"},
    ],
)
def test_others_do_not_count(labels: dict[str, str]) -> None:
    assert seen([HEAD + sample(3, **labels), HEAD + sample(0)], "shop") == []


def test_what_is_no_text_of_metrics_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        seen(["<html>"], "shop")


def test_workloads_that_strict_would_not_protect_and_those_that_have_it() -> None:
    policy = strict()
    bare = workload("bare", "shop").at("10.0.0.1")
    host = workload("host", "shop").at("10.0.0.2").host_networked()
    soft = workload("soft", "shop").at("10.0.0.3").hbone()
    hard = workload("hard", "shop").at("10.0.0.4").hbone().selected_by(policy)
    world = world_of(bare, host, soft, hard, workload("x", "bank"), policy)
    assert outside(world, "shop") == ["shop/bare"]
    assert strict_already(world, "shop") == ["shop/hard"]


def test_callers_fail_and_pods_outside_are_warnings() -> None:
    world = world_of(workload("bare", "shop").at("10.0.0.1"), workload("web", "shop").at("10.0.0.2").hbone())
    found = strict_checks(world, [Plain("shop/web", "bank/old", 7)], "shop")
    assert [(one.name, one.state) for one in found] == [
        ("bank/old", State.FAIL),
        ("shop/bare", State.WARN),
        ("in the mesh", State.OK),
    ]
    assert found[0].found == "7 connections to shop/web since its node proxy started"
    assert [one.state for one in strict_checks(world_of(), [], "none")] == [State.OK, State.WARN]
