"""Two that have one address are told, whoever came first, and no longer when one has given it up."""

from ipaddress import ip_address

from ztunnel.control.services.claims import Claims
from ztunnel.model.service import Service
from ztunnel.model.workload import TunnelProtocol, Workload

IP, OTHER = ip_address("10.0.0.1"), ip_address("fd00::1")


def pod(name, *addresses, **more):
    return Workload(name, name, "ns", addresses=addresses, **{"protocol": TunnelProtocol.HBONE} | more)


def test_an_address_that_two_have_is_told_once_for_each_other():
    claims = Claims()
    for name in "cab":
        claims.put(name, None, pod(name, IP, OTHER) if name == "a" else pod(name, IP))
    assert claims.texts() == [f"{IP} is claimed by a and by b", f"{IP} is claimed by a and by c"]
    claims.put("b", pod("b", IP), None)
    claims.put("c", pod("c", IP), pod("c", OTHER))
    assert claims.texts() == [f"{OTHER} is claimed by a and by c"]
    claims.put("a", pod("a", IP, OTHER), None)
    assert claims.texts() == []


def test_pods_outside_the_mesh_and_on_hosts_claim_nothing_and_services_do():
    claims = Claims()
    claims.put("a", None, pod("a", IP, protocol=TunnelProtocol.NONE))
    claims.put("b", None, pod("b", IP, host_network=True))
    claims.put("s", None, Service("s", "ns", "s.ns.svc", (IP,)))
    assert claims.texts() == []
    claims.put("c", None, pod("c", IP))
    assert claims.texts() == [f"{IP} is claimed by c and by s"]
