"""What slices join is known by pod and by endpoint, and follows the slices."""

from dataclasses import replace
from ipaddress import ip_address

from ztunnel.control.index import Index
from ztunnel.control.services.attachments import Attachments
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import key_of
from ztunnel.model.service import IpFamilies, Port
from ztunnel.state.endpoints import EndpointSlice, SliceEndpoint
from ztunnel.state.kube import Pod, Service, ServicePort
from ztunnel.state.meta import Meta

WEB = ("shop", "web")


def service(name="web"):
    ports = (ServicePort("http", 80, 8080),)
    meta = Meta(name, "shop", {}, {})
    return Service(meta, "", {}, (), ports, False, "", False, IpFamilies.AUTOMATIC)


def pod(address):
    meta = Meta("p", "shop", {}, {})
    return Pod(meta, "n1", "default", False, {}, (ip_address(address),), "Running", True)


def slice_of(*addresses, name="web"):
    ones = tuple(SliceEndpoint((ip_address(each),)) for each in addresses)
    return EndpointSlice(Meta(f"{name}-1", "shop", {}, {}), name, {"http": 8080}, ones)


class Objects:
    """An index, and its attachments."""

    def __init__(self, *objects):
        self.index = Index()
        self.attachments = Attachments(self.index, MeshSettings())
        for one in objects:
            self.put(one)

    def put(self, new, old=None):
        self.index.put(key_of(new), old, new)


def test_a_pod_that_a_slice_names_is_joined_until_the_slice_names_it_no_more():
    for address in ("10.0.0.1", "fd00::1"):
        first = slice_of(address)
        them = Objects(service(), pod(address), first)
        assert them.attachments.attach(WEB) == ({("shop", "p")}, [])
        assert them.attachments.joined("shop") == {"p": {WEB: (service(), (Port(80, 8080),))}}
        assert them.attachments.attach(WEB) == (set(), [])
        them.put(slice_of(), first)
        assert them.attachments.attach(WEB) == ({("shop", "p")}, [])
        assert them.attachments.joined("shop") == {}


def test_an_endpoint_whose_slice_is_another_services_now_is_that_ones_in_whatever_order_they_are_read():
    for order in ((WEB, ("shop", "zeb")), (("shop", "zeb"), WEB)):
        before = slice_of("192.0.2.1", name="zeb")
        them = Objects(service(), service("zeb"), before)
        _, [(uid, workload)] = them.attachments.attach(("shop", "zeb"))
        assert workload.name == "zeb-1"
        them.put(replace(before, service="web"), before)
        said = [them.attachments.attach(name)[1] for name in order]
        [(last, workload)] = said[-1]
        assert last == uid
        assert [str(name) for name in workload.services] == ["shop/web.shop.svc.cluster.local"]


def test_a_service_that_is_an_alias_has_none():
    alias = Service(
        Meta("web", "shop", {}, {}), "ExternalName", {}, (), (), False, "", False, IpFamilies.DUAL
    )
    them = Objects(alias, slice_of("192.0.2.1"))
    assert them.attachments.attach(WEB) == (set(), [])
