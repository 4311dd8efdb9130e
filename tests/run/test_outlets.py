"""Where a waypoint's spans, log records and lines go."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import trio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tests.builders import workload
from tests.rpc.conftest import plain_grpcio_server
from tests.run.parts import SETTINGS
from tests.telemetry.test_span import ONE
from tests.waypoint.rig import Clock
from ztunnel.model.provider import (
    ExtensionProvider,
    OtelLog,
    OtelTraces,
    SentHeader,
    ServicePort,
    Zipkin,
)
from ztunnel.run.collectors import Collectors
from ztunnel.run.outlets import Outlets
from ztunnel.run.reporting import Reporting
from ztunnel.state.world import World
from ztunnel.waypoint.calls import ServiceCalls
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.reporting.otlp import LOGS, LogEntry

pytestmark = pytest.mark.timeout(15)


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(8):
        while not holds():  # noqa: ASYNC110 (a count of the exporter's)
            await trio.sleep(0.01)


class Collector:
    """One over HTTP: what it was posted, by path."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(self, host: str, task_status=trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, self._answer, 0, host=host))
            task_status.started(listener.socket.getsockname()[1])

    async def _answer(self, stream: trio.SocketStream) -> None:
        octets = b""
        while part := await stream.receive_some():
            octets += part
            head, end, body = octets.partition(b"\r\n\r\n")
            if not end:
                continue
            first, *lines = head.decode().split("\r\n")
            fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(fields["content-length"])
            if len(body) >= length:
                self.got.append((first.split()[1], fields, body[:length]))
                octets = body[length:]
                await stream.send_all(b"HTTP/1.1 202 X\r\nContent-Length: 0\r\n\r\n")


def nothing_is_called(*_: object) -> None:
    raise AssertionError("there is no service in this mesh")


def outlets_of(**more: Any) -> tuple[Outlets, Reporting]:
    """In a mesh that knows no collector; `more`: of the workload that reports."""
    reporting = Reporting(SETTINGS)
    client = Client(Clock(), nothing_is_called, Random(1))
    collectors = Collectors(
        ServiceCalls(client, lambda: (World(), None)), nothing_is_called, lambda: World(), "shop"
    )
    who = replace(workload("wp"), namespace="shop", **more)
    return Outlets(who, reporting, collectors), reporting


