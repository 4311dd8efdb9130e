"""What a waypoint's settings say of its log and its traces."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.builders import workload
from tests.run.parts import SETTINGS
from tests.telemetry.test_request_log import FULL
from ztunnel.errors import ConfigError
from ztunnel.run.reporting import Reporting
from ztunnel.run.request_telemetry import exporter_of, line_of


def test_lines_are_istios_or_the_operators() -> None:
    assert line_of(SETTINGS)(FULL).startswith("[2026-09-21T14:13:20.123Z] ")
    assert json.loads(line_of(replace(SETTINGS, log_format="json"))(FULL))["path"] == "/a?b"
    assert line_of(replace(SETTINGS, access_log_format="%REQ(:METHOD)%"))(FULL) == "GET"
    with pytest.raises(ConfigError, match="ZTUNNEL_ACCESS_LOG_FORMAT: the operator %X% is not known"):
        line_of(replace(SETTINGS, access_log_format="%X%"))


def test_spans_are_made_where_a_collector_is_named() -> None:
    reporting = Reporting(SETTINGS)
    assert exporter_of(SETTINGS, reporting, workload("wp")) is None
    named = replace(SETTINGS, tracing_endpoint="http://collector:4318/v1/traces")
    exporter = exporter_of(named, reporting, workload("wp"))
    assert exporter is not None
    assert (exporter.sent, exporter.dropped) == (0, 0)
