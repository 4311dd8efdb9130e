"""The routes of a service as messages of ztunnel.http, both ways.

A message that says something which makes no sense here is refused as a whole: the version before stays in
force.
"""

from __future__ import annotations

from typing import Final, TypeVar

from ztunnel.errors import PeerError
from ztunnel.model.route import ConnectionRule, Routes, RouteSource, Rule
from ztunnel.model.route_action import (
    Destination,
    DirectResponse,
    Edits,
    Forward,
    HeaderEdits,
    PathEdit,
    PathEditKind,
    Redirect,
    RedirectPort,
    Refusal,
    Rewrite,
)
from ztunnel.model.route_match import ClaimMatch, FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.route_policy import Abort, Cors, Delay, Fault, Mirror, Retry, RetryOn
from ztunnel.model.service import ServiceName
from ztunnel.xds.pb import routes_pb2 as pb
from ztunnel.xds.record import (
    LISTED,
    NETWORKS,
    OPTIONAL,
    PAIRS,
    PLAIN,
    EnumOf,
    Many,
    Maybe,
    OneOf,
    Record,
    SetOf,
)

T = TypeVar("T")

_NAME: Final = Record(ServiceName, pb.ServiceName, namespace=PLAIN, hostname=PLAIN)
_SOURCE: Final = Record(RouteSource, pb.RouteSource, kind=PLAIN, namespace=PLAIN, name=PLAIN)

_TEXT: Final = Record(TextMatch, pb.RouteText, kind=EnumOf(TextKind), text=PLAIN, ignore_case=PLAIN)
_FIELD: Final = Record(FieldMatch, pb.RouteField, name=PLAIN, match=_TEXT, negated=PLAIN)
_CLAIM: Final = Record(ClaimMatch, pb.RouteClaim, path=LISTED, match=_TEXT, negated=PLAIN)
_MATCH: Final = Record(
    Match,
    pb.RouteMatch,
    name=PLAIN,
    ports=LISTED,
    path=Maybe(_TEXT),
    method=Maybe(_TEXT),
    scheme=Maybe(_TEXT),
    authority=Maybe(_TEXT),
    headers=Many(_FIELD),
    query=Many(_FIELD),
    claims=Many(_CLAIM),
)

_HEADER_EDITS: Final = Record(HeaderEdits, pb.HeaderEdits, remove=LISTED, set=PAIRS, add=PAIRS)
_EDITS: Final = Record(Edits, pb.Edits, request=_HEADER_EDITS, response=_HEADER_EDITS)
_PATH: Final = Record(PathEdit, pb.PathEdit, kind=EnumOf(PathEditKind), text=PLAIN, pattern=PLAIN)
_REWRITE: Final = Record(Rewrite, pb.Rewrite, path=Maybe(_PATH), authority=PLAIN)
_REFUSAL: Final = Record(Refusal, pb.Refusal, status=PLAIN, reason=PLAIN)
_DESTINATION: Final = Record(
    Destination,
    pb.Destination,
    service=_NAME,
    port=PLAIN,
    subset=PLAIN,
    labels=PAIRS,
    weight=PLAIN,
    edits=_EDITS,
    authority=PLAIN,
    refusal=Maybe(_REFUSAL),
)
_FORWARD: Final = Record(Forward, pb.Forward, destinations=Many(_DESTINATION))
_REDIRECT: Final = Record(
    Redirect,
    pb.Redirect,
    status=PLAIN,
    scheme=PLAIN,
    authority=PLAIN,
    path=Maybe(_PATH),
    port=PLAIN,
    port_from=EnumOf(RedirectPort),
)
_DIRECT: Final = Record(DirectResponse, pb.DirectResponse, status=PLAIN, body=PLAIN)

RETRY: Final = Record(
    Retry,
    pb.Retry,
    attempts=PLAIN,
    on=SetOf(RetryOn),
    codes=LISTED,
    base_seconds=PLAIN,
    most_seconds=PLAIN,
    elsewhere=PLAIN,
    remote=PLAIN,
)
_DELAY: Final = Record(Delay, pb.Delay, seconds=PLAIN, per_million=PLAIN)
_ABORT: Final = Record(Abort, pb.Abort, per_million=PLAIN, status=PLAIN, grpc_status=OPTIONAL)
_FAULT: Final = Record(Fault, pb.Fault, delay=Maybe(_DELAY), abort=Maybe(_ABORT))
_MIRROR: Final = Record(Mirror, pb.Mirror, destination=_DESTINATION, per_million=PLAIN)
_CORS: Final = Record(
    Cors,
    pb.Cors,
    origins=Many(_TEXT),
    methods=LISTED,
    headers=LISTED,
    exposed=LISTED,
    max_age_seconds=OPTIONAL,
    credentials=PLAIN,
    forward_unmatched=PLAIN,
)

_RULE: Final = Record(
    Rule,
    pb.RouteRule,
    name=PLAIN,
    source=_SOURCE,
    action=OneOf(
        forward=(Forward, _FORWARD),
        redirect=(Redirect, _REDIRECT),
        direct_response=(DirectResponse, _DIRECT),
    ),
    matches=Many(_MATCH),
    edits=_EDITS,
    rewrite=Maybe(_REWRITE),
    timeout_seconds=PLAIN,
    try_timeout_seconds=PLAIN,
    retry=Maybe(RETRY),
    fault=Maybe(_FAULT),
    mirrors=Many(_MIRROR),
    cors=Maybe(_CORS),
)
_CONNECTION: Final = Record(
    ConnectionRule,
    pb.ConnectionRule,
    name=PLAIN,
    source=_SOURCE,
    forward=_FORWARD,
    ports=LISTED,
    subnets=NETWORKS,
)
_ROUTES: Final = Record(Routes, pb.Routes, service=_NAME, rules=Many(_RULE), connections=Many(_CONNECTION))


def render_routes(routes: Routes) -> pb.Routes:
    """The message of a service's routes."""
    made: pb.Routes = _ROUTES.render(routes)
    return made


def parse_routes(untrusted: pb.Routes) -> Routes:
    """The routes of a message.

    Raises:
        PeerError: no service, or a rule that makes no sense; its name is said.
    """
    if not untrusted.service.namespace or not untrusted.service.hostname:
        raise PeerError("routes are those of a service, with a namespace and a hostname")
    return Routes(
        _NAME.parse(untrusted.service),
        tuple(_parse_rule(_RULE, each) for each in untrusted.rules),
        tuple(_parse_rule(_CONNECTION, each) for each in untrusted.connections),
    )


def _parse_rule(record: Record[T], untrusted: pb.RouteRule | pb.ConnectionRule) -> T:
    try:
        return record.parse(untrusted)
    except PeerError as error:
        source = f"{untrusted.source.kind} {untrusted.source.namespace}/{untrusted.source.name}"
        raise PeerError(f"rule {untrusted.name[:80]!r} of {source[:200]}: {error}") from error
