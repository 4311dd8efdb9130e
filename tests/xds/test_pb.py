"""The generated messages have the names and field numbers of Istio's and Envoy's."""

import pytest

from ztunnel.xds.pb import authorization_pb2, citadel_pb2, discovery_pb2, workload_pb2, zds_pb2


@pytest.mark.parametrize(
    ("message", "name", "fields"),
    [
        (
            workload_pb2.Workload,
            "istio.workload.Workload",
            {"uid": 20, "addresses": 3, "services": 22, "network_mode": 25, "extensions": 26, "capacity": 27},
        ),
        (
            workload_pb2.Service,
            "istio.workload.Service",
            {"load_balancing": 8, "ip_families": 9, "canonical": 11},
        ),
        (
            workload_pb2.NetworkAddress,
            "istio.workload.NetworkAddress",
            {"network": 1, "address": 2, "length": 3},
        ),
        (authorization_pb2.Clause, "istio.security.Clause", {"matches": 2}),
        (
            authorization_pb2.Match,
            "istio.security.Match",
            {"not_principals": 4, "destination_ports": 9, "service_accounts": 11, "not_service_accounts": 12},
        ),
        (
            citadel_pb2.IstioCertificateRequest,
            "istio.v1.auth.IstioCertificateRequest",
            {"csr": 1, "validity_duration": 3, "metadata": 4},
        ),
        (zds_pb2.DelWorkload, "istio.workload.zds.DelWorkload", {"uid": 2}),
        (
            zds_pb2.WorkloadRequest,
            "istio.workload.zds.WorkloadRequest",
            {"add": 1, "del": 2, "snapshot_sent": 3, "keep": 5},
        ),
        (
            discovery_pb2.DeltaDiscoveryRequest,
            "envoy.service.discovery.v3.DeltaDiscoveryRequest",
            {"type_url": 2, "initial_resource_versions": 5, "response_nonce": 6, "error_detail": 7},
        ),
        (
            discovery_pb2.DeltaDiscoveryResponse,
            "envoy.service.discovery.v3.DeltaDiscoveryResponse",
            {"resources": 2, "type_url": 4, "nonce": 5, "removed_resources": 6},
        ),
        (
            discovery_pb2.Resource,
            "envoy.service.discovery.v3.Resource",
            {"version": 1, "resource": 2, "name": 3, "aliases": 4, "ttl": 6},
        ),
    ],
)
def test_a_message_is_the_one_on_the_wire(message, name, fields):
    assert message.DESCRIPTOR.full_name == name
    numbers = {field.name: field.number for field in message.DESCRIPTOR.fields}
    assert fields.items() <= numbers.items()


def test_the_certificate_service_and_discovery_have_the_paths_that_istiod_serves():
    (certificates,) = citadel_pb2.DESCRIPTOR.services_by_name.values()
    (discovery,) = discovery_pb2.DESCRIPTOR.services_by_name.values()
    assert certificates.full_name == "istio.v1.auth.IstioCertificateService"
    assert discovery.full_name == "envoy.service.discovery.v3.AggregatedDiscoveryService"
