"""What a cluster hears of one try."""

from __future__ import annotations

from random import Random

import pytest

from tests.l7.hosts import endpoint, workload
from tests.waypoint.rig import Clock
from ztunnel.l7.balancing.circuit import Circuit, Limit
from ztunnel.l7.balancing.cluster import Cluster, Member
from ztunnel.model.traffic import Outlier, Pool, Traffic
from ztunnel.waypoint.upstream.asking import Asking


def asking(pool: Pool | None = None):
    cluster = Cluster(Random(1), Circuit())
    cluster.configure(Traffic(pool=pool, outlier=Outlier(9, split=True)), 0.0)
    cluster.replace([Member(endpoint(0), workload(0))], 0.0)
    (host,) = cluster.hosts.values()
    return Asking(cluster, host, Clock()), host, cluster.circuit


def fields(status, **more):
    return ((b":status", status), *((name.replace("_", "-").encode(), value) for name, value in more.items()))


ANSWERS = [
    # response, of gRPC, whole, trailers: counts as a failure
    (fields(b"200"), False, True, None, False),
    (fields(b"500"), False, True, None, True),
    (fields(b"503"), False, False, (), True),
    (fields(b"404"), False, True, None, False),
    (fields(b"200"), True, False, ((b"grpc-status", b"0"),), False),
    (fields(b"200"), True, False, ((b"grpc-status", b"14"),), True),
    (fields(b"200"), True, False, ((b"grpc-status", b"5"),), False),
    (fields(b"200"), True, False, (), False),
    (fields(b"200", grpc_status=b"13"), True, True, None, True),
    (fields(b"200", grpc_status=b"x"), True, True, None, True),
    (fields(b"200"), True, True, None, True),
    (fields(b"503"), True, True, None, True),
    (fields(b"200", grpc_status=b"14"), False, True, None, False),
]


@pytest.mark.parametrize(("response", "grpc", "end", "trailers", "fails"), ANSWERS)
def test_how_an_answer_counts(response, grpc, end, trailers, fails):
    one, host, _ = asking()
    one.responded(response, grpc, end)
    if trailers is not None:
        one.ended(trailers)
    one.end()
    assert host.server_errors == fails
    assert host.local_errors == 0


LOSSES = [
    ("UF", 1),
    ("UC", 1),
    ("UR", 1),
    ("UPE", 1),
    ("UT", 1),
    ("UO", 0),
    ("UH", 0),
    ("-", 0),
    ("", 0),
]


@pytest.mark.parametrize(("flag", "count"), LOSSES)
def test_what_is_an_endpoints_fault(flag, count):
    one, host, _ = asking()
    one.lost(flag)
    one.lost(flag)
    assert host.local_errors == count


def test_each_try_counts_once():
    one, host, _ = asking()
    one.responded(fields(b"500"), False, False)
    one.ended(())
    one.lost("UC")
    one.end()
    one.lost("UC")
    assert (host.server_errors, host.local_errors) == (1, 0)


def test_what_it_takes_is_given_back_once():
    one, host, circuit = asking(Pool(requests=1, connections=1))
    assert host.active == 1
    assert one.begin()
    assert one.connect()
    other = Asking(one._cluster, host, Clock())
    assert not other.begin()
    assert not other.connect()
    other.end()
    assert circuit.used[Limit.REQUESTS] == circuit.used[Limit.CONNECTIONS] == 1
    one.end()
    one.end()
    assert host.active == 0
    assert sum(circuit.used) == 0


def test_a_connection_that_stands_is_a_success():
    one, host, _ = asking()
    host.server_errors = 3
    one.connected()
    assert host.server_errors == 0
