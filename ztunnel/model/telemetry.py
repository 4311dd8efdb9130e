"""What the Telemetry API says (telemetry.istio.io/v1), as waypoints have it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ztunnel.model.mesh_defaults import CustomTag


class Mode(StrEnum):
    """Whose side of a call is meant (WorkloadMode). A waypoint is a server."""

    BOTH = "CLIENT_AND_SERVER"
    CLIENT = "CLIENT"
    SERVER = "SERVER"


@dataclass(frozen=True, slots=True)
class TagOverride:
    """A label of a metric that is taken away, or set to an expression of CEL."""

    name: str
    remove: bool = False
    value: str = ""


@dataclass(frozen=True, slots=True)
class MetricOverride:
    """What is different about metrics. `metric` is one of `METRICS`, or `ALL_METRICS`; `disabled` None: not
    said."""

    metric: str = "ALL_METRICS"
    mode: Mode = Mode.BOTH
    disabled: bool | None = None
    tags: tuple[TagOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class Metrics:
    """An entry of `metrics`."""

    providers: tuple[str, ...] = ()
    overrides: tuple[MetricOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessLogging:
    """An entry of `accessLogging`. `filter` is an expression of CEL, empty for none."""

    providers: tuple[str, ...] = ()
    mode: Mode = Mode.BOTH
    disabled: bool | None = None
    filter: str = ""


@dataclass(frozen=True, slots=True)
class Tracing:
    """An entry of `tracing`; None is what is not said. `sampling` is a percentage; `hidden`: requests go on
    without the headers of traces."""

    providers: tuple[str, ...] = ()
    mode: Mode = Mode.BOTH
    sampling: float | None = None
    disabled: bool | None = None
    tags: tuple[CustomTag, ...] | None = None
    request_id: bool | None = None
    istio_tags: bool | None = None
    hidden: bool | None = None


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One object that concerns waypoints.

    Attributes:
        root: it is in the mesh's root namespace.
        targets: `Kind name` each; without any it is for all of its namespace, in the root namespace for all.
        created: RFC 3339; of several the oldest counts.
    """

    name: str
    namespace: str
    root: bool = False
    targets: tuple[str, ...] = ()
    created: str = ""
    metrics: tuple[Metrics, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()
    tracing: tuple[Tracing, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


ALL_METRICS = "ALL_METRICS"
REQUEST_METRICS = (
    "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE", "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
)  # fmt: skip
TCP_METRICS = ("TCP_OPENED_CONNECTIONS", "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES")
METRICS = (*REQUEST_METRICS, *TCP_METRICS)
"""MetricSelector.IstioMetric, without ALL_METRICS."""
