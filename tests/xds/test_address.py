"""Workloads and services survive the way there and back; foreign messages are taken with care."""

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.address import canonical
from ztunnel.model.service import (
    AppProtocol,
    IpFamilies,
    LoadBalancing,
    Port,
    Scope,
    Service,
    ServiceName,
    Waypoint,
)
from ztunnel.model.workload import LeftTo, Locality, SameNode, TunnelProtocol, Workload, WorkloadKind
from ztunnel.xds.address import (
    parse_service,
    parse_workload,
    render_service,
    render_workload,
)
from ztunnel.xds.extension import PROTOCOLS, SAME_NODE
from ztunnel.xds.pb import workload_pb2 as pb

text = st.text("abz09.-", max_size=12)
named = st.text("abz09", min_size=1, max_size=12)
ips = st.ip_addresses().map(canonical)
ports = st.lists(st.builds(Port, st.integers(1, 65535), st.integers(0, 65535)), max_size=3).map(tuple)
names = st.builds(ServiceName, text, named)
waypoints = st.one_of(
    st.none(),
    st.builds(Waypoint, names, st.none(), st.integers(1, 65535)),
    st.builds(Waypoint, st.none(), ips, st.integers(1, 65535)),
)
workloads = st.builds(
    Workload,
    uid=named,
    name=text,
    namespace=text,
    service_account=named,
    trust_domain=named,
    addresses=st.lists(ips, max_size=3).map(tuple),
    node=text,
    protocol=st.sampled_from(TunnelProtocol),
    same_node=st.sampled_from(SameNode),
    forwards=st.booleans(),
    network=text,
    cluster=named,
    kind=st.sampled_from(WorkloadKind),
    workload_name=text,
    canonical_name=text,
    canonical_revision=text,
    services=st.dictionaries(names, ports, max_size=3),
    authorization_policies=st.lists(text, max_size=3).map(tuple),
    waypoint=waypoints,
    healthy=st.booleans(),
    draining=st.booleans(),
    host_network=st.booleans(),
    native_tunnel=st.booleans(),
    capacity=st.integers(0, 2**32 - 1),
    hostname=text,
    locality=st.builds(Locality, text, text, text),
    pod_uid=text,
    left_to=st.sampled_from(LeftTo),
    gateway=st.booleans(),
)
services = st.builds(
    Service,
    name=text,
    namespace=text,
    hostname=named,
    addresses=st.lists(ips, max_size=3).map(tuple),
    ports=ports,
    subject_alt_names=st.lists(text, max_size=2).map(tuple),
    waypoint=waypoints,
    load_balancing=st.sampled_from(LoadBalancing),
    routing_preference=st.lists(st.sampled_from(Scope), max_size=4).map(tuple),
    include_unhealthy=st.booleans(),
    private=st.booleans(),
    ingress_uses_waypoint=st.booleans(),
    weighted_waypoints=st.lists(st.tuples(waypoints.filter(bool), st.integers(0, 100)), max_size=2).map(
        tuple
    ),
    ip_families=st.sampled_from(IpFamilies),
    external=st.lists(ips, max_size=2).map(tuple),
    affinity_seconds=st.integers(0, 86400),
    protocols=st.lists(st.tuples(st.integers(1, 65535), st.sampled_from(AppProtocol)), max_size=3).map(tuple),
    guards=st.lists(st.from_regex(r"[a-z]{1,5}/[a-z.]{1,5}", fullmatch=True), max_size=3).map(tuple),
)


@given(workloads)
def test_a_workload_comes_back_as_it_was(workload):
    sent = render_workload(workload).SerializeToString()
    assert parse_workload(pb.Workload.FromString(sent)) == workload


@given(services, text)
def test_a_service_comes_back_as_it_was(service, network):
    sent = render_service(service, network).SerializeToString()
    assert parse_service(pb.Service.FromString(sent), network) == service


