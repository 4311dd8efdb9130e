"""A journey's labels and text are those of its fields, made once."""

from __future__ import annotations

from dataclasses import replace

from tests.builders import identity, service, workload
from ztunnel.model.address import parse_endpoint
from ztunnel.model.connection import Security
from ztunnel.telemetry.journey import Journey, direct_journey
from ztunnel.telemetry.labels import Reporter, tcp_labels

CLIENT, SERVER, SHOP = workload("client"), workload("server"), service("shop")
PROOFS = CLIENT.identity, SERVER.identity
JOURNEY = Journey(
    Reporter.SOURCE, parse_endpoint("10.0.0.2:15008"), CLIENT, SERVER, SHOP, *PROOFS, Security.MUTUAL_TLS
)


def test_labels_are_those_of_the_connection_and_made_once() -> None:
    assert JOURNEY.labels == tcp_labels(Reporter.SOURCE, CLIENT, SERVER, SHOP, *PROOFS, Security.MUTUAL_TLS)
    assert JOURNEY.labels is JOURNEY.labels


def test_another_journey_has_labels_and_text_of_its_own() -> None:
    assert JOURNEY.text
    changed = replace(JOURNEY, destination_workload=replace(SERVER, canonical_revision="v2", name="other"))
    assert changed.labels.destination_version == "v2"
    assert 'dst.workload="other"' in changed.text


def test_what_is_not_known_is_left_out_of_the_text() -> None:
    unknown = Journey(Reporter.DESTINATION, parse_endpoint("10.0.0.2:80"))
    assert unknown.text == ' dst.addr=10.0.0.2:80 direction="inbound"'


def test_without_tls_no_identity_is_logged_though_labels_name_it() -> None:
    direct = replace(JOURNEY, security=Security.UNKNOWN)
    assert "identity" not in direct.text
    assert direct.labels.source_principal == str(identity("default/client"))


def test_a_pod_without_a_name_goes_by_its_canonical_service() -> None:
    nameless = replace(CLIENT, name="", canonical_name="canon")
    assert replace(JOURNEY, source_workload=nameless).text.startswith(' src.workload="canon" ')


def test_on_one_node_the_kernel_proves_who_is_known_and_there_is_no_tls() -> None:
    endpoint = parse_endpoint("10.0.0.2:80")
    direct = direct_journey(Reporter.SOURCE, endpoint, CLIENT, SERVER, SHOP)
    assert direct == Journey(Reporter.SOURCE, endpoint, CLIENT, SERVER, SHOP, *PROOFS)
    gone = direct_journey(Reporter.DESTINATION, endpoint, None, SERVER, None)
    assert (gone.source_identity, gone.destination_identity) == (None, SERVER.identity)