def figure(reporting: Reporting, name: str) -> dict[tuple[str, ...], float]:
    return {
        labels: value
        for each in reporting.figures.families()
        if each.name == name
        for labels, value in each.samples
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_spans_over_http_go_there_as_each_kind_has_them(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    collector = Collector()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, host)
        at = ServicePort(host, port)
        outlets, reporting = outlets_of()
        nursery.start_soon(outlets.run)
        headers = (SentHeader("X-Token", variable="TOKEN"), SentHeader("x-none", variable="NONE"))
        outlets.begin()
        zipkin = outlets.spans(ExtensionProvider("zipkin", Zipkin(at, most_tag_length=3)))
        otel = outlets.spans(ExtensionProvider("otel", OtelTraces(at, "/v1/traces", headers=headers)))
        outlets.end()
        zipkin(ONE)
        otel(ONE)
        await until(lambda: len(collector.got) == 2)
        found = {path: (fields, json.loads(body)) for path, fields, body in collector.got}
        fields, body = found["/api/v2/spans"]
        assert body[0]["localEndpoint"]["serviceName"].endswith(".shop")
        assert body[0]["name"] == ONE.name[:3]
        assert fields["host"].endswith(f":{port}")
        fields, body = found["/v1/traces"]
        assert fields["x-token"] == "secret"
        assert "x-none" not in fields
        assert body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == ONE.name
        await until(lambda: sum(figure(reporting, "ztunnel_spans_sent_total").values()) == 2)
        assert figure(reporting, "ztunnel_spans_sent_total") == {("zipkin",): 1, ("otel",): 1}
        nursery.cancel_scope.cancel()


NAMED = {
    "service.name": "canon.shop", "k8s.cluster.name": "Kubernetes", "k8s.namespace.name": "shop",
    "k8s.pod.name": "wp",
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({}, NAMED),
        (
            {"from_environment": True},
            {**NAMED, "deployment.environment.name": "a,b", "k8s.pod.name": "mine"},
        ),
        (
            {"by_conventions": True},
            {
                **NAMED, "service.name": "canon", "service.namespace": "shop", "service.version": "latest",
                "service.instance.id": "shop.wp.waypoint", "deployment.environment.name": "a,b",
                "k8s.pod.name": "mine",
            },
        ),
    ],
)  # fmt: skip
async def test_who_reports_is_told_as_the_provider_wants_it(
    how: dict[str, Any], told: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`resourceDetectors.environment` and `serviceAttributeEnrichment`."""
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=a%2Cb, k8s.pod.name = mine ,none,=x"
    )
    collector = Collector()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, "127.0.0.1")
        outlets, _ = outlets_of(canonical_name="canon")
        nursery.start_soon(outlets.run)
        outlets.begin()
        at = ServicePort("127.0.0.1", port)
        put = outlets.spans(ExtensionProvider("otel", OtelTraces(at, "/v1/traces", **how)))
        outlets.end()
        put(ONE)
        await until(lambda: bool(collector.got))
        nursery.cancel_scope.cancel()
    ((_, _, body),) = collector.got
    resource = json.loads(body)["resourceSpans"][0]["resource"]["attributes"]
    said = {one["key"]: one["value"]["stringValue"] for one in resource}
    assert said == told


async def test_who_is_in_use_no_more_sends_what_is_left_and_its_figures_stay() -> None:
    collector = Collector()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, "127.0.0.1")
        at = ServicePort("127.0.0.1", port)
        outlets, reporting = outlets_of()
        nursery.start_soon(outlets.run)
        put = outlets.spans(ExtensionProvider("zipkin", Zipkin(at)))
        await trio.testing.wait_all_tasks_blocked()
        put(ONE)
        outlets.begin()
        outlets.end()
        await until(lambda: len(collector.got) == 1)
        await until(lambda: figure(reporting, "ztunnel_spans_sent_total") == {("zipkin",): 1})
        again = outlets.spans(ExtensionProvider("zipkin", Zipkin(at)))
        again(ONE)
        await until(lambda: figure(reporting, "ztunnel_spans_sent_total") == {("zipkin",): 2})
        assert figure(reporting, "ztunnel_spans_dropped_total") == {("zipkin",): 0}
        nursery.cancel_scope.cancel()


async def test_one_that_was_never_begun_loses_what_it_has_and_says_so() -> None:
    at = ServicePort("127.0.0.1", 9)
    outlets, reporting = outlets_of()
    outlets.spans(ExtensionProvider("zipkin", Zipkin(at)))(ONE)
    outlets.begin()
    outlets.end()
    assert figure(reporting, "ztunnel_spans_dropped_total") == {("zipkin",): 1}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_log_records_go_over_grpc(host: str) -> None:
    got: list[ExportLogsServiceRequest] = []

    def export(request: ExportLogsServiceRequest, context: grpc.ServicerContext) -> ExportLogsServiceResponse:
        got.append(request)
        return ExportLogsServiceResponse()

    method = grpc.unary_unary_rpc_method_handler(
        export, ExportLogsServiceRequest.FromString, ExportLogsServiceResponse.SerializeToString
    )
    with plain_grpcio_server(host, {LOGS: method}) as port:
        outlets, reporting = outlets_of()
        at = ServicePort(host, port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlets.run)
            outlets.entries(ExtensionProvider("logs", OtelLog(at)))(LogEntry(1, "a line"))
            await until(lambda: figure(reporting, "ztunnel_log_records_sent_total") == {("logs",): 1})
            nursery.cancel_scope.cancel()
    (request,) = got
    assert request.resource_logs[0].scope_logs[0].log_records[0].body.string_value == "a line"
    assert figure(reporting, "ztunnel_spans_sent_total") == {}


async def test_lines_go_to_a_file_and_one_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    outlets, reporting = outlets_of()
    path = tmp_path / "access.log"
    write = outlets.lines(str(path))
    assert write is not None
    assert outlets.lines(str(path)) is not None
    assert outlets.lines("/dev/stdout") == reporting.access_log.write
    assert outlets.lines(str(tmp_path / "none" / "x")) is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outlets.run)
        write("first")
        await until(lambda: path.read_text() == "first\n")
        nursery.cancel_scope.cancel()


def open_files(folder: Path) -> set[str]:
    """The names of the files in a folder that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = each.readlink()
        except OSError:
            continue
        if target.parent == folder:
            found.add(target.name)
    return found


@pytest.mark.parametrize("runs", [True, False])
async def test_a_file_that_is_named_no_more_is_written_to_its_end_and_closed(
    tmp_path: Path, runs: bool
) -> None:
    outlets, _ = outlets_of()
    first, second = tmp_path / "first", tmp_path / "second"
    async with trio.open_nursery() as nursery:
        if runs:
            nursery.start_soon(outlets.run)
            await trio.testing.wait_all_tasks_blocked()
        write = outlets.lines(str(first))
        await trio.testing.wait_all_tasks_blocked()
        assert write is not None
        write("last")
        outlets.begin()
        assert outlets.lines(str(second)) is not None
        outlets.end()
        await until(lambda: open_files(tmp_path) == {"second"})
        assert first.read_text() == "last\n"
        nursery.cancel_scope.cancel()
    assert open_files(tmp_path) == (set() if runs else {"second"})
    outlets.begin()
    outlets.end()


async def test_so_many_files_may_be_written_and_others_in_their_place(tmp_path: Path) -> None:
    outlets, _ = outlets_of()
    outlets.begin()
    taken = [outlets.lines(str(tmp_path / str(number))) is not None for number in range(17)]
    outlets.end()
    assert taken == [True] * 16 + [False]
    outlets.begin()
    taken = [outlets.lines(str(tmp_path / f"x{number}")) is not None for number in range(17)]
    outlets.end()
    assert taken == [True] * 16 + [False]
    assert open_files(tmp_path) == {f"x{number}" for number in range(16)}
    outlets.begin()
    outlets.end()
    assert open_files(tmp_path) == set()
