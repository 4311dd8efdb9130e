"""Spans on their way to a collector: in batches, and lost where it does not take them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from functools import partial

import grpc
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.rpc.conftest import plain_grpcio_server
from tests.telemetry.test_span import ONE
from ztunnel.telemetry.span import Span, render_spans
from ztunnel.waypoint.reporting.export import Exporter, open_grpc, open_http
from ztunnel.waypoint.reporting.otlp import TRACES, encode_spans


class Collector:
    """A collector on a port of this machine, that answers with `status`."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        self.status = 200
        self.connections = 0
        self.closes_after = 1 << 30
        self.half = False

    async def serve(self, host: str, task_status=trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, self._answer, 0, host=host)
            (listener,) = await nursery.start(serve)
            task_status.started(listener.socket.getsockname()[1])

    async def _answer(self, stream: trio.SocketStream) -> None:
        octets, served = b"", 0
        self.connections += 1
        while part := await stream.receive_some():
            octets += part
            if served >= self.closes_after:  # it had found it idle when this came
                if self.half:
                    await stream.send_all(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\n{")
                return
            head, end, body = octets.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0) if end else 1
            if not end or len(body) < length:
                continue
            assert head.startswith(b"POST /v1/traces HTTP/1.1\r\n")
            self.got.append(json.loads(body[:length]))
            octets, served = body[length:], served + 1
            await stream.send_all(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % self.status)

    @property
    def spans(self) -> int:
        return sum(len(each["resourceSpans"][0]["scopeSpans"][0]["spans"]) for each in self.got)


def over_http(endpoint: str, complain: Callable[[str], None]) -> Exporter[Span]:
    return Exporter(
        endpoint,
        partial(open_http, endpoint, {"content-type": "application/json"}),
        partial(render_spans, resource={"service.name": "wp"}, version="1"),
        complain,
    )


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(4):
        while not holds():  # noqa: ASYNC110 (a count of the exporter's)
            await trio.sleep(0.01)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_spans_are_sent_in_batches_and_what_is_not_taken_is_told_once(host: str, url: str) -> None:
    collector, told = Collector(), list[str]()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, host)
        endpoint = f"http://{url}:{port}/v1/traces"
        exporter = over_http(endpoint, told.append)
        nursery.start_soon(exporter.run)
        for _ in range(300):
            exporter.put(ONE)
        await until(lambda: exporter.sent == 300)
        assert (len(collector.got), collector.spans) == (2, 300)
        collector.status = 503
        exporter.put(ONE)
        await until(lambda: exporter.dropped == 1)
        assert len(told) == 1
        assert "answers 503" in told[0]
        nursery.cancel_scope.cancel()


async def test_a_collector_that_is_away_costs_nothing_but_its_spans() -> None:
    told = list[str]()
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces"
        await lose(over_http(endpoint, told.append))
    assert len(told) == 1


async def lose(exporter: Exporter[Span]) -> None:
    for _ in range(5000):
        exporter.put(ONE)
    assert exporter.dropped == 5000 - 4096
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exporter.run)
        await until(lambda: exporter.dropped == 5000 - 4096 + 256)
        nursery.cancel_scope.cancel()
    assert exporter.sent == 0


async def test_a_batch_is_sent_again_where_a_kept_connection_was_just_closed() -> None:
    """What it loses nobody has seen: not a byte of an answer has come."""
    collector, told = Collector(), list[str]()
    collector.closes_after = 1
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, "127.0.0.1")
        exporter = over_http(f"http://127.0.0.1:{port}/v1/traces", told.append)
        for _ in range(300):
            exporter.put(ONE)
        await exporter.flush()
        assert (exporter.sent, collector.spans, collector.connections) == (300, 300, 2)
        assert (exporter.dropped, told) == (0, [])
        collector.half, before = True, len(collector.got)
        for _ in range(300):
            exporter.put(ONE)
        await exporter.flush()  # an answer has begun: it may have taken them
        assert len(collector.got) == before + 1
        assert (exporter.sent, exporter.dropped) == (300 + 256, 44)
        collector.half, collector.closes_after = False, 0
        exporter.put(ONE)
        await exporter.flush()
        assert (exporter.sent, exporter.dropped) == (300 + 256, 45)
        nursery.cancel_scope.cancel()


