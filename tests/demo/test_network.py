from ipaddress import ip_address
from pathlib import Path

from ztunnel.demo import network
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names

NAMES = Names("lab", Path("/cgroup2"))
ONE, TWO = Node("n1", 1), Node("n2", 2)
ADDRESSES = (ip_address("10.244.1.7"), ip_address("fd00:244:1::7"))
POD = Pod("shop", "a", "uid", ONE, ADDRESSES, (), {}, 8080, {}, {})


def test_a_pod_reaches_everything_by_way_of_its_gateway() -> None:
    lines = network.pod_lines(POD)
    assert "addr add 10.244.1.7/32 dev eth0" in lines
    assert "route add default via 10.244.1.1 src 10.244.1.7" in lines
    assert "addr add fd00:244:1::7/128 dev eth0 nodad" in lines
    assert "route add default via fd00:244:1::1 src fd00:244:1::7" in lines


def test_the_cable_of_a_pod_and_its_hardware_address_are_named_after_its_address() -> None:
    assert network.pod_port(POD) == "veth7"
    assert (
        network.pod_port_lines(NAMES, POD)[0]
        == "link add veth7 type veth peer name eth0 address 02:00:0a:f4:01:07 netns zt-lab-pod-shop.a"
    )


def test_a_node_routes_to_the_pods_of_the_others_in_both_families() -> None:
    assert network.route_lines(ONE, [ONE, TWO]) == [
        "route add 10.244.2.0/24 via 10.10.0.12",
        "route add fd00:244:2::/64 via fd00:10::12",
    ]
    assert network.route_lines(ONE, [TWO], "del")[0].startswith("route del")


def test_nodes_hang_on_one_bridge() -> None:
    assert any("link add fabric0" in line for line in network.fabric_lines())
    assert network.fabric_port_lines(NAMES, TWO) == [
        "link add node2 type veth peer name eth0 netns zt-lab-node-n2",
        "link set node2 master fabric0 up",
    ]
    assert "addr add 10.10.0.12/24 dev eth0" in network.node_lines(TWO)
