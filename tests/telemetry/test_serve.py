"""The proxy's pages over real sockets of the loopback interface."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import h11
import pytest
import trio
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from ztunnel.pages.message import Response, Route, text
from ztunnel.telemetry.component import register_build
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.labels import TcpLabels
from ztunnel.telemetry.level import Level, Levels
from ztunnel.telemetry.metrics import TcpMetrics
from ztunnel.telemetry.readiness import Readiness
from ztunnel.telemetry.serve import Admin, Scrape, serve_admin, serve_metrics, serve_readiness


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Server(NamedTuple):
    port: int

    async def ask(self, method: str, target: str, **headers: str) -> Answer:
        sent = {"host": f"localhost:{self.port}", "connection": "close"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method=method, target=target, headers=list(sent.items()))
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
            status, answered, body = 0, {}, b""
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    answered = {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, h11.Data):
                    body += event.data
        return Answer(status, answered, body)


@asynccontextmanager
async def served(serve, shown) -> AsyncIterator[Server]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, listeners, shown, nullcontext))
        yield Server(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


def scrape() -> tuple[TcpMetrics, Figures, Scrape]:
    metrics, figures = TcpMetrics(), Figures()
    register_build(figures, "0.1.0")
    return metrics, figures, Scrape(metrics, figures)


@pytest.mark.parametrize("path", ["/metrics", "/stats/prometheus"])
async def test_metrics_are_plain_text_if_nothing_else_is_asked(path):
    metrics, _, page = scrape()
    metrics.opened(TcpLabels("source"), SimpleNamespace(up=1, down=2))
    async with served(serve_metrics, page) as server:
        answer = await server.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )
    values = {s.name: s.value for family in parse_text(answer.body.decode()) for s in family.samples}
    assert values["istio_tcp_sent_bytes_total"] == 2
    assert values["istio_build"] == 1
    assert 3 < values["process_open_fds"] < values["process_max_fds"]


async def test_metrics_are_open_metrics_and_compressed_for_who_asks():
    metrics, _, page = scrape()
    metrics.opened(TcpLabels("source"), SimpleNamespace(up=1, down=2))
    async with served(serve_metrics, page) as server:
        answer = await server.ask(
            "GET",
            "/metrics",
            accept="application/openmetrics-text;version=1.0.0,*/*;q=0.1",
            accept_encoding="gzip",
        )
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {one.name: one for one in parse_open_metrics(gzip.decompress(answer.body).decode())}
    assert families["istio_tcp_connections_opened"].samples[0].value == 1


async def test_a_name_that_is_no_unicode_does_not_break_the_scrape():
    _, figures, page = scrape()
    figures.gauge("odd", "Odd.", lambda: [(("\udcff",), 1)], ["name"])
    async with served(serve_metrics, page) as server:
        assert (await server.ask("GET", "/metrics")).status == 200


async def test_many_scrapes_in_one_second_are_one_reading(autojump_clock):
    _, figures, page = scrape()
    readings = []
    figures.gauge("readings", "Readings.", lambda: len(readings.append(1) or readings))
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(page.compressed, False)
    assert len(readings) == 1
    assert await page.compressed(True) != await page.compressed(False)
    assert len(readings) == 2
    await trio.sleep(1.01)
    await page.compressed(False)
    assert len(readings) == 3


async def test_other_tasks_run_while_many_series_are_read():
    metrics, _, page = scrape()
    for number in range(5000):
        metrics.failed(TcpLabels("source", source_workload=str(number), response_flags="DENY"))
    turns = 0

    async def count(task_status=trio.TASK_STATUS_IGNORED):
        nonlocal turns
        task_status.started()
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(count)
        octets = await page.compressed(False)
        nursery.cancel_scope.cancel()
    assert turns > 10
    assert gzip.decompress(octets).count(b"istio_tcp_connections_failed_total{") == 5000


async def test_readiness_is_told_with_its_reasons():
    readiness = Readiness(["state manager"])
    async with served(serve_readiness, readiness) as server:
        waiting = await server.ask("GET", "/healthz/ready")
        assert (waiting.status, waiting.body) == (500, b"not ready, pending: state manager\n")
        readiness.done("state manager")
        readiness.detail("manifests", "a.yaml: wrong")
        ready = await server.ask("GET", "/healthz/ready")
        assert (ready.status, ready.body) == (200, b"ready\nmanifests: a.yaml: wrong\n")
        assert (await server.ask("GET", "/")).status == 404
        assert (await server.ask("POST", "/healthz/ready")).status == 405


def admin(calls: list[str]) -> Admin:
    async def more(request) -> Response:
        return text(200, "more\n")

    return Admin(
        dump=lambda: lambda: {"workloads": [], "certificates": [], "config": {"node": "n1"}},
        levels=Levels(),
        quit=lambda: calls.append("quit"),
        drain=lambda: calls.append("drain"),
        pages={"/explain": Route(("GET",), more)},
    )


async def test_the_configuration_dump_is_json():
    async with served(serve_admin, admin([])) as server:
        answer = await server.ask("GET", "/config_dump")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body)["config"] == {"node": "n1"}


async def test_a_dump_is_looked_at_here_and_composed_in_another_thread():
    """Of 100,000 workloads it takes seconds, in which flows go on."""
    looked: list[int] = []

    def dump() -> Callable[[], object]:
        looked.append(threading.get_ident())
        return lambda: {"composed": threading.get_ident()}

    async with served(serve_admin, replace(admin([]), dump=dump)) as server:
        composed = json.loads((await server.ask("GET", "/config_dump")).body)["composed"]
    assert looked == [threading.get_ident()]
    assert composed != threading.get_ident()


async def test_levels_are_asked_changed_and_reset():
    shown = admin([])
    async with served(serve_admin, shown) as server:
        assert (await server.ask("POST", "/logging")).body == b"current log level is info\n"
        changed = await server.ask("POST", "/logging?level=xds:debug,access:off")
        assert changed.body == b"current log level is info,access=off,xds=debug\n"
        assert shown.levels.enabled("xds", Level.DEBUG)
        wrong = await server.ask("POST", "/logging?level=loud")
        assert (wrong.status, b"usage: POST /logging" in wrong.body) == (400, True)
        assert (await server.ask("POST", "/logging?reset")).body == b"current log level is info\n"
        assert (await server.ask("GET", "/logging")).status == 405


async def test_only_a_post_drains_or_ends_the_process():
    calls: list[str] = []
    async with served(serve_admin, admin(calls)) as server:
        assert (await server.ask("GET", "/quitquitquit")).status == 405
        assert (await server.ask("GET", "/drain")).status == 405
        assert calls == []
        assert (await server.ask("POST", "/drain")).status == 200
        assert (await server.ask("POST", "/quitquitquit")).body == b"shutdown now\n"
    assert calls == ["drain", "quit"]


async def test_a_page_in_a_browser_cannot_use_the_admin_page():
    calls: list[str] = []
    async with served(serve_admin, admin(calls)) as server:
        assert (await server.ask("POST", "/quitquitquit", host="rebound.example:15000")).status == 403
        assert (await server.ask("POST", "/quitquitquit", origin="https://evil.example")).status == 403
    assert calls == []


async def test_the_first_page_lists_the_others():
    async with served(serve_admin, admin([])) as server:
        index = (await server.ask("GET", "/")).body.decode()
        assert "POST /quitquitquit\n" in index
        assert "GET /explain\n" in index
        assert (await server.ask("GET", "/explain")).body == b"more\n"
        assert (await server.ask("GET", "/debug/pprof/heap")).status == 404
