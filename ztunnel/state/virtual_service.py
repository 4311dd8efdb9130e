"""Istio's VirtualService read from manifests, strictly.

Fields are those of networking.istio.io/v1 (v1beta1 and v1alpha3 are the same schema); what else is checked is
what istiod's validation refuses (istio/istio pkg/config/validation: ValidateVirtualService,
validateHTTPRouteConflict)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ztunnel.model.route_action import NO_EDITS, DirectResponse, Edits, Redirect, Rewrite
from ztunnel.model.route_policy import MILLION, Cors, Fault
from ztunnel.state.duration import read_duration
from ztunnel.state.field import Field
from ztunnel.state.header_edits import read_edits
from ztunnel.state.meta import Meta, read_meta, read_port
from ztunnel.state.retry import Retries, read_retries
from ztunnel.state.virtual_action import (
    read_cors,
    read_direct_response,
    read_fault,
    read_number,
    read_redirect,
    read_rewrite,
    read_share,
    read_texts,
    read_whole_share,
)
from ztunnel.state.virtual_match import (
    ConnectionMatch,
    RequestMatch,
    read_connection_match,
    read_request_match,
)

MESH: Final = "mesh"
"""The gateway that stands for calls within the mesh."""

_RULE: Final = (
    "corsPolicy", "delegate", "directResponse", "fault", "headers", "match", "mirror", "mirrorPercent",
    "mirrorPercentage", "mirrors", "name", "redirect", "retries", "rewrite", "route", "timeout",
)  # fmt: skip
_HOST: Final = re.compile(r"\*|(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*")
_NUMERIC: Final = re.compile(r"[0-9a-f.:]*:[0-9a-f.:]*|[0-9.]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Istio's Destination: a host, as it is written, in small letters; port 0: the one that was called, or
    the only one."""

    host: str
    subset: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class WeightedTarget:
    """An entry of `route`. `authority` is what its headers set."""

    target: Target
    weight: int = 0
    edits: Edits = NO_EDITS
    authority: str = ""


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """Where requests are mirrored to, and how many of a million."""

    target: Target
    per_million: int = MILLION


@dataclass(frozen=True, slots=True)
class RequestRule:
    """An entry of `http`.

    Attributes:
        delegate: namespace (or empty) and name of the VirtualService whose rules stand here; of such a rule
            nothing else says where requests go.
        timeout: in seconds; None: it is not said.
        edits: None: `headers` is absent. `authority` is what it sets.
        mirrors: None: none is given.
    """

    name: str = ""
    matches: tuple[RequestMatch, ...] = ()
    targets: tuple[WeightedTarget, ...] = ()
    response: Redirect | DirectResponse | None = None
    delegate: tuple[str, str] | None = None
    rewrite: Rewrite | None = None
    timeout: float | None = None
    retries: Retries | None = None
    fault: Fault | None = None
    mirrors: tuple[MirrorTarget, ...] | None = None
    cors: Cors | None = None
    edits: Edits | None = None
    authority: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionRule:
    """An entry of `tcp` or `tls`."""

    matches: tuple[ConnectionMatch, ...]
    targets: tuple[WeightedTarget, ...]


@dataclass(frozen=True, slots=True)
class VirtualService:
    """A VirtualService. Without hosts it is there for others that delegate to it."""

    meta: Meta
    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[RequestRule, ...] = ()
    tcp: tuple[ConnectionRule, ...] = ()
    tls: tuple[ConnectionRule, ...] = ()
    export_to: tuple[str, ...] = ()

    @property
    def is_delegate(self) -> bool:
        """Whether its rules count only where another one names it."""
        return not self.hosts


def read_virtual_service(root: Field) -> VirtualService:
    """networking.istio.io VirtualService."""
    meta, spec = read_meta(root), root.sub("spec")
    if spec is None:
        root.fault("spec is missing")
        return VirtualService(meta)
    spec.only(["exportTo", "gateways", "hosts", "http", "tcp", "tls"])
    hosts = tuple(_host(place, wild=True) for place in spec.each("hosts"))
    if len(set(hosts)) < len(hosts):
        spec.fault("a host stands in hosts twice")
    found = VirtualService(
        meta,
        hosts,
        read_texts(spec, "gateways"),
        tuple(_rule(place, delegate=not hosts) for place in spec.each("http")),
        tuple(_connection_rule(place, tls=False) for place in spec.each("tcp")),
        tuple(_connection_rule(place, tls=True) for place in spec.each("tls")),
        read_texts(spec, "exportTo"),
    )
    if hosts and not (found.http or found.tcp or found.tls):
        spec.fault("needs http, tcp or tls: without a rule it routes nothing")
    if not hosts and (found.gateways or found.tcp or found.tls or not found.http):
        spec.fault("hosts are missing; one that others delegate to has none, and http only, and no gateways")
    return found


