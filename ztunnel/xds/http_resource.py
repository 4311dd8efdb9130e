"""Resources of our own types as messages of ztunnel.http: how each kind is read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpPolicy
from ztunnel.model.jwt import JwtPolicy
from ztunnel.model.labels import WorkloadLabels
from ztunnel.model.mesh_defaults import MeshDefaults
from ztunnel.model.provider import ExtensionProvider
from ztunnel.model.rate_limit import RateLimitPolicy
from ztunnel.model.route import Routes
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.telemetry import Telemetry
from ztunnel.xds.credential import parse_credential, render_credential
from ztunnel.xds.http_policy import parse_http_policy, render_http_policy
from ztunnel.xds.jwt_policy import parse_jwt_policy, render_jwt_policy
from ztunnel.xds.labels import parse_labels, render_labels
from ztunnel.xds.mesh import parse_defaults, parse_provider, render_defaults, render_provider
from ztunnel.xds.pb import (
    credential_pb2,
    http_policy_pb2,
    jwt_policy_pb2,
    labels_pb2,
    mesh_pb2,
    rate_limit_pb2,
    routes_pb2,
    telemetry_pb2,
    traffic_pb2,
)
from ztunnel.xds.rate_limit import parse_rate_limit, render_rate_limit
from ztunnel.xds.routes import parse_routes, render_routes
from ztunnel.xds.telemetry import parse_telemetry, render_telemetry
from ztunnel.xds.traffic import parse_traffic, render_traffic


@dataclass(frozen=True, slots=True)
class Codec:
    """A type on the wire. `parse` raises PeerError."""

    message: type[Message]
    render: Callable[[Any], Message]
    parse: Callable[[Any], Any]


CODECS: Final[Mapping[type[Any], Codec]] = {
    ExtensionProvider: Codec(mesh_pb2.ExtensionProvider, render_provider, parse_provider),
    MeshDefaults: Codec(mesh_pb2.MeshDefaults, render_defaults, parse_defaults),
    Credential: Codec(credential_pb2.Credential, render_credential, parse_credential),
    HttpPolicy: Codec(http_policy_pb2.AuthorizationPolicy, render_http_policy, parse_http_policy),
    JwtPolicy: Codec(jwt_policy_pb2.RequestAuthentication, render_jwt_policy, parse_jwt_policy),
    RateLimitPolicy: Codec(rate_limit_pb2.RateLimitPolicy, render_rate_limit, parse_rate_limit),
    WorkloadLabels: Codec(labels_pb2.WorkloadLabels, render_labels, parse_labels),
    Routes: Codec(routes_pb2.Routes, render_routes, parse_routes),
    Telemetry: Codec(telemetry_pb2.Telemetry, render_telemetry, parse_telemetry),
    ServiceTraffic: Codec(traffic_pb2.ServiceTraffic, render_traffic, parse_traffic),
}
