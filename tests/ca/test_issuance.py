"""What became of requests is counted under istiod's names, and refusals are logged, not all of a flood."""

from __future__ import annotations

import pytest

from tests.ca.test_authority_report import Log
from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.ca.issuance import Issuance
from ztunnel.model.identity import SpiffeId
from ztunnel.telemetry.figures import Figures

WEB = SpiffeId("cluster.local", "shop", "web")
CALLER = Caller(WEB, Proof.TOKEN, "web-0", "u", "n1")


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def issuance(log):
    return Issuance(log)


def counted(issuance):
    figures = Figures()
    issuance.register(figures)
    return {one.name: dict(one.samples) for one in figures.families()}


def refuse(issuance, reason, caller=CALLER, now=1.0):
    issuance.refused(Refused(reason, "why"), "10.0.0.1", caller, None if caller is None else WEB, now)


def test_requests_and_certificates_are_counted(issuance, log):
    issuance.asked()
    issuance.issued(CALLER, WEB)
    found = counted(issuance)
    assert found["citadel_server_csr_count"] == {(): 1}
    assert found["citadel_server_success_cert_issuance_count"] == {(): 1}
    assert found["citadel_server_authentication_failure_count"] == {(): 0}
    assert log.lines == []


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (Reason.BAD_TOKEN, "citadel_server_authentication_failure_count"),
        (Reason.OTHER_NODE, "citadel_server_authentication_failure_count"),
        (Reason.BAD_REQUEST, "citadel_server_csr_parsing_err_count"),
    ],
)
def test_a_refusal_is_counted_where_istiod_counts_it_and_by_its_reason(issuance, reason, name):
    refuse(issuance, reason)
    found = counted(issuance)
    assert found[name] == {(): 1}
    assert found["ztunnel_certificate_refusals_total"] == {(str(reason),): 1}


def test_what_cannot_be_signed_is_counted_apart(issuance):
    refuse(issuance, Reason.SIGNING_FAILED)
    assert counted(issuance)["citadel_server_csr_sign_err_count"] == {("CA_NOT_READY",): 1}


def test_a_refusal_is_logged_with_who_what_and_why(issuance, log):
    refuse(issuance, Reason.OTHER_NODE)
    refuse(issuance, Reason.BAD_TOKEN, caller=None)
    assert log.lines == [
        ("warn", "certificate refused", {
            "reason": "other_node", "source": "10.0.0.1", "caller": "shop/web (pod shop/web-0)",
            "proof": "token", "identity": str(WEB), "error": "why",
        }),
        ("warn", "certificate refused", {"reason": "bad_token", "source": "10.0.0.1", "error": "why"}),
    ]  # fmt: skip


def test_a_flood_is_logged_in_a_few_lines_and_counted_in_full(issuance, log):
    for _ in range(500):
        refuse(issuance, Reason.BAD_TOKEN, caller=None)
    assert len(log.lines) == 10
    issuance.flush(3.0)
    assert len(log.lines) == 11
    assert log.lines[-1][2]["times"] == 490
    assert counted(issuance)["ztunnel_certificate_refusals_total"] == {("bad_token",): 500}
