"""Objects are found by what refers to them, and nothing is left of one that is gone."""

from ipaddress import ip_address

from ztunnel.control.index import Index
from ztunnel.control.source.document import key_of
from ztunnel.model.service import IpFamilies
from ztunnel.state.endpoints import Endpoints, EndpointSlice, SliceEndpoint
from ztunnel.state.kube import Namespace, Node, Pod, Service
from ztunnel.state.meta import Meta


def meta(name, namespace="shop", created="", deleting=False):
    return Meta(name, namespace, {}, {}, created, deleting)


def pod(name, address, node="n1", host_network=False, phase="", **more):
    ips = (ip_address(address),)
    return Pod(meta(name, **more), node, "default", host_network, {}, ips, phase, True)


def slice_of(service, address="10.0.0.1", name="", pod_name=""):
    endpoint = SliceEndpoint((ip_address(address),), pod=pod_name)
    return EndpointSlice(meta(name or f"{service}-1"), service, {}, (endpoint,))


def service(name, selector=None):
    return Service(meta(name), "", selector or {}, (), (), False, "", False, IpFamilies.AUTOMATIC)


def put(index, *objects):
    for one in objects:
        index.put(key_of(one), None, one)


def take(index, *objects):
    for one in objects:
        index.put(key_of(one), one, None)


def test_nothing_is_left_of_what_is_gone():
    objects = [
        Namespace(meta("shop", "")), Node(meta("n1", "")), pod("a", "10.0.0.1"), service("db"),
        slice_of("db", pod_name="a"), Endpoints(meta("db"), (slice_of("db", name="db"),)),
    ]  # fmt: skip
    index, empty = Index(), Index()
    put(index, *objects)
    assert vars(index) != vars(empty)
    take(index, *objects)
    assert vars(index) == vars(empty)


def test_a_pod_that_moves_is_where_it_is():
    index, before, after = Index(), pod("a", "10.0.0.1"), pod("a", "10.0.0.2", "n2")
    put(index, before)
    index.put(key_of(after), before, after)
    assert (list(index.on_node("n1")), list(index.on_node("n2"))) == ([], [("shop", "a")])
    assert (index.owner(ip_address("10.0.0.1")), index.owner(ip_address("10.0.0.2"))) == (None, after)


def test_an_address_is_of_the_pod_that_stays_and_is_newest():
    index, ip = Index(), ip_address("10.0.0.1")
    old, new = pod("z", "10.0.0.1", created="2026-01-01"), pod("a", "10.0.0.1", created="2026-01-02")
    going = pod("m", "10.0.0.1", created="2026-01-03", deleting=True)
    others = [pod("h", "10.0.0.1", host_network=True), pod("e", "10.0.0.1", phase="Failed")]
    put(index, going, *others)
    assert index.owner(ip) is going
    put(index, old, new)
    assert index.owner(ip) is new
    take(index, new)
    assert index.owner(ip) is old


def test_a_pod_knows_the_services_whose_slices_name_it_or_its_address():
    index = Index()
    put(index, slice_of("db"), slice_of("web", "10.0.0.9", pod_name="a"), slice_of("other", "10.0.0.8"))
    assert set(index.named_by(pod("a", "10.0.0.1"))) == {("shop", "db"), ("shop", "web")}


def test_endpoints_become_slices_where_nothing_is_selected():
    index = Index()
    put(index, Endpoints(meta("db"), (slice_of("db", name="db"),)), slice_of("db", name="x"))
    assert sorted(one.meta.name for one in index.slices(service("db"))) == ["db", "x"]
    assert [one.meta.name for one in index.slices(service("db", {"a": "b"}))] == ["x"]
