"""Ways to collectors of spans and log records.

One that is a service of the mesh, by its name, is called as any other request of a client would be: at an
endpoint that is chosen, over HBONE where that is in the mesh, by the TLS that a DestinationRule asks for
(istio/istio LookupCluster: a provider is a cluster as any other). Anything else that DNS
knows is called in plaintext.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from ztunnel.model.provider import OtelLog, OtelTraces, SentHeader, ServicePort, Zipkin
from ztunnel.state.lookup import service_named
from ztunnel.state.world import World
from ztunnel.waypoint.calls import Called, ServiceCalls
from ztunnel.waypoint.reporting.export import (
    ANSWER_SECONDS,
    Collector,
    Direct,
    OverMesh,
    open_grpc,
    open_http,
)
from ztunnel.waypoint.reporting.otlp import LOGS, TRACES, refused

_JSON: Final = {"content-type": "application/json"}

Kind = OtelTraces | Zipkin | OtelLog


class Collectors:
    """Those of one waypoint."""

    def __init__(
        self,
        calls: ServiceCalls,
        post: Callable[[Callable[[], None]], None],
        world: Callable[[], World],
        namespace: str,
    ) -> None:
        """`calls` are made in the engine, which `post` has do something; `world` gives that of the moment;
        `namespace`: whose services are meant where several have a name."""
        self._calls = calls
        self._post = post
        self._world = world
        self._namespace = namespace

    @asynccontextmanager
    async def open(self, what: Kind) -> AsyncIterator[Collector]:
        """A way to a collector: over the mesh where it is a service of it, and so by the TLS that a
        DestinationRule asks for; else to what DNS says."""
        if self._is_known(what.service):
            yield self._over_mesh(what)
            return
        async with self._open_direct(what) as inner:
            yield Direct(inner, partial(self._is_known, what.service))

    def _is_known(self, service: ServicePort) -> bool:
        namespace = service.namespace or self._namespace
        return service_named(self._world(), service.hostname, namespace) is not None

    def _over_mesh(self, what: Kind) -> Collector:
        at, headers = what.service, self._headers(what)
        fields = tuple((name.encode(), value.encode()) for name, value in headers.items())
        path = path_of(what)
        seconds = (0.0 if isinstance(what, OtelLog) else what.timeout_seconds) or ANSWER_SECONDS
        namespace = at.namespace or self._namespace
        called = Called(at.hostname, at.port, namespace, (path or method_of(what)).encode(), seconds, fields)
        if path:
            return OverMesh(self._post, partial(self._calls.post, called))
        return OverMesh(self._post, partial(self._calls.call, called), refused)

    def _open_direct(self, what: Kind) -> AbstractAsyncContextManager[Collector]:
        host, port = what.service.hostname, what.service.port
        headers = self._headers(what)
        seconds = 0.0 if isinstance(what, OtelLog) else what.timeout_seconds
        if path := path_of(what):
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            return open_http(f"http://{at}{path}", headers, seconds)
        return open_grpc((host, port), method_of(what), headers, seconds)

    def _headers(self, what: Kind) -> dict[str, str]:
        """Those of a request, without what HTTP asks for."""
        if isinstance(what, OtelLog):
            return {}
        sent = sent_headers(what.headers, os.environ)
        return {**sent, **_JSON} if path_of(what) else sent


def collector_at(url: str) -> OtelTraces:
    """The collector of OTLP over HTTP that a setting names, `http://host:port/path`."""
    parts = urlsplit(url)
    return OtelTraces(ServicePort(parts.hostname or "", parts.port or 0), parts.path)


def path_of(what: Kind) -> str:
    """Of a POST; empty: it is called by gRPC."""
    return "" if isinstance(what, OtelLog) else what.path


def method_of(what: Kind) -> str:
    """Of gRPC."""
    return LOGS if isinstance(what, OtelLog) else TRACES


def sent_headers(headers: tuple[SentHeader, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """Those of what is sent; one whose variable is not there is left out."""
    values = {each.name.lower(): each.value or environment.get(each.variable, "") for each in headers}
    return {name: value for name, value in values.items() if value}
