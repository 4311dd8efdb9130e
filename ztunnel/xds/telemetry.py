"""Telemetry of waypoints as messages of ztunnel.http, both ways.

A message whose expressions or formats cannot be read here is refused as a whole: the version before stays in
force.
"""

from __future__ import annotations

from typing import Any, Final

from ztunnel.errors import PeerError
from ztunnel.l7.telemetry.expression import Expression
from ztunnel.model.mesh_defaults import CustomTag, TagSource
from ztunnel.model.telemetry import (
    ALL_METRICS,
    METRICS,
    AccessLogging,
    MetricOverride,
    Metrics,
    Mode,
    TagOverride,
    Telemetry,
    Tracing,
)
from ztunnel.telemetry.log_format import parse_format
from ztunnel.xds.pb import mesh_pb2
from ztunnel.xds.pb import telemetry_pb2 as pb
from ztunnel.xds.record import LISTED, OPTIONAL, PLAIN, EnumOf, Many, Plain, Record


class _Expression(Plain):
    """One of CEL; empty for none."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        text = getattr(untrusted, name)
        if text:
            Expression(text)
        return text


class _Metric(Plain):
    """The name of one."""

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = getattr(untrusted, name)
        if found != ALL_METRICS and found not in METRICS:
            raise ValueError(f"there is no metric {found[:80]!r}")
        return found


class _Percentage:
    """One, or None."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it, if it is there."""
        OPTIONAL.put(message, name, value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = OPTIONAL.get(untrusted, name)
        if found is not None and not 0 <= found <= 100:
            raise ValueError(f"{name}: a percentage is from 0 to 100, not {found}")
        return found


class _Tags:
    """A table of tags, or None."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it, if it is there."""
        if value is not None:
            getattr(message, name).SetInParent()
            _TABLE.put(getattr(message, name), "tags", value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        if not untrusted.HasField(name):
            return None
        found = _TABLE.get(getattr(untrusted, name), "tags")
        for each in found:
            if each.source is TagSource.FORMATTER:
                parse_format(each.text)
        return found


_TABLE: Final = Many(
    Record(CustomTag, mesh_pb2.CustomTag, name=PLAIN, source=EnumOf(TagSource), text=PLAIN, default=PLAIN)
)
_TAG: Final = Record(TagOverride, pb.TagOverride, name=PLAIN, remove=PLAIN, value=_Expression())
_OVERRIDE: Final = Record(
    MetricOverride, pb.MetricOverride, metric=_Metric(), mode=EnumOf(Mode), disabled=OPTIONAL, tags=Many(_TAG)
)
_METRICS: Final = Record(Metrics, pb.Metrics, providers=LISTED, overrides=Many(_OVERRIDE))
_LOGGING: Final = Record(
    AccessLogging,
    pb.AccessLogging,
    providers=LISTED,
    mode=EnumOf(Mode),
    disabled=OPTIONAL,
    filter=_Expression(),
)
_TRACING: Final = Record(
    Tracing,
    pb.Tracing,
    providers=LISTED,
    mode=EnumOf(Mode),
    sampling=_Percentage(),
    disabled=OPTIONAL,
    tags=_Tags(),
    request_id=OPTIONAL,
    istio_tags=OPTIONAL,
    hidden=OPTIONAL,
)
_TELEMETRY: Final = Record(
    Telemetry,
    pb.Telemetry,
    name=PLAIN,
    namespace=PLAIN,
    root=PLAIN,
    targets=LISTED,
    created=PLAIN,
    metrics=Many(_METRICS),
    access_logging=Many(_LOGGING),
    tracing=Many(_TRACING),
)


def render_telemetry(telemetry: Telemetry) -> pb.Telemetry:
    """The message of an object."""
    made: pb.Telemetry = _TELEMETRY.render(telemetry)
    return made


def parse_telemetry(untrusted: pb.Telemetry) -> Telemetry:
    """The object of a message.

    Raises:
        PeerError: it has no name, or something in it makes no sense.
    """
    if not untrusted.name or not untrusted.namespace:
        raise PeerError("a Telemetry needs a name and a namespace")
    return _TELEMETRY.parse(untrusted)