def _host(place: Field, *, wild: bool = False) -> str:
    text = place.as_text().lower()
    fits = _HOST.fullmatch(text) or (wild and _NUMERIC.fullmatch(text))
    if not text or len(text) > 253 or not fits or (not wild and text.startswith("*")):
        place.fault(
            "not a host: a short name, a DNS name" + (", or one that begins with '*.'" if wild else "")
        )
    return text


def _rule(place: Field, *, delegate: bool) -> RequestRule:
    place.only(_RULE)
    places = {name: place.sub(name) for name in _RULE}
    edits, authority = _headers(place)
    redirect, direct, rewrite = places["redirect"], places["directResponse"], places["rewrite"]
    fault, cors, retries = places["fault"], places["corsPolicy"], places["retries"]
    found = RequestRule(
        place.text("name"),
        tuple(map(read_request_match, place.each("match"))),
        tuple(map(_weighted, place.each("route"))),
        read_redirect(redirect) if redirect else read_direct_response(direct) if direct else None,
        _delegate(places["delegate"]),
        read_rewrite(rewrite) if rewrite else None,
        read_duration(place, "timeout"),
        read_retries(retries) if retries else None,
        read_fault(fault) if fault else None,
        _mirrors(place),
        read_cors(cors) if cors else None,
        edits,
        authority,
    )
    _check(place, found, both=bool(redirect and direct), delegate=delegate)
    return found


def _check(place: Field, found: RequestRule, *, both: bool, delegate: bool) -> None:
    """What excludes each other."""
    ends = [bool(found.targets), bool(found.response), bool(found.delegate)]
    if both or sum(ends) > 1:
        place.fault("route, redirect, directResponse and delegate exclude each other")
    elif not any(ends):
        place.fault("needs a route, a redirect, a directResponse or a delegate")
    if found.delegate and delegate:
        place.fault("one that others delegate to cannot delegate further")
    if isinstance(found.response, Redirect) and (found.rewrite or found.fault):
        place.fault("a redirect has no rewrite and no fault")
    if found.authority and found.rewrite and found.rewrite.authority:
        place.fault("the authority is set twice: by headers, and by the rewrite")
    if len(found.targets) > 1 and not any(each.weight for each in found.targets):
        place.fault("of several destinations one needs a weight")


def _headers(place: Field) -> tuple[Edits | None, str]:
    below = place.sub("headers")
    if below is None:
        return None, ""
    below.only(["request", "response"])
    request, authority = read_edits(below, "request")
    return Edits(request, read_edits(below, "response")[0]), authority


def _weighted(place: Field) -> WeightedTarget:
    place.only(["destination", "headers", "weight"])
    edits, authority = _headers(place)
    weight = read_number(place, "weight", 0)
    if not 0 <= weight < 1 << 31:
        place.fault("a weight is not negative")
        weight = 0
    return WeightedTarget(_target(place, "destination"), weight, edits or NO_EDITS, authority)


def _target(parent: Field, name: str) -> Target:
    place = parent.sub(name)
    if place is None:
        parent.fault(f"{name} is missing")
        return Target("")
    place.only(["host", "port", "subset"])
    host, port = place.sub("host"), place.sub("port")
    if host is None:
        place.fault("host is missing")
    number = None
    if port is not None:
        port.only(["number"])
        number = port.sub("number")
    return Target(
        _host(host) if host is not None else "",
        place.text("subset"),
        read_port(number) if number is not None else 0,
    )


def _delegate(place: Field | None) -> tuple[str, str] | None:
    if place is None:
        return None
    place.only(["name", "namespace"])
    if not place.text("name"):
        place.fault("name is missing")
    return place.text("namespace"), place.text("name")


def _mirrors(place: Field) -> tuple[MirrorTarget, ...] | None:
    several = place.each("mirrors")
    if place.sub("mirror") is not None:
        if several:
            place.fault("mirror and mirrors exclude each other")
        share = read_share(place, "mirrorPercentage")
        if share is None:
            share = read_whole_share(place, "mirrorPercent")
        return (MirrorTarget(_target(place, "mirror"), MILLION if share is None else share),)
    found = []
    for one in several:
        one.only(["destination", "percentage"])
        share = read_share(one, "percentage")
        found.append(MirrorTarget(_target(one, "destination"), MILLION if share is None else share))
    return tuple(found) or None


def _connection_rule(place: Field, *, tls: bool) -> ConnectionRule:
    place.only(["match", "route"])
    matches = tuple(read_connection_match(one, tls=tls) for one in place.each("match"))
    targets = tuple(map(_weighted, place.each("route")))
    if tls and not matches:
        place.fault("match is missing: rules for TLS are by SNI")
    if not targets:
        place.fault("route is missing")
    elif len(targets) > 1 and not any(each.weight for each in targets):
        place.fault("of several destinations one needs a weight")
    return ConnectionRule(matches, targets)
