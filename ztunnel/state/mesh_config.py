"""Istio's MeshConfig, read for what waypoints need of it. What else stands in it is passed over: it is the
mesh's, and not ours alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from re import sub
from typing import Final

from ztunnel.errors import Fault
from ztunnel.l7.path import SPELLINGS
from ztunnel.model.mesh_defaults import CustomTag, LogEncoding, MeshDefaults, TagSource, TracingDefaults
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.traffic import NO_TRAFFIC, Traffic
from ztunnel.state.field import Field
from ztunnel.state.manifest import Notes, TooLarge, YamlField, compose
from ztunnel.state.numbers import read_count
from ztunnel.state.provider import read_provider
from ztunnel.state.retry import RETRY_FIELDS, read_retries
from ztunnel.state.traffic_policy import TRAFFIC_FIELDS, read_baseline

MOST_PROVIDERS: Final = 512
_SILENT: Final = MeshDefaults()
_KNOWN: Final = ("extensionProviders", "defaultProviders", "enableTracing", "accessLogFile",
                 "accessLogEncoding", "accessLogFormat", "defaultConfig", "pathNormalization",
                 "defaultHttpRetryPolicy", "defaultTrafficPolicy")  # fmt: skip
_NOT_DONE: Final = ("connectTimeout", "defaultInboundHttpRetryPolicy", "h2UpgradePolicy",
                    "localityLbSetting", "tcpKeepalive", "zoneAwareLbSetting")  # fmt: skip
"""What says how servers are called and nothing is done with."""
_FREE: Final = ("labels", "customTags", "includeAdditionalHeadersInCheck")
"""Whose keys are anybody's."""
_IN_PROTO: Final = {
    sub("[A-Z]", lambda found: "_" + found[0].lower(), name): name
    for name in (
        *_KNOWN, *_NOT_DONE, *RETRY_FIELDS, *TRAFFIC_FIELDS, "accessLogging", "allowPartialMessage",
        "clearRouteCache", "customTags", "defaultValue",
        "dynatraceSampler", "enableIstioTags", "envName", "envoyExtAuthzGrpc", "envoyExtAuthzHttp",
        "envoyFileAccessLog", "envoyHttpAls", "envoyOtelAls", "envoyTcpAls", "failOpen",
        "headersToDownstreamOnAllow", "headersToDownstreamOnDeny", "headersToUpstreamOnAllow",
        "includeAdditionalHeadersInCheck", "includeHeadersInCheck", "includeRequestBodyInCheck",
        "includeRequestHeadersInCheck", "initialMetadata", "logFormat", "logName", "maxPathTagLength",
        "maxRequestBytes", "maxTagLength", "omitEmptyValues", "packAsBytes", "pathPrefix",
        "resourceDetectors", "serviceAttributeEnrichment", "statusOnError", "tlsSettings",
        "traceContextOption",
    )
} | {
    "consecutive_5xx_errors": "consecutive5xxErrors",
    "enable_64bit_trace_id": "enable64bitTraceId",
}  # fmt: skip
"""The names of fields as the messages have them: istiod reads MeshConfig as JSON of Protocol Buffers, which
takes both, and Istio's documentation writes `resource_detectors`."""

_TAGS: Final = {
    TagSource.LITERAL: "value",
    TagSource.ENVIRONMENT: "name",
    TagSource.HEADER: "name",
    TagSource.FORMATTER: "value",
}


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """What a text says: providers by name, and what counts for the whole mesh.

    `faulty` are the names of providers that are wrong, `defaults` is None where anything else is, `traffic`
    then says nothing, and `faults` are what is wrong, with the field and the line of the text. Not `whole`:
    the text as such cannot be read. `unread` are fields that are not acted on.
    """

    providers: Mapping[str, ExtensionProvider] = field(default_factory=dict)
    defaults: MeshDefaults | None = _SILENT
    traffic: Traffic = NO_TRAFFIC
    faulty: frozenset[str] = frozenset()
    faults: tuple[Fault, ...] = ()
    whole: bool = True
    unread: tuple[str, ...] = ()


def read_mesh_config(text: str) -> MeshConfig:
    """The MeshConfig of a text of YAML."""
    notes = Notes()
    try:
        root = compose(text, notes)
        if root is not None and root.is_mapping():
            root.rename(_IN_PROTO, _FREE)
            root.note_duplicates()
        if notes.faults:
            return MeshConfig(faults=tuple(notes.faults), whole=False)
        return _read(root, notes) if root is not None else MeshConfig()
    except TooLarge:
        return MeshConfig(faults=(Fault("", 1, "", "too large"),), whole=False)


