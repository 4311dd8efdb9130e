"""Takers of records; `test_scopes` has who they are for."""

from __future__ import annotations

import json

import pytest

from tests.telemetry.test_request_log import FULL
from ztunnel.l7.trace import Context
from ztunnel.model.provider import LogFormat
from ztunnel.waypoint.reporting.otlp import LogEntry
from ztunnel.waypoint.reporting.takers import lines_to, records_to, render_of


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        (LogFormat("%REQ(:METHOD)%!"), "GET!"),
        (LogFormat("", (("method", "%REQ(:METHOD)%"),)), '{"method":"GET"}'),
    ],
)
def test_lines_are_in_the_providers_format(wanted: LogFormat, line: str) -> None:
    found: list[str] = []
    lines_to(found.append, render_of(wanted, False))(FULL, None)
    assert found == [line]


def test_without_a_format_a_line_is_istios() -> None:
    assert render_of(LogFormat(), False)(FULL).startswith("[2026-")


def test_labels_without_a_value_can_be_left_out() -> None:
    wanted = LogFormat("", (("method", "%REQ(:METHOD)%"), ("none", "%REQ(X-NONE)%")))
    assert json.loads(render_of(wanted, True)(FULL)) == {"method": "GET"}


@pytest.mark.parametrize(
    ("context", "ids"), [(None, ("", "")), (Context("a" * 32, "b" * 16, "", True), ("a" * 32, "b" * 16))]
)
def test_log_records_have_the_ids_of_their_span(context: Context | None, ids: tuple[str, str]) -> None:
    found: list[LogEntry] = []
    wanted = LogFormat("%REQ(:METHOD)%", (("path", "%REQ(:PATH)%"),))
    records_to(found.append, wanted)(FULL, context)
    (entry,) = found
    assert (entry.body, entry.attributes) == ("GET", (("path", "/a?b"),))
    assert (entry.trace_id, entry.span_id) == ids
    assert entry.time_ns > 0


@pytest.mark.parametrize(
    "make", [lambda wanted: render_of(wanted, False), lambda wanted: records_to(print, wanted)]
)
def test_what_is_no_format_says_so(make) -> None:
    with pytest.raises(ValueError, match="NO"):
        make(LogFormat("%NO%"))