def test_numbers_on_the_wire_are_those_of_istio():
    sent = render_workload(
        Workload("u", "n", "ns", protocol=TunnelProtocol.HBONE, kind=WorkloadKind.JOB, host_network=True)
    ).SerializeToString()
    assert b"\x28\x01" in sent  # 5: HBONE
    assert b"\x60\x03" in sent  # 12: JOB
    assert b"\xa2\x01\x01u" in sent  # 20: uid
    assert b"\xc8\x01\x01" in sent  # 25: HOST_NETWORK


def extended(type_url, value):
    sent = pb.Workload(uid="u")
    config = sent.extensions.add(name=SAME_NODE).config
    config.type_url, config.value = type_url, value
    return sent


STRING = "type.googleapis.com/google.protobuf.StringValue"


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (pb.Workload(), "needs a uid"),
        (pb.Workload(uid="u", addresses=[b"\x0a\x00\x00"]), "4 or 16 bytes"),
        (pb.Workload(uid="u", tunnel_protocol=pb.LEGACY_ISTIO_MTLS), "unknown TunnelProtocol 2"),
        (pb.Workload(uid="u", workload_type=9), "unknown workload type 9"),
        (pb.Workload(uid="u", services={"no-slash": pb.PortList()}), "namespace/hostname"),
        (pb.Workload(uid="u", services={"a/b": pb.PortList(ports=[pb.Port(service_port=70000)])}), "65535"),
        (pb.Workload(uid="u", waypoint=pb.GatewayAddress()), "hostname or an address"),
        (pb.Workload(uid="u", waypoint=pb.GatewayAddress(hbone_mtls_port=70000)), "65535"),
        (extended("type.googleapis.com/other", b""), "StringValue"),
        (extended(STRING, b"\x0a\x05never"), "none of auto, direct, mtls"),
        (extended(STRING, b"\xff"), "none of auto, direct, mtls"),
    ],
)
def test_a_workload_that_cannot_be_used_is_refused(untrusted, reason):
    with pytest.raises(PeerError, match=reason):
        parse_workload(untrusted)


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (pb.Service(name="web"), "needs a hostname"),
        (pb.Service(hostname="h", addresses=[pb.NetworkAddress(address=b"1")]), "4 or 16 bytes"),
        (pb.Service(hostname="h", ip_families=7), "unknown IpFamilies 7"),
        (pb.Service(hostname="h", load_balancing=pb.LoadBalancing(mode=9)), "unknown LoadBalancing 9"),
        (
            pb.Service(hostname="h", load_balancing=pb.LoadBalancing(routing_preference=[9])),
            "unknown Scope 9",
        ),
    ],
)
def test_a_service_that_cannot_be_used_is_refused(untrusted, reason):
    with pytest.raises(PeerError, match=reason):
        parse_service(untrusted, "")


def test_a_waypoint_without_a_port_listens_where_hbone_does():
    address = pb.NetworkAddress(address=bytes([10, 0, 0, 9]))
    assert parse_workload(
        pb.Workload(uid="u", waypoint=pb.GatewayAddress(address=address))
    ).waypoint == Waypoint(
        None,
        canonical(parse_workload(pb.Workload(uid="u", addresses=[bytes([10, 0, 0, 9])])).addresses[0]),
        15008,
    )


def test_only_single_addresses_of_our_network_are_virtual_addresses():
    own, other = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    sent = pb.Service(
        hostname="h",
        addresses=[
            pb.NetworkAddress(network="here", address=own),
            pb.NetworkAddress(network="there", address=other),
            pb.NetworkAddress(network="here", address=other, length=24),
        ],
    )
    assert [ip.packed for ip in parse_service(sent, "here").addresses] == [own]


@pytest.mark.parametrize("said", ["80", "80=", "x=http", "80=gopher"])
def test_what_is_spoken_at_ports_is_said_in_words_that_are_known(said):
    sent = pb.Service(hostname="h")
    sent.extensions.add(name=PROTOCOLS).config.Pack(StringValue(value=said))
    with pytest.raises(PeerError, match="protocols"):
        parse_service(sent, "")
