"""HTTPRoute, GRPCRoute, TCPRoute and TLSRoute as rules of the routing model (apis/v1; istio/istio
pilot/pkg/config/kube/gateway conversion.go).

What cannot be done for a request is answered with 500 for just the share of it that it concerns: a backend
that is not there or may not be referred to, a rule with a filter that is not known. Of a GRPCRoute it is 503,
which is UNAVAILABLE to a client of gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from ztunnel.control.routes.checked_rule import checked
from ztunnel.control.routes.registry import View
from ztunnel.control.routes.route_parts import Converted, NamedRule, Problem, Why
from ztunnel.model.route import ConnectionRule, RouteSource, Rule
from ztunnel.model.route_action import Action, Destination, Forward, Refusal
from ztunnel.model.route_policy import Mirror
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.connection_route import TCPRoute, TLSRoute
from ztunnel.state.http_route import GRPCRoute, HTTPRoute, RouteRule
from ztunnel.state.route_filter import Backend, Filters, Reference

SERVICE: Final = ("", "Service")
ENTRY: Final = ("networking.istio.io", "ServiceEntry")
HOSTNAME: Final = ("networking.istio.io", "Hostname")

Route = HTTPRoute | GRPCRoute | TCPRoute | TLSRoute
_UNAVAILABLE: Final = {GRPCRoute.__name__: 503}
"""Statuses that say so, where it is not 500: "MUST receive an UNAVAILABLE status" (apis/v1
grpcroute_types.go, GRPCRouteRule.BackendRefs)."""


@dataclass(slots=True)
class _Conversion:
    view: View
    kind: str
    namespace: str
    problems: list[Problem] = field(default_factory=list)
    field: str = ""

    @property
    def status(self) -> int:
        """With which a request is answered that can be sent nowhere."""
        return _UNAVAILABLE.get(self.kind, 500)

    def note(self, why: Why, below: str, text: str) -> None:
        """There is a problem with something in the rule."""
        self.problems.append(Problem(why, f"{self.field}{below}", text))


def convert_route(one: Route, view: View) -> Converted:
    """Its rules, whose matches are not at any port yet."""
    it = _Conversion(view, type(one).__name__, one.meta.namespace)
    if isinstance(one, TCPRoute | TLSRoute):
        return _connections(one, it)
    rules = []
    for number, written in enumerate(one.rules):
        it.field = f"rules[{number}]"
        name = written.name or f"{one.meta.namespace}.{one.meta.name}.{number}"
        source = RouteSource(it.kind, one.meta.namespace, one.meta.name)
        made = checked(_rule(written, name, source, it), it.status, partial(it.note, Why.UNSUPPORTED, ""))
        if made is not None:
            rules.append(made)
    return Converted(tuple(rules), tuple(it.problems))


def _connections(one: TCPRoute | TLSRoute, it: _Conversion) -> Converted:
    """Rules have no matches: the first is for everything."""
    rules = []
    for number, written in enumerate(one.rules):
        it.field = f"rules[{number}]"
        source = RouteSource(it.kind, one.meta.namespace, one.meta.name)
        name = written.name or f"{one.meta.namespace}.{one.meta.name}.{number}"
        rules.append(NamedRule(ConnectionRule(name, source, _forward(written.backends, it))))
    return Converted((), tuple(it.problems), tuple(rules))


def _rule(rule: RouteRule, name: str, source: RouteSource, it: _Conversion) -> Rule:
    for each in rule.unread:
        it.note(Why.REMARK, f".{each}", "is not acted on")
    filters = rule.filters
    made = Rule(
        name,
        source,
        _action(rule, it),
        rule.matches,
        filters.edits,
        timeout_seconds=rule.timeout or 0.0,
        cors=filters.cors,
    )
    if not isinstance(made.action, Forward):
        return made
    counts = it.view.retries() if rule.retries is None else rule.retries
    return replace(
        made,
        rewrite=filters.rewrite,
        try_timeout_seconds=(counts.try_seconds if rule.try_timeout is None else rule.try_timeout) or 0.0,
        retry=counts.retry,
        mirrors=tuple(
            Mirror(
                _destination(Backend(one.backend), f".filters.requestMirror {one.backend}", it),
                one.per_million,
            )
            for one in filters.mirrors
            if one.per_million
        ),
    )


def _action(rule: RouteRule, it: _Conversion) -> Action:
    if rule.filters.foreign:
        names = ", ".join(rule.filters.foreign)
        it.note(Why.UNSUPPORTED, ".filters", f"no such filter is known here: {names}")
        return _refused(f"filters that are not known: {names}", it)
    if rule.filters.redirect is not None:
        return rule.filters.redirect
    return _forward(rule.backends, it)


def _forward(backends: tuple[Backend, ...], it: _Conversion) -> Forward:
    """To each its share; those of weight 0 get nothing, and have to be right all the same."""
    made = [_destination(one, f".backendRefs[{number}]", it) for number, one in enumerate(backends)]
    found = [to for one, to in zip(backends, made, strict=True) if one.weight]
    return Forward(tuple(found)) if found else _refused("the rule has no backend", it)


def _refused(why: str, it: _Conversion) -> Forward:
    return Forward((Destination(ServiceName(it.namespace, ""), refusal=Refusal(it.status, why)),))


def _destination(one: Backend, place: str, it: _Conversion) -> Destination:
    """Where a backend's share of the requests is sent, or why not."""
    to = one.reference
    found = _resolved(replace(to, namespace=to.namespace or it.namespace), it)
    if isinstance(found, Problem):
        it.note(found.why, place, found.text)
        name = ServiceName(to.namespace or it.namespace, to.name)
        return Destination(name, to.port, weight=one.weight or 1, refusal=Refusal(it.status, found.text))
    wrong = tuple(_of_backend(one.filters))
    if wrong:
        text = f"a backend cannot have the filters {', '.join(wrong)}"
        it.note(Why.INCOMPATIBLE, f"{place}.filters", text)
        return Destination(found.key, to.port, weight=one.weight or 1, refusal=Refusal(it.status, text))
    rewrite = one.filters.rewrite
    return Destination(
        found.key,
        to.port,
        weight=one.weight or 1,
        edits=one.filters.edits,
        authority=rewrite.authority if rewrite is not None else "",
    )


