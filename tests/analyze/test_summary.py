"""Tables of a dump: the columns of istioctl, what is filtered, what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.builders import policy, service, workload, world_of
from ztunnel.analyze.summary import SECTIONS, Wanted, align, table
from ztunnel.state.dump import dump_world

NOW = datetime(2030, 1, 1, tzinfo=UTC)
GATE = service("gate", "shop").at("10.96.0.9")
WEB = service("web", "shop").at("10.96.0.1").port(80, 8080).through(GATE)
POD = workload("web-1", "shop").at("10.0.0.1").on("n1").hbone().serves(WEB, (80, 8080)).through("10.96.0.9")
SICK = workload("web-2", "shop").at("10.0.0.2").on("n2").serves(WEB).unhealthy()
OTHER = workload("x", "bank").at("10.0.0.3", "fd00::3").on("n2")


def certificate(number: int) -> dict[str, str]:
    return {
        "serialNumber": str(number),
        "validFrom": "2029-12-31T00:00:00Z",
        "expirationTime": "2030-01-02T00:00:00Z",
    }


DUMP: dict[str, Any] = {
    **dump_world(world_of(GATE, WEB, POD, SICK, OTHER, policy("p", "shop").deny().selecting())),
    "certificates": [
        {
            "identity": "spiffe://cluster.local/ns/shop/sa/web",
            "state": "Available",
            "certChain": [certificate(255), certificate(16)],
            "rootCerts": [certificate(1)],
        },
        {"identity": "spiffe://cluster.local/ns/bank/sa/x", "state": "Unavailable: late", "certChain": []},
    ],
    "workloadState": {
        POD.uid: {
            "state": "Up",
            "info": {"name": "web-1", "namespace": "shop"},
            "connections": {
                "inbound": [{"src": "a", "originalDst": "", "actualDst": "b", "protocol": "HBONE"}],
                "outbound": [{"src": "c", "originalDst": "d", "actualDst": "e", "protocol": "TCP"}],
            },
        }
    },
}


def lines(kind: str, **wanted: str) -> list[str]:
    return table(SECTIONS[kind], DUMP, Wanted(**wanted), NOW).splitlines()


def test_workloads() -> None:
    assert lines("workloads") == [
        "NAMESPACE POD NAME ADDRESS          NODE WAYPOINT PROTOCOL",
        "bank      x        10.0.0.3,fd00::3 n2   None     TCP",
        "shop      web-1    10.0.0.1         n1   gate     HBONE",
        "shop      web-2    10.0.0.2         n2   None     TCP",
    ]


def test_services_count_their_healthy_endpoints() -> None:
    assert lines("services") == [
        "NAMESPACE SERVICE NAME SERVICE VIP WAYPOINT ENDPOINTS",
        "shop      gate         10.96.0.9   None     0/0",
        "shop      web          10.96.0.1   gate     1/2",
    ]


def test_policies() -> None:
    assert lines("policies")[1] == "shop      p           Deny   WorkloadSelector"


def test_certificates_say_whether_they_are_valid_now() -> None:
    rows = [line.split() for line in lines("certificates")[1:]]
    assert rows == [
        ["spiffe://cluster.local/ns/bank/sa/x", "NA", "Unavailable", "false", "NA", "NA", "NA"],
        *(
            [
                "spiffe://cluster.local/ns/shop/sa/web", kind, "Available", "true", number,
                "2030-01-02T00:00:00Z", "2029-12-31T00:00:00Z",
            ]
            for kind, number in (("Intermediate", "10"), ("Leaf", "ff"), ("Root", "1"))
        ),
    ]  # fmt: skip
    late = table(SECTIONS["certificates"], DUMP, Wanted(), datetime(2031, 1, 1, tzinfo=UTC))
    assert "true" not in late


def test_connections_of_both_directions() -> None:
    assert lines("connections")[1:] == [
        "web-1.shop Inbound   b     a                    HBONE",
        "web-1.shop Outbound  c     e      d             TCP",
    ]
    assert len(lines("connections", direction="inbound")) == 2
    assert len(lines("connections", direction="outbound")) == 2


@pytest.mark.parametrize(
    ("kind", "wanted", "count"),
    [
        ("workloads", {"namespace": "shop"}, 2),
        ("workloads", {"node": "n2"}, 2),
        ("workloads", {"address": "fd00::3"}, 1),
        ("services", {"namespace": "bank"}, 0),
        ("policies", {"namespace": "shop"}, 1),
        ("certificates", {"namespace": "bank"}, 1),
        ("connections", {"namespace": "bank"}, 0),
    ],
)
def test_filters(kind: str, wanted: dict[str, str], count: int) -> None:
    assert len(lines(kind, **wanted)) == count + 1


def test_columns_stand_below_each_other() -> None:
    assert align([("A", "B"), ("long", ""), ("x", "y")]) == "A    B\nlong\nx    y"
