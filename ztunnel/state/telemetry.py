"""Telemetry read from manifests, strictly.

Fields are those of telemetry.istio.io/v1; what else is checked is what istiod's validation refuses
(istio/istio pkg/config/validation: ValidateTelemetry), and expressions and formats that a waypoint could not
evaluate."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

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
    Tracing,
)
from ztunnel.state.field import Field
from ztunnel.state.istio import read_selector, read_targets
from ztunnel.state.meta import Meta, read_choice, read_meta
from ztunnel.telemetry.log_format import parse_format

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")
_HEADER: Final = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_MOST: Final = 64
"""Entries, overrides and tags of one object, of each."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A Telemetry. `custom_metrics` are those that it names, of which there are none; `interval`: it says one
    for reports of TCP."""

    meta: Meta
    selector: Mapping[str, str]
    targets: tuple[str, ...]
    metrics: tuple[Metrics, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()
    tracing: tuple[Tracing, ...] = ()
    custom_metrics: tuple[str, ...] = ()
    interval: bool = False

    @property
    def is_wide(self) -> bool:
        """Whether it is for all of its namespace."""
        return not self.selector and not self.targets


def read_telemetry(root: Field) -> Telemetry:
    """telemetry.istio.io Telemetry."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        return Telemetry(meta, {}, ())
    spec.only(["accessLogging", "metrics", "selector", "targetRef", "targetRefs", "tracing"])
    custom: list[str] = []
    metrics = tuple(_metrics(place, custom) for place in _some(spec, "metrics"))
    tracing = tuple(map(_tracing, _some(spec, "tracing")))
    if len(tracing) > 1:
        spec.fault("tracing: more than one entry is not supported, as in Istio")
    return Telemetry(
        meta,
        read_selector(spec),
        read_targets(spec),
        metrics,
        tuple(map(_access_logging, _some(spec, "accessLogging"))),
        tracing,
        tuple(custom),
        any(place.sub("reportingInterval") is not None for place in spec.each("metrics")),
    )


def _some(parent: Field, name: str) -> list[Field]:
    found = parent.each(name)
    if len(found) > _MOST:
        parent.fault(f"{name}: more than {_MOST} entries")
    return found[:_MOST]


def _providers(place: Field) -> tuple[str, ...]:
    found = []
    for each in _some(place, "providers"):
        each.only(["name"])
        name = each.text("name")
        if not name:
            each.fault("name is needed")
        found.append(name)
    return tuple(found)


def _mode(place: Field) -> Mode:
    match = place.sub("match")
    said = read_choice(match, "mode", *Mode) if match is not None else ""
    return Mode(said) if said in list(Mode) else Mode.BOTH


def _flag(place: Field, name: str) -> bool | None:
    return place.flag(name) if place.sub(name) is not None else None


def _checked(place: Field | None, parse: Callable[[str], object]) -> str:
    """The text of a place, which `parse` can read."""
    text = place.as_text() if place is not None else ""
    if place is not None and text:
        try:
            parse(text)
        except ValueError as error:
            place.fault(str(error))
    return text


def _access_logging(place: Field) -> AccessLogging:
    place.only(["disabled", "filter", "match", "providers"])
    if (match := place.sub("match")) is not None:
        match.only(["mode"])
    expression, wanted = "", place.sub("filter")
    if wanted is not None:
        wanted.only(["expression"])
        expression = _checked(wanted.sub("expression"), Expression)
    return AccessLogging(_providers(place), _mode(place), _flag(place, "disabled"), expression)


def _metrics(place: Field, custom: list[str]) -> Metrics:
    place.only(["overrides", "providers", "reportingInterval"])
    if (interval := place.sub("reportingInterval")) is not None:
        interval.as_text()
    overrides = (_override(each, custom) for each in _some(place, "overrides"))
    return Metrics(_providers(place), tuple(each for each in overrides if each is not None))


