"""Serves the proxy's own pages: metrics (15020), readiness (15021), admin (localhost:15000).

A scrape must not hold up connections. What is counted is read on Trio's thread, a few hundred series or a
millisecond at a time; the text is made and compressed in a worker thread; and for twenty times as long as it
took it serves everybody who asks, a second at the most: scrapes cost a twentieth of a core, and where they
are cheap they are fresh.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import trio
from prometheus_client.process_collector import ProcessCollector

from ztunnel.pages.message import JSON, LOOPBACK_HOSTS, Limits, Request, Response, Route, router, text
from ztunnel.pages.serve import Boundary, Pages, serve
from ztunnel.telemetry.exposition import OPEN_METRICS, TEXT, accepts, render
from ztunnel.telemetry.figures import Family, Figures, Sample, metric
from ztunnel.telemetry.level import Level, Levels
from ztunnel.telemetry.metrics import Row, TcpMetrics, render_rows
from ztunnel.telemetry.readiness import Readiness

_FRESH_SECONDS = (0.05, 1.0)
_FRESH_FACTOR = 20
_SLICE_ROWS = 250
_STEP_SECONDS = 0.001
_GZIP = 16 + zlib.MAX_WBITS

_NONE: Mapping[str, Route] = MappingProxyType({})

_Started = trio.TaskStatus[Sequence[trio.SocketListener]]


class Scrape:
    """The exposition of everything that is counted, kept for a while."""

    def __init__(self, metrics: TcpMetrics, figures: Figures) -> None:
        self._metrics = metrics
        self._figures = figures
        self._process = ProcessCollector(registry=None)
        self._lock = trio.Lock()
        self._kept: dict[bool, tuple[float, bytes]] = {}

    async def compressed(self, open_metrics: bool) -> bytes:
        """The text, compressed with gzip: 20,000 series are 100 MB of text, but 2 MB so."""
        async with self._lock:
            kept = self._kept.get(open_metrics)
            begun = trio.current_time()
            if kept is not None and begun < kept[0]:
                return kept[1]
            rows: list[Row] = []
            for row in self._metrics.rows(trio.current_time()):
                rows.append(row)
                if len(rows) % _SLICE_ROWS == 0:
                    await trio.lowlevel.checkpoint()
            families = await self._read()
            octets = await trio.to_thread.run_sync(self._compose, rows, families, open_metrics)
            ended = trio.current_time()
            least, most = _FRESH_SECONDS
            fresh_seconds = min(max(least, (ended - begun) * _FRESH_FACTOR), most)
            self._kept[open_metrics] = (ended + fresh_seconds, octets)
            return octets

    async def _read(self) -> list[Family]:
        """Every figure that is read on this thread. Others have it after each millisecond."""
        families: list[Family] = []
        begun = time.perf_counter()
        for reading in self._figures.readings():
            samples: list[Sample] = []
            for sample in reading.samples():
                samples.append(sample)
                if time.perf_counter() - begun > _STEP_SECONDS:
                    await trio.lowlevel.checkpoint()
                    begun = time.perf_counter()
            if samples:
                families.append(reading.empty._replace(samples=samples))
        return families

    def _compose(self, rows: Sequence[Row], families: Sequence[Family], open_metrics: bool) -> bytes:
        """The whole text, compressed; in a worker thread."""
        compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        parts = [compressor.compress(piece.encode()) for piece in render_rows(rows, open_metrics)]
        metrics = [*map(metric, families), *self._figures.others(), *self._process.collect()]
        return b"".join([*parts, compressor.compress(render(metrics, open_metrics)), compressor.flush()])

    async def answer(self, request: Request) -> Response:
        """Answer a scrape in the format and encoding that it asks for."""
        open_metrics = accepts(request.headers.get("accept", ""), "application/openmetrics-text")
        content_type = OPEN_METRICS if open_metrics else TEXT
        octets = await self.compressed(open_metrics)
        vary = ("vary", "accept, accept-encoding")
        if accepts(request.headers.get("accept-encoding", ""), "gzip"):
            return Response(200, octets, content_type, (("content-encoding", "gzip"), vary))
        octets = await trio.to_thread.run_sync(zlib.decompress, octets, _GZIP)
        return Response(200, octets, content_type, (vary,))


async def serve_metrics(
    listeners: Sequence[trio.SocketListener],
    scrape: Scrape,
    boundary: Boundary,
    more: Mapping[str, Route] = _NONE,
    *,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """`/metrics`, `/stats/prometheus` and `more`, until cancelled; takes over the listeners."""
    page = Route(("GET",), scrape.answer)
    pages = Pages(router({"/metrics": page, "/stats/prometheus": page, **more}), Limits(), boundary)
    await serve(listeners, pages, task_status=task_status)


async def serve_readiness(
    listeners: Sequence[trio.SocketListener],
    readiness: Readiness,
    boundary: Boundary,
    *,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """`/healthz/ready`, until cancelled; takes over the listeners."""

    async def answer(request: Request) -> Response:
        ready, body = readiness.render(trio.current_time())
        return text(200 if ready else 500, body)

    pages = Pages(router({"/healthz/ready": Route(("GET",), answer)}), Limits(), boundary)
    await serve(listeners, pages, task_status=task_status)


@dataclass(frozen=True, slots=True)
class Admin:
    """What the admin page can do.

    Attributes:
        dump: looks at the configuration, on Trio's thread. What it returns is called in a worker, and makes
            plain JSON values of it, with ztunnel's top-level keys.
        quit: begins the end of the process, with a drain.
        drain: begins to refuse new connections and lets the others end.
        pages: more pages, by path.
    """

    dump: Callable[[], Callable[[], object]]
    levels: Levels
    quit: Callable[[], None]
    drain: Callable[[], None]
    pages: Mapping[str, Route] = field(default_factory=dict)


async def serve_admin(
    listeners: Sequence[trio.SocketListener],
    admin: Admin,
    boundary: Boundary,
    *,
    task_status: _Started = trio.TASK_STATUS_IGNORED,
) -> None:
    """`/config_dump`, `/logging`, `/quitquitquit`, `/drain` and a list of the pages, until cancelled.

    Takes over the listeners. Answers only programs that call it by a name of this machine.
    """

    async def dump(request: Request) -> Response:
        return Response(200, await trio.to_thread.run_sync(_to_json, admin.dump()), JSON)

    async def logging(request: Request) -> Response:
        return _change_levels(admin.levels, request)

    async def quitting(request: Request) -> Response:
        admin.quit()
        return text(200, "shutdown now\n", close=True)

    async def draining(request: Request) -> Response:
        admin.drain()
        return text(200, "draining\n")

    async def index(request: Request) -> Response:
        lines = [f"{'|'.join(page.methods)} {path}" for path, page in sorted(routes.items())]
        return text(200, "\n".join([*lines, ""]))

    routes = {
        **admin.pages,
        "/": Route(("GET",), index),
        "/config_dump": Route(("GET",), dump),
        "/logging": Route(("POST",), logging),
        "/quitquitquit": Route(("POST",), quitting),
        "/drain": Route(("POST",), draining),
    }
    pages = Pages(router(routes), Limits(hosts=LOOPBACK_HOSTS), boundary)
    await serve(listeners, pages, task_status=task_status)


def _to_json(compose: Callable[[], object]) -> bytes:
    return json.dumps(compose(), indent=2, default=str).encode()


def _change_levels(levels: Levels, request: Request) -> Response:
    """As ztunnel does: `?level=debug`, `?level=xds:debug,access:off`, `?reset`, or nothing, to ask."""
    if "reset" in request.query:
        levels.reset()
    if "level" in request.query:
        try:
            levels.change(request.query["level"])
        except ValueError as error:
            words = "|".join(level.word for level in Level)
            return text(400, f"{error}\nusage: POST /logging?level=<{words}>[,<scope>:<level>...] | ?reset\n")
    return text(200, f"current log level is {levels}\n")
