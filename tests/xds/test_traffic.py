"""Traffic policies survive the way there and back; what makes no sense is refused, and says where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.service import ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ClientTls,
    ConsistentHash,
    HashCookie,
    KeepAlive,
    Localities,
    Outlier,
    Pings,
    Pool,
    PortTraffic,
    RetryBudget,
    Spread,
    TlsMode,
    Traffic,
    Upgrade,
    Warmup,
)
from ztunnel.xds.pb import traffic_pb2 as pb
from ztunnel.xds.traffic import MOST_RING, MOST_TABLE, parse_traffic, render_traffic

text = st.text("ab/*", max_size=4)
number = st.integers(0, 2**32 - 1)
seconds = st.floats(0, 1e6)
positive = st.floats(0.001, 1e6)
percent = st.integers(0, 100)
truth = st.booleans()


def some(each):
    return st.lists(each, max_size=2).map(tuple)


pairs = some(st.tuples(text, text))
cookies = st.builds(HashCookie, text, text, st.none() | seconds, pairs)
hashes = st.builds(
    ConsistentHash, text, st.none() | cookies, truth, text, st.integers(0, MOST_RING),
    st.integers(0, MOST_TABLE),
)  # fmt: skip
localities = st.builds(
    Localities, truth, some(st.builds(Spread, text, some(st.tuples(text, percent)))), pairs, some(text)
)
balancing = st.builds(
    Balancing, st.none() | st.sampled_from(Balance), st.none() | hashes, st.none() | localities,
    st.none() | st.builds(Warmup, positive, st.floats(0, 100), positive),
)  # fmt: skip
pools = st.builds(
    Pool, number, seconds, seconds, seconds, st.none() | st.builds(KeepAlive, number, seconds, seconds),
    number, number, number, number, seconds, st.sampled_from(Upgrade), truth, number,
    st.none() | st.builds(Pings, positive, positive),
)  # fmt: skip
outliers = st.builds(
    Outlier, number, number, number, truth, positive, positive, percent, percent,
    some(st.integers(100, 599)),
)  # fmt: skip
tls = st.builds(ClientTls, st.sampled_from(TlsMode), text, text, text, text, text, some(text), text, truth)
policies = st.builds(
    Traffic, st.none() | balancing, st.none() | pools, st.none() | outliers, st.none() | tls,
    st.none() | st.builds(RetryBudget, st.floats(0, 100), number, seconds),
)  # fmt: skip


def back(service):
    message = pb.ServiceTraffic()
    message.ParseFromString(render_traffic(service).SerializeToString(deterministic=True))
    return parse_traffic(message)


@settings(max_examples=50)
@given(policies)
def test_policies_there_and_back(traffic):
    service = ServiceTraffic(ServiceName("n", "p"), (ClientTraffic("", PortTraffic(traffic)),))
    assert back(service) == service


def test_each_has_its_place():
    made = [Traffic(outlier=Outlier(each)) for each in range(6)]
    first = PortTraffic(made[0], ((80, made[1]), (90, made[2])))
    subsets = SubsetTraffic("v1", PortTraffic(made[3])), SubsetTraffic("v2", PortTraffic(made[4], ()))
    clients = ClientTraffic("other", first, subsets), ClientTraffic("", PortTraffic(made[5]))
    service = ServiceTraffic(ServiceName("n", "p"), clients)
    assert back(service) == service


WRONG = [
    (Traffic(Balancing(warmup=Warmup(0.0))), "seconds: more than nothing"),
    (Traffic(Balancing(warmup=Warmup(float("inf")))), "not a time"),
    (Traffic(outlier=Outlier(interval_seconds=-1.0)), "not a time"),
    (Traffic(outlier=Outlier(most_percent=101)), "most_percent: from 0 to 100"),
    (Traffic(Balancing(by_hash=ConsistentHash(maglev_size=MOST_TABLE + 1))), "maglev_size: from 0 to"),
    (Traffic(Balancing(by_hash=ConsistentHash(ring_size=MOST_RING + 1))), "ring_size: from 0 to"),
    (Traffic(pool=Pool(connect_seconds=float("nan"))), "connect_seconds: not a time"),
    (Traffic(budget=RetryBudget(200.0)), "percent: from 0 to 100"),
    (Traffic(budget=RetryBudget(seconds=-1.0)), "seconds: not a time"),
    (Traffic(pool=Pool(pings=Pings(0.0))), "every_seconds: more than nothing"),
    (Traffic(outlier=Outlier(codes=(99, 200))), "codes: not a status of HTTP: 99"),
]


@pytest.mark.parametrize(("traffic", "reason"), WRONG)
def test_what_makes_no_sense_is_refused(traffic, reason):
    name = ServiceName("n", "h")
    made = render_traffic(ServiceTraffic(name, (ClientTraffic("", PortTraffic(traffic)),)))
    with pytest.raises(PeerError, match=reason):
        parse_traffic(made)


def test_what_is_not_known_here_is_refused():
    made = pb.ServiceTraffic(namespace="n", hostname="h")
    made.clients.add().traffic.common.balancing.simple = "by the moon"
    with pytest.raises(PeerError, match="by the moon"):
        parse_traffic(made)
    with pytest.raises(PeerError, match="those of a service"):
        parse_traffic(pb.ServiceTraffic(namespace="n"))
