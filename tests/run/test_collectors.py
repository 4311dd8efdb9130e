"""Ways to collectors: over the mesh where they are services of it, else by DNS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from tests.builders import world_of
from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.run.test_outlets import Collector
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WEB, Mesh
from tests.waypoint.rig import Server
from tests.waypoint.test_calls import Bench, answers, closes, framed
from tests.waypoint.tls_server import Authority, TlsServer
from ztunnel.model.provider import OtelLog, OtelTraces, SentHeader, ServicePort, Zipkin
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import ClientTls, PortTraffic, TlsMode, Traffic
from ztunnel.run.collectors import Collectors, Kind, collector_at, sent_headers
from ztunnel.state.world import World
from ztunnel.waypoint.calls import Called, ServiceCalls
from ztunnel.waypoint.client import Client
from ztunnel.waypoint.reporting.export import Lost, OverMesh
from ztunnel.waypoint.reporting.otlp import LOGS, TRACES
from ztunnel.xds.pb import otlp_pb2 as pb

__all__ = ["contexts", "lab"]
KNOWN = ServicePort(SERVICE.hostname, 9000)
HEADERS = (SentHeader("X-Token", "secret"), SentHeader("x-none", variable="NONE"))
pytestmark = pytest.mark.timeout(15)


class Played(Bench):
    """Collectors of a mesh in which services are played."""

    def __init__(self, answer: Callable[[Server], None] | None = None, service=SERVICE) -> None:
        super().__init__(answer)
        self.world: World = world_of(ME, service)
        client = Client(self.clock, lambda *asked: self.connect(*asked), Random(1))
        self.calls = ServiceCalls(client, lambda: (self.world, ME))
        self.collectors = Collectors(self.calls, lambda callback: callback(), lambda: self.world, "shop")

    async def send(self, what: Kind, body: bytes = b"batch") -> tuple[int, str]:
        async with self.collectors.open(what) as collector:
            return await collector.send(body)


def says(status: bytes, body: bytes = b"") -> Callable[[Server], None]:
    def answer(server: Server) -> None:
        server.respond(status=status, end=not body)
        if body:
            server.say(body)
            server.end()

    return answer


@pytest.mark.parametrize(
    ("what", "path"),
    [
        (Zipkin(KNOWN, headers=HEADERS), b"/api/v2/spans"),
        (OtelTraces(KNOWN, "/v1/traces", headers=HEADERS), b"/v1/traces"),
    ],
)
async def test_a_batch_over_http_is_a_post_of_a_service_of_the_mesh(what: Kind, path: bytes) -> None:
    played = Played(says(b"202", b"{}"))
    assert await played.send(what) == (0, "")
    (server,) = played.servers
    request = server.request
    assert request is not None
    assert (request.method, request.path) == (b"POST", path)
    assert request.authority == f"{SERVICE.hostname}:9000".encode()
    assert dict(request.fields) == {
        b"x-token": b"secret", b"content-type": b"application/json", b"content-length": b"5",
    }  # fmt: skip
    assert bytes(server.body) == b"batch"
    assert played.terms[0][1] == 1
    assert played.calls.live == 0


@pytest.mark.parametrize(
    ("what", "path"), [(OtelTraces(KNOWN, headers=HEADERS), TRACES), (OtelLog(KNOWN), LOGS)]
)
async def test_a_batch_over_grpc_is_a_call_of_a_service_of_the_mesh(what: Kind, path: str) -> None:
    message = pb.ExportTraceServiceResponse(partial_success={"rejected": 3, "error_message": "old"})
    played = Played(answers(framed(message.SerializeToString())))
    assert await played.send(what) == (3, "old")
    (server,) = played.servers
    assert server.request is not None
    assert server.request.path == path.encode()
    assert bytes(server.body) == framed(b"batch")
    assert server.request.get(b"x-token") == (b"secret" if isinstance(what, OtelTraces) else b"")
    assert played.terms[0][1] == 2


@pytest.mark.parametrize(
    ("answer", "why"),
    [(says(b"503"), "it answers 503"), (says(b"302"), "it answers 302"), (None, "upstream_response_timeout")],
)
async def test_a_batch_that_is_not_taken_says_why(answer, why: str) -> None:
    played, told = Played(answer), []
    what = Zipkin(KNOWN, timeout_seconds=2.0)
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            told.append(await played.send(what))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        played.clock.sleep(2.1)
    assert told == [(-1, why)]


async def test_a_batch_whose_connection_was_just_closed_may_be_sent_again() -> None:
    played = Played(closes)
    with pytest.raises(Lost, match="closed"):
        await played.send(Zipkin(KNOWN))
    with pytest.raises(Lost, match="closed"):
        await played.send(OtelTraces(KNOWN))
    assert played.calls.live == 0


async def test_who_does_not_wait_any_more_ends_the_request() -> None:
    played = Played()
    with trio.move_on_after(0.05):
        await played.send(Zipkin(KNOWN))
    assert played.servers[0].cancelled
    assert played.calls.live == 0


async def test_one_that_is_sent_before_it_has_begun_is_not_begun_for_nothing() -> None:
    """Its cancellation comes behind it."""
    posted: list[Callable[[], None]] = []
    played = Played()
    over = OverMesh(posted.append, partial(played.calls.post, Called(*_of(KNOWN), b"/", 1.0)))
    with trio.move_on_after(0.01):
        await over.send(b"x")
    for each in posted:
        each()
    assert played.calls.live == 0


def _of(port: ServicePort) -> tuple[str, int, str]:
    return port.hostname, port.port, "shop"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_what_the_mesh_does_not_know_is_called_by_its_name_until_it_does(host: str) -> None:
    collector, played = Collector(), Played(says(b"200"))
    async with trio.open_nursery() as nursery:
        port = await nursery.start(collector.serve, host)
        what = OtelTraces(ServicePort(host, port), "/v1/traces", headers=HEADERS)
        async with played.collectors.open(what) as direct:
            assert await direct.send(b"{}") == (0, "")
            assert not direct.leaving
            played.world = world_of(ME, SERVICE, replace(SERVICE, name="otel", hostname=host))
            assert direct.leaving
        ((path, fields, body),) = collector.got
        assert (path, fields["x-token"], body) == ("/v1/traces", "secret", b"{}")
        assert await played.send(what) == (0, "")
        assert len(played.servers) == len(collector.got) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wrong", [False, True])
def test_a_destination_rule_has_a_collector_called_by_tls(lab: Lab, tmp_path: Path, wrong: bool) -> None:
    authority = Authority(tmp_path)
    names = ("other.example",) if wrong else ("collector.example",)
    server = TlsServer(authority.issue("server", *names))
    tls = ClientTls(TlsMode.SIMPLE, roots=authority.roots, sni="collector.example")
    traffic = ServiceTraffic(WEB, (ClientTraffic("", PortTraffic(Traffic(tls=tls))),))
    mesh = Mesh(lab, ME, CALLER, *SERVERS, SERVICE, traffic)
    calls, told = ServiceCalls(mesh.parts.client, mesh.parts.current), []
    called = Called(SERVICE.hostname, 80, "shop", b"/api/v2/spans", 5.0)
    calls.post(called, b"batch", lambda *said: told.append(said))
    tunnel, heard = mesh.serve()

    def pump() -> bool:
        got, heard.got = bytes(heard.got), bytearray()
        if got and (said := server.take(got)):
            tunnel.write(said)
        return bool(told) or server.got.endswith(b"batch")

    lab.go(until=pump)
    assert server.asked_for == "collector.example"
    if wrong:
        assert "other.example" in told[0][1] or "collector.example" in told[0][1]
        assert server.got == b""
    else:
        assert server.got.startswith(b"POST /api/v2/spans HTTP/1.1\r\n")
        tunnel.write(server.say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"))
        lab.go(until=lambda: told)
        assert told == [(b"", "")]
    assert calls.live == 0
    mesh.servers.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        (
            "http://otel.shop.svc.cluster.local:4318/v1/traces",
            "otel.shop.svc.cluster.local",
            4318,
            "/v1/traces",
        ),
        ("http://10.0.0.1:80/a/b", "10.0.0.1", 80, "/a/b"),
        ("http://[fd00::1]:4318/v1/traces", "fd00::1", 4318, "/v1/traces"),
    ],
)
def test_a_collector_of_the_settings_is_one_as_any_other(url: str, host: str, port: int, path: str) -> None:
    assert collector_at(url) == OtelTraces(ServicePort(host, port), path)


def test_headers_are_values_or_come_of_the_environment() -> None:
    headers = (SentHeader("A", "1"), SentHeader("b", variable="B"), SentHeader("c", variable="C"))
    assert sent_headers(headers, {"B": "2"}) == {"a": "1", "b": "2"}
