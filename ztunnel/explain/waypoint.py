"""What a waypoint makes of a request, by the code that it decides with (`l7/policy/authorization.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from ztunnel.authz.explanation import Tried
from ztunnel.explain.tokens import TokenSaid, judge_token
from ztunnel.l7.path import SPELLINGS, normalize
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.authorization import Authorization
from ztunnel.l7.policy.reasons import explain_policy
from ztunnel.l7.policy.rule import Decision
from ztunnel.l7.request import Request, scheme_of
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import HttpAction
from ztunnel.model.mesh_defaults import MESH
from ztunnel.model.provider import Speech
from ztunnel.model.service import AppProtocol, Service
from ztunnel.model.workload import Workload
from ztunnel.state.lookup import authorizer_of, guards_of
from ztunnel.state.world import World

_ORDER: Final = (HttpAction.CUSTOM, HttpAction.DENY, HttpAction.ALLOW, HttpAction.AUDIT)
NO_TOKEN: Final = TokenSaid()
_NO_HTTP: Final = (AppProtocol.TCP, AppProtocol.TLS)


@dataclass(frozen=True, slots=True)
class HttpCall:
    """The request of a call. `headers` are names and values; `now`: when it is made, in seconds since the
    epoch, by which tokens expire."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    now: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class AtWaypoint:
    """`what` was judged; `unknown` are policies that count and are not known here; `request`: if it is
    one; `token`: what becomes of it by that; `asks`: which external authorizer is asked first, and it is let
    through only if that permits."""

    decision: Decision
    what: str
    tried: tuple[Tried, ...]
    unknown: tuple[str, ...]
    request: Request | None = None
    token: TokenSaid = NO_TOKEN
    asks: str = ""


def judge_at_waypoint(
    world: World, waypoint: Workload, service: Service | None, connection: Connection, http: HttpCall
) -> AtWaypoint:
    """What `waypoint` decides about a call of `connection`, which is HTTP where its port does not say
    otherwise.

    Raises:
        ValueError: the path has no meaning.
    """
    names = guards_of(world, waypoint, service)
    protocol = service.protocol(connection.destination.port) if service is not None else None
    request, token = None, NO_TOKEN
    if protocol not in _NO_HTTP:
        defaults = world.defaults.get(MESH)
        spelling = defaults.path_normalization if defaults is not None else ""
        request = request_of(http, service, connection, spelling)
        token = judge_token(world, waypoint, service, request, http.now)
        if token.refused:
            refused = Decision(False, reason=token.refused)
            return AtWaypoint(refused, str(http), (), token.unknown, request, token)
    attributes = Attributes(request, connection.source.ip) if request is not None else None
    authorization = Authorization(world.http_policies, names)
    sni = None if attributes is None and protocol is not AppProtocol.TCP else ""
    judge = authorization.judge(connection, http=attributes is not None, sni=sni)
    first = decision = judge.decide(attributes)
    asks = ""
    if first.provider:
        asks, decision = _asking(world, first, http=attributes is not None)
        if asks:
            decision = judge.decide(attributes, permitted=True)
    known = [policy for name in names if (policy := world.http_policies.get(name)) is not None]
    ordered = sorted(known, key=lambda one: (one.dry_run, _ORDER.index(one.action), one.key))
    tried = []
    for policy in ordered:
        hit, why = explain_policy(policy, connection, attributes, sni)
        decides = policy.key in (first.policy, decision.policy)
        tried.append(Tried(policy.key, policy.action.name, "WAYPOINT", hit, decides, why, policy.dry_run))
    unknown = (*token.unknown, *(name for name in names if name not in world.http_policies))
    what = "the connection" if attributes is None else str(http)
    return AtWaypoint(decision, what, tuple(tried), unknown, request, token, asks)


def _asking(world: World, decision: Decision, *, http: bool) -> tuple[str, Decision]:
    """Who is asked, or the refusal where nobody can be."""
    found = authorizer_of(world, decision.provider)
    if not isinstance(found, str) and found.provider.speech is Speech.HTTP and not http:
        found = f"the provider {found.name!r} asks over HTTP, and this is a connection without requests"
    if isinstance(found, str):
        return "", replace(decision, provider="", reason=found)
    at, how = found.provider.service, "gRPC" if found.provider.speech is Speech.GRPC else "HTTP"
    says = "an error lets it through" if found.provider.fail_open else "an error refuses it"
    return f"{decision.policy} asks {found.name} ({found.service.key}:{at.port}, {how}; {says})", decision


def request_of(
    http: HttpCall, service: Service | None, connection: Connection, spelling: str = ""
) -> Request:
    """The request as a waypoint has it; `spelling` is what the mesh config says of paths.

    Raises:
        ValueError: the path has no meaning.
    """
    path = normalize(http.path.encode())
    if path is None:
        raise ValueError(f"{http.path!r} is no path: a waypoint answers 400")
    respell = SPELLINGS.get(spelling)
    if respell is not None:
        path = respell(path)
    host = service.hostname if service is not None else str(connection.destination)
    named = {name.lower(): value for name, value in http.headers}
    host = named.pop("host", host)
    fields = [(name.encode(), value.encode()) for name, value in named.items()]
    request = Request(http.method.encode(), host.encode(), path, fields)
    request.scheme = scheme_of(request.get(b"x-forwarded-proto"))
    return request
