"""What MeshConfig says of telemetry, paths and retries for the mesh (istio/api mesh/v1alpha1: config.proto,
proxy.proto)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ztunnel.model.route_policy import RetryDefault


class TagSource(StrEnum):
    """Where the value of a span's tag comes from."""

    LITERAL = "literal"
    ENVIRONMENT = "environment"
    HEADER = "header"
    FORMATTER = "formatter"


@dataclass(frozen=True, slots=True)
class CustomTag:
    """A tag of spans. `text` is its value, the name of a variable or header, or commands of Envoy; `default`
    counts where that has no value."""

    name: str
    source: TagSource
    text: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class TracingDefaults:
    """`defaultConfig.tracing`. `percent` None: nothing is said. `zipkin` is its address, empty: none;
    `most_tag_length` 0: nothing is said."""

    percent: float | None = None
    most_tag_length: int = 0
    tags: tuple[CustomTag, ...] = ()
    zipkin: str = ""


class LogEncoding(StrEnum):
    """`accessLogEncoding`."""

    TEXT = "TEXT"
    JSON = "JSON"


MESH: Final = "mesh"


@dataclass(frozen=True, slots=True)
class MeshDefaults:
    """`defaultProviders` (names of providers), `enableTracing`, `accessLogFile`, `accessLogEncoding`,
    `accessLogFormat`, `defaultConfig.tracing`, `pathNormalization` (one of `l7.path.SPELLINGS`; empty:
    nothing is said) and `defaultHttpRetryPolicy` (None: nothing is said)."""

    access_logging: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    tracing: tuple[str, ...] = ()
    log_file: str = ""
    log_encoding: LogEncoding = LogEncoding.TEXT
    log_format: str = ""
    traced: bool = False
    spans: TracingDefaults = TracingDefaults()
    path_normalization: str = ""
    retries: RetryDefault | None = None

    @property
    def key(self) -> str:
        """There is one of a mesh."""
        return MESH