def _override(place: Field, custom: list[str]) -> MetricOverride | None:
    """None: of a metric that there is not here."""
    place.only(["disabled", "match", "tagOverrides"])
    metric, match = ALL_METRICS, place.sub("match")
    if match is not None:
        match.only(["customMetric", "metric", "mode"])
        metric = read_choice(match, "metric", ALL_METRICS, *METRICS) or ALL_METRICS
        if (name := match.text("customMetric")) and match.sub("metric") is not None:
            match.fault("metric and customMetric exclude each other")
        elif name:
            custom.append(name)
            metric = ""
    tags, below = [], place.sub("tagOverrides")
    if below is not None:
        tags = [_tag(name, each) for name, each in below.pairs()]
        if len(tags) > _MOST:
            below.fault(f"more than {_MOST} entries")
    if not metric:
        return None
    return MetricOverride(metric, _mode(place), _flag(place, "disabled"), tuple(tags))


def _tag(name: str, place: Field) -> TagOverride:
    place.only(["operation", "value"])
    if not _LABEL.fullmatch(name):
        place.fault("not the name of a label: letters, digits and '_'")
    remove = read_choice(place, "operation", "UPSERT", "REMOVE") == "REMOVE"
    value = _checked(place.sub("value"), Expression)
    if remove and value:
        place.fault("value: with the operation REMOVE there is none")
    if not remove and not value:
        place.fault("value is needed, an expression of CEL; or the operation REMOVE")
    return TagOverride(name, remove, "" if remove else value)


def _tracing(place: Field) -> Tracing:
    place.only(
        ["customTags", "disableContextPropagation", "disableSpanReporting", "enableIstioTags", "match",
         "providers", "randomSamplingPercentage", "useRequestIdForTraceSampling"]
    )  # fmt: skip
    if (match := place.sub("match")) is not None:
        match.only(["mode"])
    providers = _providers(place)
    if len(providers) > 1:
        place.fault("providers: more than one is not supported, as in Istio")
    tags, below = None, place.sub("customTags")
    if below is not None:
        tags = tuple(_custom_tag(name, each) for name, each in below.pairs())
        if len(tags) > _MOST:
            below.fault(f"more than {_MOST} entries")
    return Tracing(
        providers,
        _mode(place),
        _percentage(place.sub("randomSamplingPercentage")),
        _flag(place, "disableSpanReporting"),
        tags,
        _flag(place, "useRequestIdForTraceSampling"),
        _flag(place, "enableIstioTags"),
        _flag(place, "disableContextPropagation"),
    )


def _percentage(place: Field | None) -> float | None:
    value = place.as_decimal() if place is not None else None
    if place is not None and value is not None and not 0 <= value <= 100:
        place.fault("a percentage is from 0 to 100")
        return None
    return value


_TAG_FIELDS: Final = {
    TagSource.LITERAL: ("value",),
    TagSource.ENVIRONMENT: ("defaultValue", "name"),
    TagSource.HEADER: ("defaultValue", "name"),
    TagSource.FORMATTER: ("value",),
}


def _custom_tag(name: str, place: Field) -> CustomTag:
    place.only(list(TagSource))
    found = [(kind, below) for kind in TagSource if (below := place.sub(kind)) is not None]
    if not name or len(found) != 1:
        place.fault(f"a tag has a name, and one of {', '.join(TagSource)}")
        return CustomTag(name, TagSource.LITERAL, "")
    kind, below = found[0]
    below.only(_TAG_FIELDS[kind])
    value = below.text("value") or below.text("name")
    if not value:
        below.fault(f"{_TAG_FIELDS[kind][-1]} is needed")
    elif kind is TagSource.HEADER and not _HEADER.fullmatch(value):
        below.fault("name must be the name of a header")
    elif kind is TagSource.FORMATTER:
        _checked(below.sub("value"), parse_format)
    return CustomTag(name, kind, value, below.text("defaultValue"))