async def test_what_is_left_is_sent_at_the_end() -> None:
    collector = Collector()
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, "::1")
        exporter = over_http(f"http://[::1]:{port}/v1/traces", lambda why: None)
        for _ in range(300):
            exporter.put(ONE)
        await exporter.flush()
        assert (exporter.sent, collector.spans) == (300, 300)
        nursery.cancel_scope.cancel()


class GrpcCollector:
    """A collector of OpenTelemetry's own messages, served by grpcio."""

    def __init__(self) -> None:
        self.got: list[tuple[ExportTraceServiceRequest, dict[str, str]]] = []
        self.rejects = 0
        self.refuses: grpc.StatusCode | None = None

    @property
    def methods(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            TRACES: grpc.unary_unary_rpc_method_handler(
                self._export,
                ExportTraceServiceRequest.FromString,
                ExportTraceServiceResponse.SerializeToString,
            )
        }

    def _export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        if self.refuses is not None:
            context.abort(self.refuses, "not now")
        self.got.append((request, dict(context.invocation_metadata())))
        return ExportTraceServiceResponse(
            partial_success=ExportTracePartialSuccess(rejected_spans=self.rejects, error_message="too old")
        )

    @property
    def names(self) -> list[str]:
        return [
            span.name
            for request, _ in self.got
            for whose in request.resource_spans
            for scope in whose.scope_spans
            for span in scope.spans
        ]


def over_grpc(at: tuple[str, int], complain: Callable[[str], None]) -> Exporter[Span]:
    return Exporter(
        "a collector",
        partial(open_grpc, at, TRACES, {"x-token": "secret"}),
        partial(encode_spans, resource={"service.name": "wp"}, version="1"),
        complain,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_spans_over_grpc_are_what_a_collector_reads(host: str) -> None:
    collector, told = GrpcCollector(), list[str]()
    with plain_grpcio_server(host, collector.methods) as port:
        async with trio.open_nursery() as nursery:
            exporter = over_grpc((host, port), told.append)
            nursery.start_soon(exporter.run)
            for number in range(300):
                exporter.put(ONE._replace(name=f"{number}"))
            await until(lambda: exporter.sent == 300)
            assert collector.names == [f"{number}" for number in range(300)]
            assert collector.got[0][1]["x-token"] == "secret"
            assert len(collector.got) == 2
            collector.rejects = 1
            for _ in range(3):
                exporter.put(ONE)
            await until(lambda: exporter.sent == 302)
            assert (exporter.dropped, told) == (1, ["cannot send to a collector: too old"])
            collector.refuses = grpc.StatusCode.RESOURCE_EXHAUSTED
            exporter.put(ONE)
            await until(lambda: exporter.dropped == 2)
            nursery.cancel_scope.cancel()


async def test_a_collector_that_comes_back_gets_what_has_waited() -> None:
    collector, told = GrpcCollector(), list[str]()
    with socket.socket() as nobody:  # bound, and not listening
        nobody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        nobody.bind(("127.0.0.1", 0))
        at = nobody.getsockname()
        async with trio.open_nursery() as nursery:
            exporter = over_grpc(at, told.append)
            exporter.put(ONE)
            nursery.start_soon(exporter.run)
            await until(lambda: told != [])
            with plain_grpcio_server("127.0.0.1", collector.methods, at[1]):
                await until(lambda: exporter.sent == 1)
            nursery.cancel_scope.cancel()
    assert (exporter.dropped, len(told)) == (0, 1)


pytestmark = pytest.mark.timeout(15)
