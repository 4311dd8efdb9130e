from ipaddress import ip_address

import pytest

from ztunnel.demo import allot
from ztunnel.errors import ConfigError


def test_addresses_are_those_of_a_kubernetes_cluster() -> None:
    assert list(map(str, allot.node_addresses(1))) == ["10.10.0.11", "fd00:10::11"]
    assert list(map(str, allot.pod_ranges(2))) == ["10.244.2.0/24", "fd00:244:2::/64"]
    assert list(map(str, allot.pod_addresses(2, 10))) == ["10.244.2.10", "fd00:244:2::a"]
    assert list(map(str, allot.service_addresses(10))) == ["10.96.0.10", "fd00:96::a"]


def test_a_node_gets_the_lowest_number_that_is_free() -> None:
    assert allot.free_node([1, 2, 4]) == 3


def test_a_pods_address_is_not_given_out_again_at_once() -> None:
    taken = [ip_address("10.244.1.2"), ip_address("10.244.1.4"), ip_address("10.244.2.9")]
    assert str(allot.free_pod(1, taken)[0]) == "10.244.1.5"
    assert str(allot.free_pod(1, [*taken, ip_address("10.244.1.254")])[0]) == "10.244.1.3"


def test_a_service_gets_a_pair_of_which_neither_is_taken() -> None:
    taken = [ip_address("10.96.0.10"), ip_address("fd00:96::b"), ip_address("192.0.2.1")]
    assert list(map(str, allot.free_service(taken))) == ["10.96.0.12", "fd00:96::c"]


def test_no_address_left_is_said() -> None:
    with pytest.raises(ConfigError, match="at most 253 pods"):
        allot.free_pod(1, [allot.pod_addresses(1, index)[0] for index in range(2, 255)])
    with pytest.raises(ConfigError, match="at most 99 nodes"):
        allot.free_node(range(1, 100))


def test_what_is_no_address_is_left_out() -> None:
    assert allot.parse_addresses(["None", "", "10.96.0.1"]) == (ip_address("10.96.0.1"),)
