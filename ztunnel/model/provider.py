"""Services beside the mesh that waypoints ask or report to: MeshConfig's `extensionProviders` (istio/api
mesh/v1alpha1/config.proto)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.model.http_policy import TextMatch
from ztunnel.model.service import ServiceName


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a service, by its hostname; `namespace` is empty where any has it."""

    hostname: str
    port: int
    namespace: str = ""

    def means(self, service: ServiceName) -> bool:
        """Whether it is that service's."""
        return self.hostname == service.hostname and self.namespace in ("", service.namespace)

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.hostname}" if self.namespace else self.hostname
        return f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class BodyCheck:
    """How much of a request's body an authorizer is shown. `partial`: of a longer one its begin; otherwise a
    longer one is refused. `as_bytes`: as it is, and not as text (gRPC)."""

    most_bytes: int
    partial: bool = False
    as_bytes: bool = False


class Speech(StrEnum):
    """What an authorizer speaks."""

    HTTP = "http"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class ExtAuthz:
    """An external authorizer (`envoyExtAuthzHttp`, `envoyExtAuthzGrpc`).

    Attributes:
        timeout_seconds: of an answer; then it counts as an error.
        fail_open: an error lets the request through.
        error_status: that of the refusal after an error otherwise.
        path_prefix, include_headers, added_headers: of what it is asked over HTTP; over gRPC it is told all
            headers.
        upstream_on_allow: headers of its answer over HTTP that the request gets.
        downstream_on_deny, downstream_on_allow: those that the response gets.
        clear_route_cache: headers that it changes may change the route.
    """

    speech: Speech
    service: ServicePort
    timeout_seconds: float = 600.0
    fail_open: bool = False
    error_status: int = 403
    path_prefix: str = ""
    include_headers: tuple[TextMatch, ...] = ()
    added_headers: tuple[tuple[str, str], ...] = ()
    body: BodyCheck | None = None
    upstream_on_allow: tuple[TextMatch, ...] = ()
    downstream_on_deny: tuple[TextMatch, ...] = ()
    downstream_on_allow: tuple[TextMatch, ...] = ()
    clear_route_cache: bool = False


@dataclass(frozen=True, slots=True)
class LogFormat:
    """Of log lines: a text with Envoy's commands, or one for each of some labels. Empty: the default."""

    text: str = ""
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class FileLog:
    """Log lines in a file (`envoyFileAccessLog`)."""

    path: str
    format: LogFormat = LogFormat()
    omit_empty: bool = False


@dataclass(frozen=True, slots=True)
class OtelLog:
    """Log lines to an OpenTelemetry collector (`envoyOtelAls`)."""

    service: ServicePort
    name: str = ""
    format: LogFormat = LogFormat()


@dataclass(frozen=True, slots=True)
class SentHeader:
    """A header of what is sent to a collector: its value, or the environment variable that has it."""

    name: str
    value: str = ""
    variable: str = ""


@dataclass(frozen=True, slots=True)
class OtelTraces:
    """Spans to an OpenTelemetry collector (`opentelemetry`), over HTTP at `path`, or gRPC where `path` is
    empty. `timeout_seconds` 0: nothing is said; `from_environment`: the waypoint's `OTEL_RESOURCE_ATTRIBUTES`
    say who reports, beside it; `by_conventions`: that is told by OpenTelemetry's conventions."""

    service: ServicePort
    path: str = ""
    timeout_seconds: float = 0.0
    headers: tuple[SentHeader, ...] = ()
    most_tag_length: int = 256
    from_environment: bool = False
    by_conventions: bool = False


@dataclass(frozen=True, slots=True)
class Zipkin:
    """Spans to a Zipkin collector (`zipkin`). `w3c_too`: W3C trace context is read and written beside B3."""

    service: ServicePort
    path: str = "/api/v2/spans"
    timeout_seconds: float = 0.0
    headers: tuple[SentHeader, ...] = ()
    most_tag_length: int = 256
    short_ids: bool = False
    w3c_too: bool = False


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Metrics that are scraped (`prometheus`)."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A provider of a kind that nothing is done with, by its field in MeshConfig."""

    kind: str


Extension = ExtAuthz | FileLog | OtelLog | OtelTraces | Zipkin | Prometheus | Unsupported


@dataclass(frozen=True, slots=True)
class ExtensionProvider:
    """One provider, and the name by which policies mean it."""

    name: str
    what: Extension

    @property
    def key(self) -> str:
        """Its name."""
        return self.name
