"""What a waypoint's settings say of its log and its traces."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from tests.builders import workload, world_of
from tests.run.parts import SETTINGS
from tests.run.test_collectors import Played, says
from tests.telemetry.test_request_log import FULL
from tests.telemetry.test_span import ONE
from tests.waypoint.mesh import SERVICE
from tests.waypoint.rig import Clock
from ztunnel.errors import ConfigError
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.telemetry import AccessLogging, Telemetry
from ztunnel.run.collectors import Collectors
from ztunnel.run.outlets import Outlets
from ztunnel.run.reporting import Reporting
from ztunnel.run.request_telemetry import exporter_of, line_of, telemetry_of
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.waypoint.calls import ServiceCalls
from ztunnel.waypoint.client import Client


def test_lines_are_istios_or_the_operators() -> None:
    assert line_of(SETTINGS)(FULL).startswith("[2026-09-21T14:13:20.123Z] ")
    assert json.loads(line_of(replace(SETTINGS, log_format="json"))(FULL))["path"] == "/a?b"
    assert line_of(replace(SETTINGS, access_log_format="%REQ(:METHOD)%"))(FULL) == "GET"
    with pytest.raises(ConfigError, match="ZTUNNEL_ACCESS_LOG_FORMAT: the operator %X% is not known"):
        line_of(replace(SETTINGS, access_log_format="%X%"))


def test_spans_are_made_where_a_collector_is_named() -> None:
    reporting, collectors = Reporting(SETTINGS), collectors_of(Hold(world_of()))
    assert exporter_of(SETTINGS, reporting, workload("wp"), collectors) is None
    named = replace(SETTINGS, tracing_endpoint="http://collector:4318/v1/traces")
    exporter = exporter_of(named, reporting, workload("wp"), collectors)
    assert exporter is not None
    assert (exporter.sent, exporter.dropped) == (0, 0)


async def test_spans_for_the_collector_of_the_settings_go_over_the_mesh_where_it_is_a_service_of_it() -> None:
    played = Played(says(b"200"))
    settings = replace(SETTINGS, tracing_endpoint=f"http://{SERVICE.hostname}:9000/v1/traces")
    exporter = exporter_of(settings, Reporting(SETTINGS), workload("wp"), played.collectors)
    assert exporter is not None
    exporter.put(ONE)
    await exporter.flush()
    (server,) = played.servers
    assert server.request is not None
    assert (server.request.path, server.request.get(b"content-type")) == (b"/v1/traces", b"application/json")
    assert json.loads(server.body)["resourceSpans"]
    assert (exporter.sent, exporter.dropped) == (1, 0)


def test_what_is_reported_follows_the_world() -> None:
    hold = Hold(world_of(workload("wp")))
    (uid,) = hold.world.workloads
    one = hold.world.workloads[uid]
    reporting = Reporting(SETTINGS)
    telemetry, outlets = telemetry_of(SETTINGS, reporting, one, hold, collectors_of(hold))
    scope = telemetry.scope_of(None)
    assert len(scope.logs) == 1
    put(hold, Telemetry("t", one.namespace, access_logging=(AccessLogging(disabled=True),)))
    assert scope.logs == ()
    put(hold, MeshDefaults(access_logging=("envoy",)))
    assert scope.logs == ()
    hold.publish(*apply(hold.world, (), removed_http={Telemetry: [f"{one.namespace}/t"]}))
    assert len(scope.logs) == 1
    assert isinstance(outlets, Outlets)


def collectors_of(hold: Hold) -> Collectors:
    """That have nobody to call."""

    def nobody(*_: object) -> None:
        raise AssertionError("nobody is called")

    calls = ServiceCalls(Client(Clock(), nobody, Random(1)), lambda: (hold.world, None))
    return Collectors(calls, nobody, lambda: hold.world, "shop")


def put(hold: Hold, item: Telemetry | MeshDefaults) -> None:
    hold.publish(*apply(hold.world, [item]))