def _read(root: YamlField, notes: Notes) -> MeshConfig:
    root.only((*_KNOWN, *_NOT_DONE), similar_to=_KNOWN)
    providers, faulty = dict[str, ExtensionProvider](), set[str]()
    for number, place in enumerate(root.each("extensionProviders")):
        before = len(notes.faults)
        if number >= MOST_PROVIDERS:
            place.fault(f"more than {MOST_PROVIDERS} providers")
            break
        one = read_provider(place)
        if one.name in providers:
            place.fault(f"a provider of the name {one.name!r} stands before: that one counts")
        elif len(notes.faults) > before:
            faulty.add(one.name)
        else:
            providers[one.name] = one
    before = len(notes.faults)
    defaults = _defaults(root)
    traffic, unread = read_baseline(root)
    wrong = len(notes.faults) > before
    return MeshConfig(
        providers,
        None if wrong else defaults,
        NO_TRAFFIC if wrong else traffic,
        frozenset(faulty - providers.keys()),
        tuple(notes.faults),
        unread=(*(name for name in _NOT_DONE if root.sub(name) is not None), *unread),
    )


def _defaults(root: Field) -> MeshDefaults:
    named, config = root.sub("defaultProviders"), root.sub("defaultConfig")
    tracing = config.sub("tracing") if config is not None else None
    encoding = root.text("accessLogEncoding", LogEncoding.TEXT)
    if encoding not in list(LogEncoding):
        root.fault(f"accessLogEncoding must be one of {', '.join(LogEncoding)}")
        encoding = LogEncoding.TEXT
    paths = root.sub("pathNormalization")
    spelling = paths.text("normalization") if paths is not None else ""
    if paths is not None:
        paths.only(("normalization",))
        if spelling not in ("", *SPELLINGS):
            paths.fault(f"normalization must be one of {', '.join(SPELLINGS)}")
            spelling = ""
    if named is not None:
        named.only(("accessLogging", "metrics", "tracing"))
    return MeshDefaults(
        _names(named, "accessLogging"),
        _names(named, "metrics"),
        _names(named, "tracing"),
        root.text("accessLogFile"),
        LogEncoding(encoding),
        root.text("accessLogFormat"),
        root.flag("enableTracing"),
        _tracing(tracing) if tracing is not None else TracingDefaults(),
        spelling,
        _retries(root),
    )


def _retries(root: Field) -> RetryDefault | None:
    """istiod has each try take no longer than `perTryTimeout` says, too (route.go), though the field's
    description leaves it out."""
    place = root.sub("defaultHttpRetryPolicy")
    if place is None:
        return None
    said = read_retries(place)
    return RetryDefault(said.retry, said.try_seconds)


def _names(parent: Field | None, name: str) -> tuple[str, ...]:
    places = parent.each(name) if parent is not None else ()
    return tuple(dict.fromkeys(place.as_text() for place in places))


def _tracing(it: Field) -> TracingDefaults:
    known = ("sampling", "maxPathTagLength", "customTags", "zipkin", "tlsSettings", "enableIstioTags")
    it.only(known, similar_to=known)
    sampling, zipkin, tags = it.sub("sampling"), it.sub("zipkin"), it.sub("customTags")
    percent = sampling.as_decimal() if sampling is not None else None
    if sampling is not None and percent is not None and not 0 <= percent <= 100:
        sampling.fault("a percentage is from 0 to 100")
    made = [_tag(name, place) for name, place in tags.pairs()] if tags is not None else []
    address = zipkin.text("address") if zipkin is not None else ""
    return TracingDefaults(percent, read_count(it, "maxPathTagLength"), tuple(made), address)


def _tag(name: str, place: Field) -> CustomTag:
    place.only(tuple(_TAGS))
    for source, key in _TAGS.items():
        below = place.sub(source)
        if below is not None:
            below.only((key, "defaultValue") if key == "name" else (key,))
            text = below.text(key)
            if not text:
                below.fault(f"needs a {key}")
            return CustomTag(name, source, text, below.text("defaultValue"))
    place.fault(f"needs one of {', '.join(_TAGS)}")
    return CustomTag(name, TagSource.LITERAL, "")
