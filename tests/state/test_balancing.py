"""How endpoints are chosen is read."""

import pytest

from tests.state.reading import read
from ztunnel.model.traffic import Balance, Balancing, ConsistentHash, HashCookie, Localities, Spread, Warmup
from ztunnel.state.balancing import read_balancing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{simple: LEAST_CONN}", Balancing(Balance.LEAST_REQUEST)),
        ("{simple: ROUND_ROBIN, warmup: {duration: 10s}}", Balancing(Balance.ROUND_ROBIN, warmup=Warmup(10))),
        ("{warmup: {duration: 10s, minimumPercent: 5, aggression: 1.5}}",
         Balancing(warmup=Warmup(10, 5, 1.5))),
        ("{warmup: {duration: 10s, minimumPercent: 12.5}}", Balancing(warmup=Warmup(10, 12.5))),
        ("{warmupDurationSecs: 4s}", Balancing(warmup=Warmup(4))),
        ("{simple: UNSPECIFIED}", Balancing()),
        ("{consistentHash: {httpHeaderName: X-User}}", Balancing(by_hash=ConsistentHash("x-user"))),
        ("{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8}}}",
         Balancing(by_hash=ConsistentHash(source_ip=True, ring_size=8))),
        ("{consistentHash: {useSourceIp: true, minimumRingSize: 9}}",
         Balancing(by_hash=ConsistentHash(source_ip=True, ring_size=9))),
        ("{consistentHash: {httpQueryParameterName: q, maglev: {}}}",
         Balancing(by_hash=ConsistentHash(query="q", maglev_size=65537))),
        ("{consistentHash: {httpCookie: {name: user, ttl: 0s, path: /, attributes: [{name: a, value: b}]}}}",
         Balancing(by_hash=ConsistentHash(cookie=HashCookie("user", "/", 0.0, (("a", "b"),))))),
        ("{localityLbSetting: {enabled: false}}", Balancing(localities=Localities(False))),
        ("{localityLbSetting: {distribute: [{from: a/b/*, to: {a/b/*: 80, 'c/*': 20}}]}}",
         Balancing(localities=Localities(distribute=(Spread("a/b/*", (("a/b/*", 80), ("c/*", 20))),)))),
        ("{localityLbSetting: {failover: [{from: a, to: b}], failoverPriority: [topology.istio.io/network]}}",
         Balancing(localities=Localities(failover=(("a", "b"),), priorities=("topology.istio.io/network",)))),
    ],
)  # fmt: skip
def test_it_is_read(text, expected):
    assert read(read_balancing, f"  {text}", "lb") == (expected, [])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{simple: FASTEST}", ["lb.simple"]),
        ("{simple: RANDOM, consistentHash: {useSourceIp: true}}", ["lb"]),
        ("{consistentHash: {}}", ["lb.consistentHash"]),
        ("{consistentHash: {useSourceIp: true, httpHeaderName: a}}", ["lb.consistentHash"]),
        ("{consistentHash: {useSourceIp: true, ringHash: {}, maglev: {}}}", ["lb.consistentHash"]),
        ("{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388609}}}",
         ["lb.consistentHash"]),
        ("{consistentHash: {httpCookie: {ttl: 1s}}}", ["lb.consistentHash.httpCookie"]),
        ("{warmup: {}}", ["lb.warmup"]),
        ("{warmup: {duration: 1s, aggression: 0.5}}", ["lb.warmup"]),
        ("{localityLbSetting: {distribute: [{from: a, to: {b: 99}}]}}",
         ["lb.localityLbSetting.distribute[0]"]),
        ("{localityLbSetting: {distribute: [{from: a}]}}", ["lb.localityLbSetting.distribute[0]"]),
        ("{localityLbSetting: {failover: [{from: a, to: a}]}}", ["lb.localityLbSetting.failover[0]"]),
        ("{localityLbSetting: {distribute: [{from: a, to: {b: 100}}], failoverPriority: [x]}}",
         ["lb.localityLbSetting"]),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_fault(text, fields):
    assert read(read_balancing, f"  {text}", "lb")[1] == fields
