"""An entry of MeshConfig's `extensionProviders`, with the checks of istiod (istio/istio
pkg/config/validation/extensionprovider.go, pilot/pkg/security/authz/builder/extauthz.go)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from re import compile as pattern
from typing import Final

from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.provider import (
    BodyCheck,
    ExtAuthz,
    Extension,
    ExtensionProvider,
    FileLog,
    LogFormat,
    OtelLog,
    OtelTraces,
    Prometheus,
    SentHeader,
    ServicePort,
    Speech,
    Unsupported,
    Zipkin,
)
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field, Kind
from ztunnel.state.numbers import read_count

MOST_BODY: Final = 16 << 20
"""Bytes of a body that an authorizer may be shown: a waypoint keeps them while it waits."""
_TIMEOUT_SECONDS: Final = 600.0
_DROPPED: Final = ("envoyHttpAls", "envoyTcpAls", "lightstep", "datadog", "stackdriver", "opencensus",
                   "skywalking", "sds")  # fmt: skip
_HOST: Final = pattern(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_HEADER: Final = pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_PATH: Final = pattern(r"/[!-\"$->@-~]*")
_DIGITS: Final = pattern(r"[0-9]{1,9}")
_STATUS: Final = pattern(r"[1-5][0-9][0-9]")
_SERVICE: Final = ("service", "port")


def read_provider(place: Field) -> ExtensionProvider:
    """One provider: its name, and one of the kinds."""
    place.only(("name", *_READERS, *_DROPPED))
    name = place.text("name")
    if not name:
        place.fault("needs a name")
    found = [(kind, below) for kind in (*_READERS, *_DROPPED) if (below := place.sub(kind)) is not None]
    if len(found) != 1:
        if not found and len(list(place.pairs())) > 1:  # a kind that is misspelt has its fault
            return ExtensionProvider(name, Unsupported(""))
        place.fault(f"needs one kind of provider, has {' and '.join(kind for kind, _ in found) or 'none'}")
        return ExtensionProvider(name, Unsupported(""))
    kind, below = found[0]
    return ExtensionProvider(name, _READERS[kind](below) if kind in _READERS else Unsupported(kind))


def _http_authorizer(it: Field) -> Extension:
    it.only(
        (
            *_SERVICE, "timeout", "failOpen", "statusOnError", "pathPrefix", "includeHeadersInCheck",
            "includeRequestHeadersInCheck", "includeAdditionalHeadersInCheck", "includeRequestBodyInCheck",
            "headersToUpstreamOnAllow", "headersToDownstreamOnDeny", "headersToDownstreamOnAllow",
            "clearRouteCache",
        )
    )  # fmt: skip
    # `includeHeadersInCheck` is the old name, and counts where the new one is silent.
    includes = it.each("includeRequestHeadersInCheck") or it.each("includeHeadersInCheck")
    prefix = _path(it, "pathPrefix", "")
    return ExtAuthz(
        Speech.HTTP,
        _service(it),
        read_duration(it, "timeout", 0.001) or _TIMEOUT_SECONDS,
        it.flag("failOpen"),
        _status(it),
        "" if prefix == "/" else prefix,
        tuple(map(_header_match, includes)),
        _added(it),
        _body(it),
        tuple(map(_header_match, it.each("headersToUpstreamOnAllow"))),
        tuple(map(_header_match, it.each("headersToDownstreamOnDeny"))),
        tuple(map(_header_match, it.each("headersToDownstreamOnAllow"))),
        it.flag("clearRouteCache"),
    )


def _grpc_authorizer(it: Field) -> Extension:
    it.only(
        (*_SERVICE, "timeout", "failOpen", "statusOnError", "includeRequestBodyInCheck", "clearRouteCache")
    )
    return ExtAuthz(
        Speech.GRPC,
        _service(it),
        read_duration(it, "timeout", 0.001) or _TIMEOUT_SECONDS,
        it.flag("failOpen"),
        _status(it),
        body=_body(it),
        clear_route_cache=it.flag("clearRouteCache"),
    )


def _file_log(it: Field) -> Extension:
    it.only(("path", "logFormat", "omitEmptyValues"))
    return FileLog(it.text("path") or "/dev/stdout", _format(it), it.flag("omitEmptyValues"))


def _otel_log(it: Field) -> Extension:
    it.only((*_SERVICE, "logName", "logFormat"))
    return OtelLog(_service(it), it.text("logName"), _format(it))


def _otel_traces(it: Field) -> Extension:
    it.only(
        (
            *_SERVICE, "maxTagLength", "http", "grpc", "resourceDetectors", "serviceAttributeEnrichment",
            "dynatraceSampler",
        )
    )  # fmt: skip
    http, grpc, detectors = it.sub("http"), it.sub("grpc"), it.sub("resourceDetectors")
    service, length = _service(it), read_count(it, "maxTagLength", 256) or 256
    by_environment = detectors is not None and detectors.sub("environment") is not None
    conventions = _by_conventions(it)
    if it.sub("dynatraceSampler") is not None:
        it.fault("dynatraceSampler is not supported")
    if http is not None and grpc is not None:
        it.fault("http and grpc exclude each other")
    if http is not None:
        http.only(("path", "timeout", "headers"))
        path, seconds = _path(http, "path", ""), read_duration(http, "timeout") or 0.0
        if not path:
            http.fault("needs a path")
        sent = _sent(http, "headers")
        return OtelTraces(service, path, seconds, sent, length, by_environment, conventions)
    if grpc is None:
        return OtelTraces(
            service,
            most_tag_length=length,
            from_environment=by_environment,
            by_conventions=conventions,
        )
    grpc.only(("timeout", "initialMetadata"))
    seconds = read_duration(grpc, "timeout") or 0.0
    sent = _sent(grpc, "initialMetadata")
    return OtelTraces(service, "", seconds, sent, length, by_environment, conventions)


def _by_conventions(it: Field) -> bool:
    """`serviceAttributeEnrichment`: whether who reports is told by OpenTelemetry's conventions."""
    found = it.text("serviceAttributeEnrichment", "ISTIO_CANONICAL")
    if found not in ("ISTIO_CANONICAL", "OTEL_SEMANTIC_CONVENTIONS"):
        it.fault("serviceAttributeEnrichment must be one of ISTIO_CANONICAL, OTEL_SEMANTIC_CONVENTIONS")
    return found == "OTEL_SEMANTIC_CONVENTIONS"


