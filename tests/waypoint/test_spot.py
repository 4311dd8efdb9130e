"""How a request is sent, by the limits of its cluster."""

from random import Random

import pytest

from tests.l7.hosts import endpoint
from ztunnel.l7.circuit import Circuit
from ztunnel.l7.cluster import Cluster
from ztunnel.model.traffic import Pool, Traffic, Upgrade
from ztunnel.waypoint.find import Target
from ztunnel.waypoint.spot import NO_LIMITS, Terms, spot_of

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
    assert Terms(endpoint(1).ip, port, client).version_of(pool, switches) == version


def test_a_cluster_has_its_limits_and_others_none():
    target = Target(None, None, endpoint(1), None)
    assert spot_of(target, None).limits is NO_LIMITS
    one, other = Cluster(Random(1), Circuit()), Cluster(Random(1), Circuit())
    assert spot_of(target, one).limits is NO_LIMITS
    one.configure(Traffic(pool=Pool(connections=3)), 0.0)
    assert spot_of(target, one).limits.connections == 3
    assert spot_of(target, one).key != spot_of(target, other).key
