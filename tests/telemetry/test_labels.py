"""The label set of Istio's TCP metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import identity, service, workload
from ztunnel.errors import Flag
from ztunnel.model.connection import Direction, Security
from ztunnel.model.workload import WorkloadKind
from ztunnel.telemetry.labels import UNKNOWN, Reporter, TcpLabels, tcp_labels

CLIENT = workload("client-7d9").owned_by(WorkloadKind.DEPLOYMENT, "client").located("r1", "z1")
SERVER = replace(
    workload("server-5f4", "shop").owned_by(WorkloadKind.DEPLOYMENT, "server"), canonical_revision="v2"
)
SHOP = service("server", "shop")

ISTIO_ORDER = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
]


def test_the_labels_are_istios_in_istios_order():
    assert list(TcpLabels._fields) == ISTIO_ORDER


def test_a_connection_of_two_workloads_has_every_label():
    labels = tcp_labels(
        Reporter.SOURCE,
        CLIENT,
        SERVER,
        SHOP,
        identity("default/client"),
        identity("shop/server"),
        Security.MUTUAL_TLS,
    )
    assert labels._asdict() == {
        "reporter": "source",
        "source_workload": "client",
        "source_canonical_service": "client",
        "source_canonical_revision": "latest",
        "source_workload_namespace": "default",
        "source_principal": "spiffe://cluster.local/ns/default/sa/client",
        "source_app": "client",
        "source_version": "latest",
        "source_cluster": "Kubernetes",
        "destination_service": "server.shop.svc.cluster.local",
        "destination_service_namespace": "shop",
        "destination_service_name": "server",
        "destination_workload": "server",
        "destination_canonical_service": "server",
        "destination_canonical_revision": "v2",
        "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/server",
        "destination_app": "server",
        "destination_version": "v2",
        "destination_cluster": "Kubernetes",
        "request_protocol": "tcp",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
        "source_region": "r1",
        "source_zone": "z1",
        "destination_region": UNKNOWN,
        "destination_zone": UNKNOWN,
    }


def test_what_is_not_known_is_unknown():
    labels = tcp_labels(Reporter.DESTINATION, None, None, None, None, None, Security.UNKNOWN, Flag.DENY)
    assert labels == TcpLabels("destination", response_flags="DENY")
    assert set(labels[1:20]) == {UNKNOWN}


def test_a_principal_needs_a_proof_and_a_proof_needs_no_workload():
    plain = tcp_labels(Reporter.SOURCE, CLIENT, SERVER, None, None, None, Security.UNKNOWN)
    assert plain.source_principal == plain.destination_principal == UNKNOWN
    stranger = tcp_labels(
        Reporter.DESTINATION, None, SERVER, None, identity("a/b"), None, Security.MUTUAL_TLS
    )
    assert stranger.source_principal == "spiffe://cluster.local/ns/a/sa/b"
    assert stranger.source_workload == UNKNOWN


def test_a_workload_without_names_is_unknown_rather_than_empty():
    bare = replace(CLIENT, workload_name="", canonical_name="", canonical_revision="", cluster="")
    labels = tcp_labels(Reporter.SOURCE, bare, None, replace(SHOP, name=""), None, None, Security.UNKNOWN)
    assert "" not in labels
    assert labels.destination_service_name == "server"


def test_a_flag_changes_nothing_else():
    labels = TcpLabels("source", source_app="a")
    assert labels.flagged(Flag.CONNECT) == TcpLabels("source", source_app="a", response_flags="CONNECT")


@pytest.mark.parametrize(
    ("reporter", "direction"),
    [(Reporter.SOURCE, Direction.OUTBOUND), (Reporter.DESTINATION, Direction.INBOUND)],
)
def test_the_source_reports_outbound_and_the_destination_inbound(reporter, direction):
    assert reporter.direction is direction
