"""Where a waypoint sends its spans, log records and lines: an exporter for each collector that is in use, a
writer for each file.

They come and go with the mesh config. Who was in use and is no more sends what is left, for a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import trio

from ztunnel import __version__
from ztunnel.drain import closing
from ztunnel.model.provider import ExtensionProvider, OtelLog, OtelTraces, Zipkin
from ztunnel.model.workload import Workload
from ztunnel.run.collectors import Collectors
from ztunnel.run.log_file import LogFile
from ztunnel.run.reporting import Reporting
from ztunnel.telemetry.export import LineWriter
from ztunnel.telemetry.figures import Sample
from ztunnel.telemetry.span import Span, render_spans
from ztunnel.telemetry.zipkin import render_zipkin
from ztunnel.waypoint.reporting.export import Exporter
from ztunnel.waypoint.reporting.otlp import LogEntry, encode_logs, encode_spans
from ztunnel.waypoint.reporting.scopes import STDOUT

_GOODBYE_SECONDS: Final = 1.0
_LOG_NAME: Final = "otel_envoy_accesslog"
_MOST_FILES: Final = 16
_CONTAINER: Final = "waypoint"
"""In which a waypoint runs (`control.waypoints.overlay`)."""


class Outlets:
    """Those of one process. `run` sends; the rest is called by whoever says what is reported."""

    def __init__(
        self,
        workload: Workload,
        reporting: Reporting,
        collectors: Collectors,
        own: Exporter[Span] | None = None,
    ) -> None:
        """`workload` is who reports; `own` exports for the settings."""
        self._collectors = collectors
        self._service = f"{workload.canonical_name}.{workload.namespace}"
        self._addresses = [str(address) for address in workload.addresses]
        self._resource = {
            "service.name": self._service,
            "k8s.cluster.name": workload.cluster,
            "k8s.namespace.name": workload.namespace,
            "k8s.pod.name": workload.name,
        }
        self._by_conventions = {
            "service.name": workload.canonical_name,
            "service.namespace": workload.namespace,
            "service.version": workload.canonical_revision,
            "service.instance.id": f"{workload.namespace}.{workload.name}.{_CONTAINER}",
        }
        self._reporting = reporting
        self._exporters: dict[ExtensionProvider, Exporter[Any]] = {}
        self._own = own
        self._names: dict[Exporter[Any], tuple[str, str]] = (
            {} if own is None else {own: ("spans", "settings")}
        )
        self._writers: dict[str, LogFile] = {}
        self._running: dict[Exporter[Any] | LogFile, trio.CancelScope] = {}
        self._asked: set[ExtensionProvider | str] = set()
        self._changed = trio.Event()
        self._counts: dict[tuple[str, str], list[int]] = {}
        figures = reporting.figures
        counter, named = figures.counter, ("provider",)
        spans, records = partial(self._figures, "spans"), partial(self._figures, "log_records")
        counter("ztunnel_spans_sent_total", "Spans that a collector has taken", partial(spans, 0), named)
        counter("ztunnel_spans_dropped_total", "Spans that it never got", partial(spans, 1), named)
        counter(
            "ztunnel_log_records_sent_total", "Log records that a collector took", partial(records, 0), named
        )
        counter("ztunnel_log_records_dropped_total", "Those that it never got", partial(records, 1), named)

    # As `waypoint.scopes.Outlets` has it.

    def begin(self) -> None:
        """Everything is asked for anew."""
        self._asked = set()

    def end(self) -> None:
        """Everything was."""
        for provider in [each for each in self._exporters if each not in self._asked]:
            exporter = self._exporters.pop(provider)
            if exporter not in self._running:
                self._keep(exporter)
        for path in [each for each in self._writers if each not in self._asked]:
            file = self._writers.pop(path)
            if file not in self._running:
                file.close()
        self._changed.set()

    def spans(self, provider: ExtensionProvider) -> Callable[[Span], None]:
        """Takes spans for a collector."""
        return self._exporter(provider).put

    def entries(self, provider: ExtensionProvider) -> Callable[[LogEntry], None]:
        """Takes log records for a collector."""
        return self._exporter(provider).put

    def lines(self, path: str) -> Callable[[str], None] | None:
        """Takes lines for a file; None: it cannot be had, which was told."""
        if path == STDOUT:
            return self._reporting.access_log.write
        self._asked.add(path)
        file = self._writers.get(path)
        if file is None:
            try:
                if len(self._asked & self._writers.keys()) >= _MOST_FILES:
                    raise OSError(f"more than {_MOST_FILES} files")
                file = self._writers[path] = LogFile(path)
            except OSError as error:
                self.complain(f"the access log {path} cannot be written: {error.strerror or error}")
                return None
            self._changed.set()
        return partial(self._write, file.writer)

    def complain(self, why: str) -> None:
        """Something cannot be done as it is wanted."""
        self._reporting.log.scoped("telemetry").warn("cannot be done", error=why)

    # Sending.

    async def run(self) -> None:
        """Send what is put, for ever, and then for a moment what is left."""
        async with trio.open_nursery() as nursery:
            if self._own is not None:
                nursery.start_soon(self._run_one, self._own, trio.CancelScope())
            while True:
                self._changed = trio.Event()
                wanted: set[Exporter[Any] | LogFile] = {*self._exporters.values(), *self._writers.values()}
                for each in [one for one in self._running if one not in wanted]:
                    self._running.pop(each).cancel()
                for one in wanted - self._running.keys():
                    scope = self._running[one] = trio.CancelScope()
                    nursery.start_soon(self._run_one, one, scope)
                await self._changed.wait()

    async def _run_one(self, one: Exporter[Any] | LogFile, scope: trio.CancelScope) -> None:
        with scope:
            if isinstance(one, LogFile):
                await one.run()
                return
            try:
                await one.run()
            finally:
                with closing(_GOODBYE_SECONDS):
                    await one.flush()
                self._keep(one)

    def _exporter(self, provider: ExtensionProvider) -> Exporter[Any]:
        self._asked.add(provider)
        found = self._exporters.get(provider)
        if found is None:
            found = self._exporters[provider] = self._make(provider)
            self._names[found] = _kind(provider), provider.name
            self._changed.set()
        return found

    def _make(self, provider: ExtensionProvider) -> Exporter[Any]:
        what = provider.what
        assert isinstance(what, OtelTraces | Zipkin | OtelLog)
        resource = self._resource
        if isinstance(what, OtelTraces):
            if what.by_conventions:
                resource = {**resource, **self._by_conventions}
            if what.from_environment or what.by_conventions:
                resource = {**resource, **attributes_of(os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))}
        if isinstance(what, Zipkin):
            render: Callable[[Any], bytes] = partial(
                render_zipkin,
                service=self._service,
                addresses=self._addresses,
                longest=what.most_tag_length,
            )
        elif isinstance(what, OtelLog):
            name = what.name or _LOG_NAME
            render = partial(encode_logs, resource=resource, version=__version__, name=name)
        else:
            spans = render_spans if what.path else encode_spans
            render = partial(spans, resource=resource, version=__version__, longest=what.most_tag_length)
        open_one = partial(self._collectors.open, what)
        return Exporter(f"{what.service} ({provider.name})", open_one, render, self.complain)

    # Figures.

    def _figures(self, kind: str, place: int) -> list[Sample]:
        found = {key: list(counts) for key, counts in self._counts.items()}
        for exporter, key in self._names.items():
            counts = found.setdefault(key, [0, 0])
            counts[0] += exporter.sent
            counts[1] += exporter.dropped
        return [((key[1],), counts[place]) for key, counts in found.items() if key[0] == kind]

    def _keep(self, exporter: Exporter[Any]) -> None:
        """The figures of one that is not in use any more."""
        exporter.end()
        counts = self._counts.setdefault(self._names.pop(exporter), [0, 0])
        counts[0] += exporter.sent
        counts[1] += exporter.dropped

    def _write(self, writer: LineWriter, line: str) -> None:
        if not writer.put(line):
            self._reporting.access_log.dropped += 1


def attributes_of(text: str) -> dict[str, str]:
    """Those of `OTEL_RESOURCE_ATTRIBUTES`: `name=value`, with commas, values as in a URL (OpenTelemetry's
    resource SDK); what is none is left out."""
    pairs = (each.partition("=") for each in text.split(","))
    return {name.strip(): unquote(value.strip()) for name, mark, value in pairs if mark and name.strip()}


def _kind(provider: ExtensionProvider) -> str:
    return "log_records" if isinstance(provider.what, OtelLog) else "spans"
