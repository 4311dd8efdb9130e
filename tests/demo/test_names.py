from pathlib import Path

import pytest

from ztunnel.demo.names import Names
from ztunnel.errors import ConfigError

CGROUP2 = Path("/cgroup2")


def test_two_laboratories_share_no_name() -> None:
    one, other = Names("lab", CGROUP2), Names("lab2", CGROUP2)
    assert not other.fabric.startswith(one.prefix)
    assert one.directory != other.directory
    assert one.cgroup != other.cgroup


def test_a_node_is_never_taken_for_a_pod_nor_one_pod_for_another() -> None:
    names = Names("lab", CGROUP2)
    assert len({names.node("a.b"), names.pod("a", "b"), names.pod("a-b", "c"), names.pod("a", "b-c")}) == 4


def test_the_pattern_for_node_proxies_finds_a_pods_namespace() -> None:
    names = Names("lab", CGROUP2)
    found = names.pod_netns_pattern.format(namespace="shop", name="orders-1")
    assert found == str(names.netns(names.pod("shop", "orders-1"))) == "/run/netns/zt-lab-pod-shop.orders-1"


def test_processes_of_pods_stand_below_kubepods_of_their_node() -> None:
    names = Names("lab", CGROUP2)
    assert names.pod_cgroup("n1", "7") == CGROUP2 / "ztunnel-lab/n1/kubepods/pod7"
    assert names.proxy_cgroup("n1") == CGROUP2 / "ztunnel-lab/n1/ztunnel"


@pytest.mark.parametrize("name", ["", "a-b", "A", "1a", "a" * 32, "a/b", ".."])
def test_a_name_that_could_be_confused_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        Names(name, CGROUP2)
