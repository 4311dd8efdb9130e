"""Spans of a node proxy, where its settings name a collector."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

from tests.run.parts import SETTINGS
from ztunnel.run.build import build_core
from ztunnel.run.node_spans import node_spans
from ztunnel.run.reporting import Reporting


def test_without_a_collector_there_are_none_and_nothing_is_imported_for_them() -> None:
    reporting = Reporting(SETTINGS)
    assert build_core(SETTINGS, reporting).report.spans is None
    assert reporting.sender is None
    code = "import sys, ztunnel.run.build; print('ztunnel.waypoint.reporting.export' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_collector_that_is_named_gets_them() -> None:
    settings = replace(SETTINGS, tracing_endpoint="http://collector:4318/v1/traces", tracing_percent=100.0)
    reporting = Reporting(settings)
    report = build_core(settings, reporting).report
    assert report.spans is not None
    assert report.spans.begin()
    assert reporting.sender is not None
    names = {family.name for family in reporting.figures.families()}
    assert {"ztunnel_spans_sent_total", "ztunnel_spans_dropped_total"} <= names


def test_its_share_is_that_of_the_settings() -> None:
    settings = replace(SETTINGS, tracing_endpoint="http://collector:4318/v1/traces", tracing_percent=0.0)
    assert node_spans(settings, Reporting(settings)).begin() == ""
