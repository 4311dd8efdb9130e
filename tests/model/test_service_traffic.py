"""Which policies hold for whom."""

import pytest

from ztunnel.model.service import ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import NO_TRAFFIC, Outlier, PortTraffic, Traffic


def says(number):
    return Traffic(outlier=Outlier(number))


def at(number, *ports):
    return PortTraffic(says(number), tuple((port, says(port)) for port in ports))


NAME = ServiceName("shop", "web.shop.svc.cluster.local")
ALL = ServiceTraffic(
    NAME,
    (
        ClientTraffic("other", at(2)),
        ClientTraffic("", at(1, 90), (SubsetTraffic("v1", at(3, 91)),)),
    ),
)
CASES = [
    ("shop", 80, "", 1),
    ("shop", 90, "", 90),
    ("shop", 80, "v1", 3),
    ("shop", 91, "v1", 91),
    ("shop", 90, "v1", 3),
    ("shop", 80, "v9", 1),
    ("other", 80, "", 2),
    ("other", 90, "v1", 2),
]


@pytest.mark.parametrize(("namespace", "port", "subset", "number"), CASES)
def test_a_callers_own_before_those_of_all(namespace, port, subset, number):
    assert ALL.at(namespace, port, subset) == says(number)


def test_callers_for_whom_nothing_is_said_have_none():
    assert ServiceTraffic(NAME, (ClientTraffic("other", at(2)),)).at("shop", 80) is NO_TRAFFIC
    assert ALL.key == "shop/web.shop.svc.cluster.local"