def _resolved(to: Reference, it: _Conversion) -> Service | Problem:
    """The service that is meant, `to` being with its namespace."""
    kind = to.group, to.kind
    if kind not in (SERVICE, HOSTNAME, ENTRY):
        return Problem(Why.INVALID_KIND, "", f"{to.kind} of {to.group or 'the core group'} is no backend")
    if not to.port:
        return Problem(Why.BACKEND_NOT_FOUND, "", f"{to} needs a port")
    if to.namespace != it.namespace and not it.view.is_granted(it.kind, it.namespace, to):
        text = (
            f"no ReferenceGrant of namespace {to.namespace} lets {it.kind}s of {it.namespace} refer to {to}"
        )
        return Problem(Why.NOT_PERMITTED, "", text)
    if kind == ENTRY:
        service = it.view.entry(to.namespace, to.name)
    else:
        host = (
            to.name if kind == HOSTNAME else f"{to.name}.{to.namespace}.svc.{it.view.settings.cluster_domain}"
        )
        service = it.view.service(host, to.namespace)
    if service is None:
        return Problem(Why.BACKEND_NOT_FOUND, "", f"there is no {to}")
    if all(port.service != to.port for port in service.ports):
        return Problem(Why.BACKEND_NOT_FOUND, "", f"{to} has no port {to.port}")
    return service


def _of_backend(filters: Filters) -> Iterator[str]:
    """The filters of a backend that cannot be had there: what is done before a backend is chosen."""
    yield from filters.foreign
    if filters.redirect is not None:
        yield "RequestRedirect"
    if filters.rewrite is not None and filters.rewrite.path is not None:
        yield "URLRewrite with a path"
    if filters.mirrors:
        yield "RequestMirror"
    if filters.cors is not None:
        yield "CORS"
