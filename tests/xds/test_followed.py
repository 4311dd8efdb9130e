"""A node proxy that asks on demand is sent the pods of its node, and the endpoints of what it asks for."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ztunnel.model.service import Port, Service
from ztunnel.model.workload import Workload
from ztunnel.xds.followed import is_followed, is_service, node_of
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, Node
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.resource import ADDRESS
from ztunnel.xds.snapshot import Snapshot, take
from ztunnel.xds.subscriber import describe_node

VIPS = ip_address("10.1.0.1"), ip_address("fd00::1")
WEB = Service("web", "shop", "web.shop.svc", VIPS)
CART = Service("cart", "shop", "cart.shop.svc")


def pod(name, *services, node="n2"):
    ports = {one.key: (Port(80, 80),) for one in services}
    return Workload(f"c//Pod/shop/{name}", name, "shop", node=node, services=ports)


HERE, ONE, TWO, ALONE = pod("here", node="n1"), pod("one", WEB), pod("two", WEB, CART), pod("alone")
WORLD = take([WEB, CART, HERE, ONE, TWO, ALONE], "net", Snapshot())


@pytest.mark.parametrize(
    ("node", "names", "followed"),
    [
        ("", set(), set()),
        ("n1", set(), {HERE.uid}),
        ("n9", {"shop/web.shop.svc"}, {ONE.uid, TWO.uid}),
        ("n9", {"net/fd00::1"}, {ONE.uid, TWO.uid}),
        ("n9", {"net/10.1.0.1", "x"}, {ONE.uid, TWO.uid}),
        ("n1", {"shop/cart.shop.svc"}, {HERE.uid, TWO.uid}),
        ("n9", {ALONE.uid, "shop/none"}, set()),
    ],
)
def test_what_is_followed(node, names, followed):
    assert {name for name in WORLD.origins[ADDRESS] if is_followed(WORLD, name, node, names)} == followed
    assert is_service(WORLD, "shop/web.shop.svc")
    assert not is_service(WORLD, ONE.uid)
    assert node_of(Node()) == ""


class Proxy:
    """A node proxy of Istio with XDS_ON_DEMAND, on n1."""

    def __init__(self, world):
        self.publisher = Publisher(world)
        everything = {"resource_names_subscribe": ["*"], "resource_names_unsubscribe": ["*"]}
        self.first = self.ask(node=describe_node("n", {"NODE_NAME": "n1"}), **everything)

    def ask(self, **fields):
        return self.taken(self.publisher.receive(DeltaDiscoveryRequest(type_url=ADDRESS, **fields)))

    def publish(self, *resources):
        return self.taken(self.publisher.publish(take(resources, "net", self.publisher._snapshot)))

    def taken(self, responses):
        """The names that came, and that went; each response is taken."""
        came, gone = set(), set()
        for one in responses:
            came |= {each.name for each in one.resources}
            gone |= set(one.removed_resources)
            ack = DeltaDiscoveryRequest(type_url=ADDRESS, response_nonce=one.nonce)
            assert self.publisher.receive(ack) == []
        return came, gone


@pytest.mark.parametrize("name", ["shop/web.shop.svc", "net/10.1.0.1", "net/fd00::1"])
def test_a_proxy_has_its_pods_and_what_it_asks_for_with_its_endpoints_as_they_come_and_go(name):
    proxy = Proxy(WORLD)
    assert proxy.first == ({HERE.uid}, set())
    assert proxy.ask(resource_names_subscribe=[name]) == ({str(WEB.key), ONE.uid, TWO.uid}, set())
    moved, more = replace(TWO, services={CART.key: (Port(80, 80),)}), pod("more", WEB)
    assert proxy.publish(WEB, CART, HERE, ONE, moved, more) == ({more.uid}, {TWO.uid})
    second = pod("second", node="n1")
    assert proxy.publish(WEB, CART, second, ONE, moved, more) == ({second.uid}, {HERE.uid})
    came, gone = proxy.ask(resource_names_unsubscribe=[name])
    assert came == set()
    assert gone >= {ONE.uid, more.uid}
    assert proxy.publisher.settled


def test_whoever_comes_back_has_what_is_not_followed_any_more_taken_away():
    versions = {name: one.version for name, one in WORLD.resources[ADDRESS].items()}
    publisher = Publisher(WORLD)
    request = DeltaDiscoveryRequest(
        type_url=ADDRESS,
        node=describe_node("n", {"NODE_NAME": "n1"}),
        resource_names_subscribe=["*", "net/10.1.0.1"],
        resource_names_unsubscribe=["*"],
        initial_resource_versions=versions,
    )
    (response,) = publisher.receive(request)
    assert list(response.resources) == []
    assert {*response.removed_resources} == {ALONE.uid, str(CART.key)}
