"""What is said of the certificate authority, and shown in figures and readiness."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.identity.builders import NOW, Authority
from tests.identity.sets import one_step
from ztunnel.ca.authority_report import AuthorityReport
from ztunnel.errors import Fault
from ztunnel.identity import authority
from ztunnel.identity.plugged_in import assemble
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.readiness import Readiness

FAULT = Fault("ca-key.pem", 0, "", "not the key")


class Log:
    def __init__(self):
        self.lines = []

    def _say(self, level):
        return lambda message, **fields: self.lines.append((level, message, fields))

    def __getattr__(self, level):
        return self._say(level)


def read(found):
    return authority.read_authority(assemble(found.files(), str), "cluster.local", NOW)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def readiness():
    return Readiness()


@pytest.fixture
def report(log, readiness):
    return AuthorityReport(log, readiness, lambda: NOW)


def test_the_authority_in_force_is_said_once(report, log):
    one = read(one_step())
    for _ in range(2):
        report.observe(one, ())
    [(level, message, fields)] = log.lines
    assert (level, message) == ("info", "certificate authority in force")
    assert fields["signer"] == "O=intermediate"
    assert fields["intermediates"] == 1
    assert fields["not_after"] == one.not_after.isoformat()


def test_one_that_expires_soon_is_a_warning(report, log):
    report.observe(read(one_step(end=NOW + timedelta(days=10))), ())
    assert [(level, fields.get("days")) for level, _, fields in log.lines] == [("info", None), ("warn", 10.0)]


def test_a_set_that_was_refused_is_said_shown_and_counted_until_it_is_good(report, log, readiness):
    figures = Figures()
    report.register(figures)
    one = read(one_step())
    for faults in ((), (FAULT,), (FAULT,)):
        report.observe(one, faults)
    assert [level for level, _, _ in log.lines] == ["info", "error"]
    assert log.lines[1][2] == {"fault": "ca-key.pem: not the key"}
    assert "certificate authority: ca-key.pem: not the key" in readiness.render(0.0)[1]
    assert {one.name: one.samples for one in figures.families()}["ztunnel_authority_faults"] == [((), 1)]
    report.observe(one, ())
    assert log.lines[2][1] == "the files of the certificate authority are good again"
    assert "certificate authority" not in readiness.render(0.0)[1]


def test_the_ends_of_roots_and_of_what_signs_are_figures(report):
    figures = Figures()
    report.register(figures)
    assert "citadel_server_root_cert_expiry_timestamp" not in {one.name for one in figures.families()}
    root = Authority.root(end=NOW + timedelta(days=100))
    report.observe(read(one_step(root, end=NOW + timedelta(days=50))), ())
    found = {one.name: one.samples for one in figures.families()}
    assert found["citadel_server_root_cert_expiry_timestamp"] == [
        ((), root.certificate.not_valid_after_utc.timestamp())
    ]
    assert found["citadel_server_cert_chain_expiry_timestamp"] == [
        ((), (NOW + timedelta(days=50)).timestamp())
    ]
