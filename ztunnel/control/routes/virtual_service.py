"""A VirtualService as rules of the routing model, as istiod makes routes of it for a waypoint (istio/istio
pilot/pkg/networking/core/listener_waypoint.go, route/route.go).

What can be known only where a call is made (labels of the client, its namespace) is not known at a waypoint:
a match that asks for it is left out, and a rule with it that has no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from ztunnel.control.routes.checked_rule import checked
from ztunnel.control.routes.delegation import merged
from ztunnel.control.routes.hosts import is_exported, whole_name
from ztunnel.control.routes.registry import View
from ztunnel.control.routes.route_parts import Converted, NamedRule, Problem, Why
from ztunnel.control.routes.unreachable import unreachable
from ztunnel.model.route import ConnectionRule, RouteSource, Rule
from ztunnel.model.route_action import NO_EDITS, Action, Destination, Forward, Refusal, Rewrite
from ztunnel.model.route_policy import Mirror
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.virtual_match import ConnectionMatch, Sources
from ztunnel.state.virtual_service import MESH, RequestRule, Target, VirtualService, WeightedTarget

KIND: Final = VirtualService.__name__


@dataclass(slots=True)
class _Conversion:
    """One that goes on. `field` is the rule that is converted."""

    view: View
    namespace: str
    problems: list[Problem] = field(default_factory=list)
    field: str = ""

    def note(self, why: Why, text: str, below: str = "") -> None:
        """There is a problem with the rule, or something in it."""
        self.problems.append(Problem(why, f"{self.field}{below}", text))


def is_of_mesh(one: VirtualService) -> bool:
    """Whether it is for calls within the mesh, and not for gateways only."""
    return not one.gateways or MESH in one.gateways


def convert_virtual_service(one: VirtualService, view: View) -> Converted:
    """Its rules. One that others delegate to has none of its own."""
    it = _Conversion(view, one.meta.namespace)
    if one.is_delegate or not is_of_mesh(one):
        return Converted()
    rules: list[Rule] = []
    for number, written in enumerate(one.http):
        it.field = f"http[{number}]"
        for namespace, rule in _expanded(written, it):
            it.namespace = namespace
            converted = _rule(rule, one, it)
            if converted is not None:
                converted = checked(converted, 503, partial(it.note, Why.UNSUPPORTED))
            if converted is not None:
                rules.append(converted)
        it.namespace = one.meta.namespace
    connections = (*_connections(one, "tls", it), *_connections(one, "tcp", it))
    return Converted(tuple(rules), (*it.problems, *unreachable(one)), connections)


def _connections(of: VirtualService, kind: str, it: _Conversion) -> Iterator[NamedRule]:
    """The rules of `tls`, of which a waypoint asks first, or of `tcp`; one for each match."""
    source = RouteSource(KIND, of.meta.namespace, of.meta.name)
    for number, rule in enumerate(of.tls if kind == "tls" else of.tcp):
        it.field = f"{kind}[{number}]"
        known = [match for match in rule.matches if _is_known(match.sources, it)]
        if rule.matches and not known:
            continue
        forward = Forward(tuple(_destination(one, it) for one in _weighted(rule.targets)))
        for match in known or [ConnectionMatch(Sources({}))]:
            ports = (match.port,) if match.port else ()
            yield NamedRule(ConnectionRule("", source, forward, ports, match.subnets), match.hosts)


def _expanded(rule: RequestRule, it: _Conversion) -> Iterator[tuple[str, RequestRule]]:
    """A rule, or those of the one that it delegates to, each with the namespace in which its names are."""
    if rule.delegate is None:
        yield it.namespace, rule
        return
    own = it.namespace
    name = rule.delegate[0] or own, rule.delegate[1]
    delegate = it.view.delegate(name)
    if delegate is None or not is_exported(delegate.export_to, name[0], own):
        text = f"there is no VirtualService {name[0]}/{name[1]} to delegate to"
        if delegate is not None:
            text = f"VirtualService {name[0]}/{name[1]} is not exported to {own} (exportTo)"
        it.note(Why.NOT_FOUND, text, ".delegate")
        return
    for number, below in enumerate(delegate.http):
        found = merged(rule, below)
        if found is not None:
            if rule.edits is not None and below.edits is not None:
                text = f"headers of http[{number}] of {name[0]}/{name[1]} count, and these do not"
                it.note(Why.REMARK, text, ".headers")
            yield name[0], found
        else:
            text = f"http[{number}] of {name[0]}/{name[1]} has matches that are none of this rule: left out"
            it.note(Why.REMARK, text, ".delegate")


def _rule(rule: RequestRule, of: VirtualService, it: _Conversion) -> Rule | None:
    """None where it is for nobody who can be known here."""
    matches = tuple(one.match for one in rule.matches if _is_known(one.sources, it))
    if rule.matches and not matches:
        return None
    source = RouteSource(KIND, of.meta.namespace, of.meta.name)
    edits = rule.edits or NO_EDITS
    made = Rule(rule.name, source, _action(rule, it), matches, edits, cors=rule.cors, fault=rule.fault)
    if rule.response is not None:
        return made
    retries = rule.retries
    if retries is not None and retries.retry is not None and retries.asked > retries.retry.attempts:
        it.note(Why.REMARK, f"{retries.asked} are taken as {retries.retry.attempts}", ".retries.attempts")
    counts = it.view.retries() if retries is None else retries
    return replace(
        made,
        rewrite=_rewrite(rule),
        timeout_seconds=rule.timeout or 0.0,
        try_timeout_seconds=counts.try_seconds,
        retry=counts.retry,
        mirrors=tuple(
            Mirror(_destination(WeightedTarget(one.target), it), one.per_million)
            for one in rule.mirrors or ()
            if one.per_million
        ),
    )


def _is_known(sources: Sources, it: _Conversion) -> bool:
    if sources.gateways and MESH not in sources.gateways:
        return False
    asked = [
        name
        for name, value in (("sourceLabels", sources.labels), ("sourceNamespace", sources.namespace))
        if value
    ]
    if asked:
        it.note(
            Why.REMARK, f"a waypoint does not know {' and '.join(asked)}: the match is left out", ".match"
        )
    return not asked


def _rewrite(rule: RequestRule) -> Rewrite | None:
    """What `headers` set of the authority counts as a rewrite."""
    if not rule.authority:
        return rule.rewrite
    return Rewrite(rule.rewrite.path if rule.rewrite is not None else None, rule.authority)


def _action(rule: RequestRule, it: _Conversion) -> Action:
    if rule.response is not None:
        return rule.response
    return Forward(tuple(_destination(one, it) for one in _weighted(rule.targets)))


def _weighted(targets: tuple[WeightedTarget, ...]) -> tuple[WeightedTarget, ...]:
    """Those that get anything: one that is alone does whatever its weight."""
    return tuple(one for one in targets if one.weight) if len(targets) > 1 else targets


def _destination(one: WeightedTarget, it: _Conversion) -> Destination:
    target = one.target
    host = whole_name(target.host, it.namespace, it.view.settings.cluster_domain)
    service = it.view.service(host, it.namespace)
    made = Destination(
        service.key if service is not None else ServiceName(it.namespace, host),
        target.port,
        target.subset,
        weight=one.weight or 1,
        edits=one.edits,
        authority=one.authority,
    )
    if service is None:
        text = f"there is no service {host}{_meant(target.host, it)}"
        it.note(Why.NOT_FOUND, text, ".route")
        return replace(made, refusal=Refusal(503, text))
    return _within(made, service, target, it)


def _within(made: Destination, service: Service, target: Target, it: _Conversion) -> Destination:
    """The port and the subset of a service that there is."""
    ports = [port.service for port in service.ports]
    if not target.port and len(ports) == 1:
        made = replace(made, port=ports[0])
    elif not target.port and len(ports) > 1:
        text = (
            f"{service.hostname} has the ports {', '.join(map(str, ports))}: the one that was called is taken"
        )
        it.note(Why.PORT_REQUIRED, text, ".route")
    elif target.port not in ports:
        text = f"{service.hostname} has no port {target.port}"
        it.note(Why.NOT_FOUND, text, ".route")
        return replace(made, refusal=Refusal(503, text))
    if not target.subset:
        return made
    labels = it.view.chosen(service, it.namespace).labels(target.subset)
    if labels is None:
        text = f"no DestinationRule for {service.hostname} has a subset {target.subset}"
        it.note(Why.NOT_FOUND, text, ".route")
        return replace(made, refusal=Refusal(503, text))
    return replace(made, labels=labels)


def _meant(host: str, it: _Conversion) -> str:
    """A name with a namespace that lacks the rest is a usual slip."""
    if host.count(".") != 1:
        return ""
    whole = f"{host}.svc.{it.view.settings.cluster_domain}"
    return f"; did you mean {whole}?" if it.view.service(whole, it.namespace) else ""
