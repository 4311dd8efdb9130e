"""Spans of tunnels."""

from __future__ import annotations

from random import Random

import pytest

from tests.builders import service, workload
from ztunnel.errors import Unreachable
from ztunnel.flow.flow import Counts
from ztunnel.model.address import Endpoint, parse_ip
from ztunnel.telemetry.journey import Journey
from ztunnel.telemetry.labels import Reporter
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.report import Report
from ztunnel.telemetry.span import CLIENT, SERVER, Span
from ztunnel.telemetry.tunnel_span import TunnelSpans, is_sampled

TRACE, SPAN = "4b" * 16, "aa" * 8
CONTEXT = f"00-{TRACE}-{SPAN}-01"
SOURCE = Endpoint(parse_ip("fd00::1"), 4711)


def journey(reporter: Reporter) -> Journey:
    return Journey(
        reporter,
        Endpoint(parse_ip("10.0.0.2"), 15008),
        workload("client"),
        workload("server"),
        service("web"),
        hbone_address="10.1.0.1:80",
    )


def reported(spans: list[Span]) -> Report:
    clock = iter((100.0, 101.5, 102.0)).__next__
    report = Report(TcpMetrics(), None, clock, lambda: 2 * 10**18)
    report.spans = TunnelSpans(spans.append, Random(1), 1.0)
    return report


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (CONTEXT, True),
        (CONTEXT[:-1] + "0", False),
        ("", False),
        (CONTEXT + "0", False),
        ("01" + CONTEXT[2:], False),
    ],
)
def test_only_a_context_that_is_flagged_asks_for_spans(text: str, sampled: bool) -> None:
    assert is_sampled(text) is sampled


@pytest.mark.parametrize("reporter", [Reporter.SOURCE, Reporter.DESTINATION])
def test_who_opens_is_the_span_that_the_context_names_and_who_accepts_one_below(reporter: Reporter) -> None:
    spans: list[Span] = []
    report = reported(spans)
    account = report.open(journey(reporter), SOURCE, Counts(3, 5))
    account.traceparent = CONTEXT
    report.close(account)
    report.close(account)
    (span,) = spans
    assert (span.trace_id, span.name) == (TRACE, "tunnel 10.1.0.1:80")
    assert (span.start_ns, span.end_ns) == (2 * 10**18 - 1_500_000_000, 2 * 10**18)
    opened = reporter is Reporter.SOURCE
    assert (span.kind, span.parent_id) == ((CLIENT, "") if opened else (SERVER, SPAN))
    assert (span.span_id == SPAN) is opened
    said = dict(span.attributes)
    assert (said["bytes_recv"], said["bytes_sent"], said["response_flags"]) == (3, 5, "-")
    assert (said["peer.address"], said["istio.source_namespace"]) == ("fd00::1", "default")
    assert said["direction"] == ("outbound" if opened else "inbound")
    assert not span.is_error


def test_a_tunnel_that_fails_is_an_error_with_its_reason() -> None:
    spans: list[Span] = []
    report = reported(spans)
    account = report.open(journey(Reporter.SOURCE), SOURCE, Counts())
    account.traceparent = CONTEXT
    report.close(account, Unreachable("cut"))
    assert spans[0].is_error
    assert dict(spans[0].attributes)["error.message"] == "cut"


def test_without_a_context_or_a_collector_there_is_none() -> None:
    spans: list[Span] = []
    report = reported(spans)
    report.close(report.open(journey(Reporter.SOURCE), SOURCE, Counts()))
    report.spans = None
    account = report.open(journey(Reporter.SOURCE), SOURCE, Counts())
    account.traceparent = CONTEXT
    report.close(account)
    assert spans == []


def test_a_share_of_the_tunnels_begins_a_trace() -> None:
    rng = Random(2)
    begun = [TunnelSpans(lambda span: None, rng, 0.25).begin() for _ in range(4000)]
    found = [each for each in begun if each]
    assert abs(len(found) / 4000 - 0.25) < 0.04
    assert all(map(is_sampled, found))
    assert len(set(found)) == len(found)
    assert not any(TunnelSpans(lambda span: None, rng, 0.0).begin() for _ in range(100))
