"""How endpoints are chosen at a waypoint, in words."""

from __future__ import annotations

import pytest

from tests.explain.test_route import V1, V2, explained, rule
from tests.explain.test_waypoint import CLIENT, GATE, GATE_1, WEB, WEB_1, WEB_2, world_of
from ztunnel.explain.balancing import balanced
from ztunnel.explain.explanation import explain_call
from ztunnel.explain.names import find_call
from ztunnel.model.route_action import Forward
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ClientTls,
    ConsistentHash,
    HashCookie,
    Localities,
    Outlier,
    Pool,
    PortTraffic,
    TlsMode,
    Traffic,
    Warmup,
)


def said(traffic: Traffic) -> str:
    one = ServiceTraffic(WEB.key, (ClientTraffic("", PortTraffic(traffic)),))
    return balanced(world_of(one), "shop", WEB.key, 80)


def by(hashed: ConsistentHash) -> Traffic:
    return Traffic(Balancing(by_hash=hashed))


@pytest.mark.parametrize(
    ("traffic", "text"),
    [
        (Traffic(), ""),
        (Traffic(Balancing(Balance.ROUND_ROBIN)), "; endpoints by ROUND_ROBIN"),
        (Traffic(Balancing(Balance.PASSTHROUGH)), "; endpoints by the one called"),
        (by(ConsistentHash(header="x-user")), "; endpoints by a hash of the header x-user"),
        (by(ConsistentHash(cookie=HashCookie("c"))), "; endpoints by a hash of the cookie c"),
        (by(ConsistentHash(source_ip=True)), "; endpoints by a hash of the caller's address"),
        (by(ConsistentHash(query="q")), "; endpoints by a hash of the query parameter q"),
        (Traffic(Balancing(localities=Localities(failover=(("a", "b"),)))), "; near ones first"),
        (Traffic(Balancing(localities=Localities(enabled=False))), ""),
        (Traffic(Balancing(warmup=Warmup(30.0))), "; new ones get less for 30 s"),
        (Traffic(outlier=Outlier(3)), "; one that fails 3 times in a row is left out for a while"),
        (
            Traffic(pool=Pool(connections=1, pending_requests=2)),
            "; at most 1 connections, 2 requests that wait",
        ),
        (Traffic(tls=ClientTls(TlsMode.SIMPLE)), "; TLS SIMPLE"),
        (
            Traffic(Balancing(Balance.RANDOM), unsupported=("tunnel",)),
            "; answered 503: DestinationRule tunnel is not supported",
        ),
    ],
)
def test_what_a_rule_says(traffic: Traffic, text: str) -> None:
    assert said(traffic) == text


def test_nothing_is_said_where_there_is_no_rule() -> None:
    assert balanced(world_of(), "shop", WEB.key, 80) == ""


def test_an_explanation_says_it_of_a_service_and_of_a_subset() -> None:
    random, robin = (PortTraffic(Traffic(Balancing(one))) for one in (Balance.RANDOM, Balance.ROUND_ROBIN))
    one = ServiceTraffic(WEB.key, (ClientTraffic("", random, (SubsetTraffic("v1", robin),)),))
    world = world_of(CLIENT, GATE, GATE_1, WEB_1, WEB_2, WEB, one)
    found = explain_call(world, find_call(world, "shop/client", "10.96.0.1:80")).paths[0]
    assert "; endpoints by RANDOM" in found.reason
    shares = explained(rule(Forward((V1, V2))), traffic=one).paths[0].onward
    assert ["ROUND_ROBIN" in each.reason for each in shares] == [True, False]
    assert ["RANDOM" in each.reason for each in shares] == [False, True]