def _zipkin(it: Field) -> Extension:
    it.only(
        (
            *_SERVICE, "maxTagLength", "enable64bitTraceId", "path", "timeout", "headers",
            "traceContextOption",
        )
    )  # fmt: skip
    option = it.text("traceContextOption", "USE_B3")
    if option not in ("USE_B3", "USE_B3_WITH_W3C_PROPAGATION"):
        it.fault("traceContextOption must be one of USE_B3, USE_B3_WITH_W3C_PROPAGATION")
    return Zipkin(
        _service(it),
        _path(it, "path", "/api/v2/spans"),
        read_duration(it, "timeout") or 0.0,
        _sent(it, "headers"),
        read_count(it, "maxTagLength", 256) or 256,
        it.flag("enable64bitTraceId"),
        option == "USE_B3_WITH_W3C_PROPAGATION",
    )


def _prometheus(it: Field) -> Extension:
    it.only(())
    return Prometheus()


_READERS: Final[Mapping[str, Callable[[Field], Extension]]] = {
    "envoyExtAuthzHttp": _http_authorizer,
    "envoyExtAuthzGrpc": _grpc_authorizer,
    "envoyFileAccessLog": _file_log,
    "envoyOtelAls": _otel_log,
    "opentelemetry": _otel_traces,
    "zipkin": _zipkin,
    "prometheus": _prometheus,
}


