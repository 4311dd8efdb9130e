"""How a request is sent, by the limits of its cluster."""

from random import Random

import pytest

from tests.l7.hosts import endpoint
from ztunnel.l7.balancing.circuit import Circuit
from ztunnel.l7.balancing.cluster import Cluster
from ztunnel.model.service import Service
from ztunnel.model.traffic import ClientTls, Pool, TlsMode, Traffic, Upgrade
from ztunnel.waypoint.upstream.find import Target
from ztunnel.waypoint.upstream.spot import NO_LIMITS, spot_of, version_of

VERSIONS = [
    (1, 2, False, Pool(), 1),
    (2, 1, False, Pool(), 2),
    (1, 1, False, Pool(upgrade=Upgrade.ALWAYS), 2),
    (1, 1, True, Pool(upgrade=Upgrade.ALWAYS), 1),
    (2, 2, False, Pool(upgrade=Upgrade.NEVER), 2),
    (1, 1, False, Pool(upgrade=Upgrade.NEVER), 1),
    (1, 2, False, Pool(client_protocol=True), 2),
    (2, 1, False, Pool(client_protocol=True, upgrade=Upgrade.ALWAYS), 1),
]


@pytest.mark.parametrize(("port", "client", "switches", "pool", "version"), VERSIONS)
def test_which_version_a_server_is_asked_in(port, client, switches, pool, version):
    assert version_of(pool, port, client, switches) == version


def test_a_cluster_has_its_limits_and_others_none():
    target = Target(None, None, endpoint(1), None)
    assert spot_of(target, None).limits is NO_LIMITS
    one, other = Cluster(Random(1), Circuit()), Cluster(Random(1), Circuit())
    assert spot_of(target, one).limits is NO_LIMITS
    one.configure(Traffic(pool=Pool(connections=3)), 0.0)
    assert spot_of(target, one).limits.connections == 3
    assert spot_of(target, one).key != spot_of(target, other).key


def test_names_of_a_service_entry_are_those_of_its_servers_where_the_rule_says_none():
    service = Service("a", "shop", "a.example", subject_alt_names=("b.example",))
    cluster = Cluster(Random(1), Circuit())
    target = Target(None, None, endpoint(1), None, service)
    for names, found in (((), ("b.example",)), (("c.example",), ("c.example",))):
        cluster.configure(Traffic(tls=ClientTls(TlsMode.SIMPLE, subject_alt_names=names)), 0.0)
        assert spot_of(target, cluster).key.tls.subject_alt_names == found
    assert spot_of(target, cluster).name == "a.example"


@pytest.mark.parametrize("mode", [TlsMode.DISABLE, TlsMode.ISTIO_MUTUAL])
def test_what_originates_no_tls_and_who_is_refused_for_it(mode):
    cluster = Cluster(Random(1), Circuit())
    cluster.configure(Traffic(tls=ClientTls(mode)), 0.0)
    spot = spot_of(Target(None, None, endpoint(1), None), cluster)
    assert spot.key.tls is None
    assert spot.bare == (mode is TlsMode.ISTIO_MUTUAL)
