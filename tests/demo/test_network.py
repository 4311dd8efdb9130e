from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address, ip_network
from pathlib import Path

from ztunnel.demo import network
from ztunnel.demo.cluster import Node, Pod
from ztunnel.demo.names import Names
from ztunnel.kernel.topology import Assign, Bridge, Route, Unroute, Up, Veth

NAMES = Names("lab", Path("/cgroup2"))
ONE, TWO = Node("n1", 1), Node("n2", 2)
ADDRESSES = (ip_address("10.244.1.7"), ip_address("fd00:244:1::7"))
POD = Pod("shop", "a", "uid", ONE, ADDRESSES, (), {}, 8080, {}, {})


def test_a_pod_reaches_everything_by_way_of_its_gateway() -> None:
    changes = network.pod(POD)
    assert Assign("eth0", IPv4Interface("10.244.1.7/32")) in changes
    default = Route(ip_network("0.0.0.0/0"), via=IPv4Address("10.244.1.1"), source=ADDRESSES[0])
    assert default in changes
    assert Assign("eth0", IPv6Interface("fd00:244:1::7/128")) in changes
    assert Route(ip_network("::/0"), via=ip_address("fd00:244:1::1"), source=ADDRESSES[1]) in changes


def test_the_cable_of_a_pod_and_its_hardware_address_are_named_after_its_address() -> None:
    assert network.pod_port(POD) == "veth7"
    there = NAMES.netns("zt-lab-pod-shop.a")
    assert network.pod_cable(NAMES, POD) == [
        Veth("veth7", "eth0", there, "02:00:0a:f4:01:07"),
        Up("veth7", "pods0"),
    ]


def test_a_node_routes_to_the_pods_of_the_others_in_both_families() -> None:
    pods = ip_network("10.244.2.0/24"), ip_network("fd00:244:2::/64")
    gateways = ip_address("10.10.0.12"), ip_address("fd00:10::12")
    assert network.ways(ONE, [ONE, TWO]) == [Route(pods[0], via=gateways[0]), Route(pods[1], via=gateways[1])]
    assert network.no_ways(ONE, [TWO]) == [Unroute(pods[0], gateways[0]), Unroute(pods[1], gateways[1])]


def test_nodes_hang_on_one_bridge() -> None:
    assert Bridge("fabric0") in network.fabric()
    there = NAMES.netns("zt-lab-node-n2")
    assert network.fabric_port(NAMES, TWO) == [Veth("node2", "eth0", there), Up("node2", "fabric0")]
    assert Assign("eth0", IPv4Interface("10.10.0.12/24")) in network.node(TWO)
