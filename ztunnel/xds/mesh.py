"""Providers and defaults of the mesh as messages of ztunnel.http, both ways.

A message that says something which makes no sense here is refused as a whole: the version before stays in
force.
"""

from __future__ import annotations

from typing import Any, Final

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import TextKind, TextMatch
from ztunnel.model.mesh_defaults import (
    CustomTag,
    LogEncoding,
    MeshDefaults,
    TagSource,
    TracingDefaults,
)
from ztunnel.model.provider import (
    BodyCheck,
    ExtAuthz,
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
from ztunnel.model.route_policy import RetryDefault
from ztunnel.xds.pb import mesh_pb2 as pb
from ztunnel.xds.record import (
    LISTED,
    OPTIONAL,
    PAIRS,
    PLAIN,
    EnumOf,
    Many,
    Maybe,
    OneOf,
    Plain,
    Record,
)
from ztunnel.xds.routes import RETRY

MOST_SECONDS: Final = 86_400.0


class _TextKind:
    """How a name is compared."""

    def put(self, message: Any, name: str, value: Any) -> None:
        """Write it."""
        setattr(message, name, value.value)

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError: there is none of that text."""
        return TextKind(getattr(untrusted, name))


class _Between(Plain):
    """A number from one to another."""

    def __init__(self, least: float, most: float) -> None:
        self._least, self._most = least, most

    def get(self, untrusted: Any, name: str) -> Any:
        """Read it. Raises ValueError."""
        found = getattr(untrusted, name)
        if not self._least <= found <= self._most:
            raise ValueError(f"{name}: from {self._least} to {self._most}, not {found}")
        return found


_PORT = Record(ServicePort, pb.ServicePort, hostname=PLAIN, port=_Between(0, 65535), namespace=PLAIN)
_NAME_MATCH = Record(TextMatch, pb.HeaderMatch, kind=_TextKind(), text=PLAIN)
_BODY = Record(BodyCheck, pb.BodyCheck, most_bytes=PLAIN, partial=PLAIN, as_bytes=PLAIN)
_SECONDS = _Between(0, MOST_SECONDS)
_EXT_AUTHZ: Final = Record(
    ExtAuthz,
    pb.ExtAuthz,
    speech=EnumOf(Speech),
    service=_PORT,
    timeout_seconds=_Between(0.001, MOST_SECONDS),
    fail_open=PLAIN,
    error_status=_Between(200, 599),
    path_prefix=PLAIN,
    include_headers=Many(_NAME_MATCH),
    added_headers=PAIRS,
    body=Maybe(_BODY),
    upstream_on_allow=Many(_NAME_MATCH),
    downstream_on_deny=Many(_NAME_MATCH),
    downstream_on_allow=Many(_NAME_MATCH),
    clear_route_cache=PLAIN,
)
_FORMAT: Final = Record(LogFormat, pb.LogFormat, text=PLAIN, labels=PAIRS)
_FILE: Final = Record(FileLog, pb.FileLog, path=PLAIN, format=_FORMAT, omit_empty=PLAIN)
_OTEL_LOG: Final = Record(OtelLog, pb.OtelLog, service=_PORT, name=PLAIN, format=_FORMAT)
_SENT: Final = Record(SentHeader, pb.SentHeader, name=PLAIN, value=PLAIN, variable=PLAIN)
_OTEL: Final = Record(
    OtelTraces,
    pb.OtelTraces,
    service=_PORT,
    path=PLAIN,
    timeout_seconds=_SECONDS,
    headers=Many(_SENT),
    most_tag_length=PLAIN,
    from_environment=PLAIN,
    by_conventions=PLAIN,
)
_ZIPKIN: Final = Record(
    Zipkin,
    pb.Zipkin,
    service=_PORT,
    path=PLAIN,
    timeout_seconds=_SECONDS,
    headers=Many(_SENT),
    most_tag_length=PLAIN,
    short_ids=PLAIN,
    w3c_too=PLAIN,
)
_PROVIDER: Final = Record(
    ExtensionProvider,
    pb.ExtensionProvider,
    name=PLAIN,
    what=OneOf(
        ext_authz=(ExtAuthz, _EXT_AUTHZ),
        file_log=(FileLog, _FILE),
        otel_log=(OtelLog, _OTEL_LOG),
        otel_traces=(OtelTraces, _OTEL),
        zipkin=(Zipkin, _ZIPKIN),
        prometheus=(Prometheus, Record(Prometheus, pb.Prometheus)),
        unsupported=(Unsupported, Record(Unsupported, pb.UnsupportedProvider, kind=PLAIN)),
    ),
)
_TAG: Final = Record(CustomTag, pb.CustomTag, name=PLAIN, source=EnumOf(TagSource), text=PLAIN, default=PLAIN)
_SPANS: Final = Record(
    TracingDefaults,
    pb.TracingDefaults,
    percent=OPTIONAL,
    most_tag_length=PLAIN,
    tags=Many(_TAG),
    zipkin=PLAIN,
)
_DEFAULTS: Final = Record(
    MeshDefaults,
    pb.MeshDefaults,
    access_logging=LISTED,
    metrics=LISTED,
    tracing=LISTED,
    log_file=PLAIN,
    log_encoding=EnumOf(LogEncoding),
    log_format=PLAIN,
    traced=PLAIN,
    spans=_SPANS,
    path_normalization=PLAIN,
    retries=Maybe(Record(RetryDefault, pb.RetryDefault, retry=Maybe(RETRY), try_seconds=PLAIN)),
)


def render_provider(provider: ExtensionProvider) -> pb.ExtensionProvider:
    """The message of a provider."""
    made: pb.ExtensionProvider = _PROVIDER.render(provider)
    return made


def parse_provider(untrusted: pb.ExtensionProvider) -> ExtensionProvider:
    """The provider of a message.

    Raises:
        PeerError: no name, or something that makes no sense.
    """
    if not untrusted.name:
        raise PeerError("a provider without a name")
    return _PROVIDER.parse(untrusted)


def render_defaults(defaults: MeshDefaults) -> pb.MeshDefaults:
    """The message of what counts for the whole mesh."""
    made: pb.MeshDefaults = _DEFAULTS.render(defaults)
    return made


def parse_defaults(untrusted: pb.MeshDefaults) -> MeshDefaults:
    """What a message says. Raises PeerError: it makes no sense."""
    return _DEFAULTS.parse(untrusted)