def _service(it: Field) -> ServicePort:
    """`[namespace/]hostname` and the port."""
    written, place = it.text("service"), it.sub("port")
    namespace, slash, hostname = written.rpartition("/")
    if not _HOST.fullmatch(hostname) or (slash and not _HOST.fullmatch(namespace)):
        (it.sub("service") or it).fault(f"service must be [namespace/]hostname, is {written[:80]!r}")
    port = _number(place)
    if port is None or not 0 < port < 65536:
        (place or it).fault("port must be a number from 1 to 65535")
        port = 0
    return ServicePort(hostname, port, namespace)


def _number(place: Field | None) -> int | None:
    """A number, in quotes as well: istiod reads MeshConfig as JSON of Protocol Buffers, which takes both."""
    if place is None:
        return None
    if place.kind is Kind.TEXT and _DIGITS.fullmatch(text := place.as_text()):
        return int(text)
    return place.as_number()


def _path(it: Field, name: str, default: str) -> str:
    place = it.sub(name)
    path = it.text(name, default)
    if place is not None and path and not _PATH.fullmatch(path):
        place.fault("must begin with / and have neither spaces nor ? nor #")
        return default
    return path or default


def _status(it: Field) -> int:
    """That of errors: 403, unless said."""
    place = it.sub("statusOnError")
    text = it.text("statusOnError")
    if not text or place is None:
        return 403
    if not _STATUS.fullmatch(text) or int(text) < 200:
        place.fault(f"must be an HTTP status from 200 to 599, in quotes, is {text[:20]!r}")
        return 403
    return int(text)


def _header_match(place: Field) -> TextMatch:
    """A name of a header, `abc*` or `*abc`, in small letters."""
    text = place.as_text().lower()
    kind = TextKind.EXACT
    if text == "*":
        return TextMatch(TextKind.PREFIX)
    if text.endswith("*"):
        kind, text = TextKind.PREFIX, text[:-1]
    elif text.startswith("*"):
        kind, text = TextKind.SUFFIX, text[1:]
    if not _HEADER.fullmatch(text) or "*" in text:
        place.fault("must be the name of a header, or one with * at its begin or end")
    return TextMatch(kind, text)


def _added(it: Field) -> tuple[tuple[str, str], ...]:
    """Headers by their names in small letters."""
    place = it.sub("includeAdditionalHeadersInCheck")
    made = []
    for name, value in place.pairs() if place is not None else ():
        text = value.as_text()
        if not _HEADER.fullmatch(name):
            value.fault(f"no name of a header: {name[:80]!r}")
        if "\r" in text or "\n" in text or "\0" in text:
            value.fault("no value of a header: it has a line's end or NUL in it")
        made.append((name.lower(), text.strip()))
    return tuple(made)


def _body(it: Field) -> BodyCheck | None:
    place = it.sub("includeRequestBodyInCheck")
    if place is None:
        return None
    place.only(("maxRequestBytes", "allowPartialMessage", "packAsBytes"))
    most = _number(place.sub("maxRequestBytes"))
    if most is None or not 0 < most <= MOST_BODY:
        most = 1
        place.fault(f"maxRequestBytes must be a number from 1 to {MOST_BODY}")
    return BodyCheck(most, place.flag("allowPartialMessage"), place.flag("packAsBytes"))


def _format(it: Field) -> LogFormat:
    place = it.sub("logFormat")
    if place is None:
        return LogFormat()
    place.only(("text", "labels"))
    labels = place.sub("labels")
    pairs = labels.pairs() if labels is not None else ()
    return LogFormat(place.text("text"), tuple((name, value.as_text()) for name, value in pairs))


def _sent(it: Field, name: str) -> tuple[SentHeader, ...]:
    made = []
    for place in it.each(name):
        place.only(("name", "value", "envName"))
        one = SentHeader(place.text("name"), place.text("value"), place.text("envName"))
        if not _HEADER.fullmatch(one.name):
            place.fault(f"no name of a header: {one.name[:80]!r}")
        if one.value and one.variable:
            place.fault("value and envName exclude each other")
        made.append(one)
    return tuple(made)
