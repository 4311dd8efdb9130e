"""What is doubtful in objects that route: names of nothing, rules that no request comes to, several objects
for one host, rules that no waypoint reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ztunnel.analyze.finding import (
    CONFLICT,
    INEFFECTIVE_MATCH,
    MISSING,
    NO_MATCH,
    NO_ROOTS,
    NO_ROOTS_AT_PORT,
    NO_TOKENS,
    PORT_REQUIRED,
    REMARK,
    ROUTE_REFUSED,
    UNREACHABLE,
    WITHOUT_EFFECT,
    Code,
    Finding,
)
from ztunnel.analyze.mesh import Mesh, Written
from ztunnel.analyze.policies import found, named
from ztunnel.control.routes.hosts import covers, whole_name
from ztunnel.control.routes.route_parts import Why
from ztunnel.control.source.document import Object
from ztunnel.control.waypoints.use_waypoint import USE
from ztunnel.model.route import Routes
from ztunnel.model.service import AppProtocol, Service
from ztunnel.model.traffic import ClientTls, TlsMode
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.kube import Pod
from ztunnel.state.networking import WorkloadEntry

_CODES: Final = {
    Why.BACKEND_NOT_FOUND: MISSING,
    Why.NOT_FOUND: MISSING,
    Why.INVALID_KIND: ROUTE_REFUSED,
    Why.NOT_PERMITTED: ROUTE_REFUSED,
    Why.UNSUPPORTED: ROUTE_REFUSED,
    Why.INCOMPATIBLE: ROUTE_REFUSED,
    Why.PORT_REQUIRED: PORT_REQUIRED,
    Why.UNREACHABLE: UNREACHABLE,
    Why.INEFFECTIVE: INEFFECTIVE_MATCH,
    Why.NOWHERE: WITHOUT_EFFECT,
    Why.REMARK: REMARK,
}


def route_findings(mesh: Mesh) -> Iterator[Finding]:
    """All of them."""
    by_key = {(one.kind, one.namespace, one.name): one for one in mesh.written}
    for key, problems in sorted(mesh.problems.items()):
        if (one := by_key.get((key.kind, key.namespace, key.name))) is not None:
            for problem in problems:
                yield found(_CODES[problem.why], one, str(problem))
    yield from _of_services(mesh, by_key)
    for key, each in mesh.inventory.objects.items():
        one = by_key.get((key.kind, key.namespace, key.name))
        if one is not None and isinstance(each, DestinationRule):
            yield from _of_rule(mesh, one, each)


def _of_services(mesh: Mesh, by_key: dict[tuple[str, str, str], Written]) -> Iterator[Finding]:
    """Of what several objects say about one service, and of routes of those that have no waypoint."""
    for _, routes in sorted(mesh.routes.items()):
        service = mesh.world.service(routes.service)
        sources = _sources(routes, by_key)
        if service is not None and service.waypoint is None and not _names_waypoint(service, by_key):
            for one in sources:
                text = f"{service.hostname} has no waypoint ({USE}): its rules are not acted on"
                yield found(WITHOUT_EFFECT, one, text)
        elif service is not None and (text := _not_spoken(service, routes)):
            for one in sources:
                yield found(WITHOUT_EFFECT, one, text)
        if service is not None and not _proves_tokens(mesh, service):
            yield from _unproved(routes, by_key)
        kinds = {one.kind for one in sources}
        if len(sources) > 1 and "VirtualService" in kinds:
            for one in sources:
                others = named([str(each) for each in sources if each is not one])
                how = "HTTPRoutes first, then the oldest VirtualService, what takes every request last"
                text = f"{routes.service.hostname} has rules of {others}, too: they are joined, {how}"
                yield found(CONFLICT, one, text)


def _unproved(routes: Routes, by_key: dict[tuple[str, str, str], Written]) -> Iterator[Finding]:
    """Rules by claims of tokens that nobody proves: no request has any."""
    for rule in routes.rules:
        claims = sorted({".".join(each.path) for match in rule.matches for each in match.claims})
        source = rule.source
        if claims and (one := by_key.get((source.kind, source.namespace, source.name))) is not None:
            message = (
                f"it routes by claims ({named(claims)}), and no RequestAuthentication proves tokens of "
                f"{routes.service.hostname}: no request has claims there"
            )
            yield found(NO_TOKENS, one, message)


def _proves_tokens(mesh: Mesh, service: Service) -> bool:
    """Whether some RequestAuthentication may be for its waypoint."""
    places = {service.namespace, mesh.settings.root_namespace}
    if service.waypoint is not None and service.waypoint.service is not None:
        places.add(service.waypoint.service.namespace)
    return any(
        one.namespace in places and (one.entries("spec.targetRefs") or one.get("spec.targetRef"))
        for one in mesh.of("security.istio.io", "RequestAuthentication")
    )


def _not_spoken(service: Service, routes: Routes) -> str:
    """Whether no port speaks what the rules are for: requests, which TCP and TLS have none of."""
    asked = [port.service for port in service.ports if routes.at(port.service)]
    if not asked or any(service.protocol(port) not in (AppProtocol.TCP, AppProtocol.TLS) for port in asked):
        return ""
    named = ", ".join(map(str, asked))
    return f"by their names the ports {named} of {service.hostname} speak no HTTP: no request is found there"


def _names_waypoint(service: Service, by_key: dict[tuple[str, str, str], Written]) -> bool:
    """Whether the service, or its namespace, names a waypoint, be it there or not."""
    keys = [(kind, service.namespace, service.name) for kind in ("Service", "ServiceEntry")]
    labels: dict[str, str] = {}
    for key in (("Namespace", "", service.namespace), *keys):
        if (one := by_key.get(key)) is not None:
            labels |= one.labels()
    return labels.get(USE, "none") != "none"


def _sources(routes: Routes, by_key: dict[tuple[str, str, str], Written]) -> list[Written]:
    """The objects that the rules are of, each once."""
    keys = dict.fromkeys((rule.source.kind, rule.source.namespace, rule.source.name) for rule in routes.rules)
    return [one for key in keys if (one := by_key.get(key)) is not None]


def _of_rule(mesh: Mesh, one: Written, rule: DestinationRule) -> Iterator[Finding]:
    host = whole_name(rule.host, rule.meta.namespace, mesh.settings.cluster_domain)
    services = [each for name, those in mesh.world.hostnames.items() if covers(host, name) for each in those]
    if not services:
        yield found(MISSING, one, f"spec.host: there is no service {host}")
    for subset in rule.subsets:
        if services and not any(_has(mesh, each, subset.labels) for each in services):
            text = ", ".join(f"{key}={value}" for key, value in sorted(subset.labels.items()))
            message = f"subset {subset.name}: no workload of {host} has the labels {text}"
            yield found(NO_MATCH, one, message)
    yield from _tls(one, host, rule.traffic.common.tls, NO_ROOTS, "")
    for port, traffic in rule.traffic.ports:
        yield from _tls(one, host, traffic.tls, NO_ROOTS_AT_PORT, f" at port {port}")


def _has(mesh: Mesh, service: Service, labels: Mapping[str, str]) -> bool:
    """Whether a workload of the service has these labels."""
    if not labels:
        return True
    serving = {(each.namespace, each.name) for each in mesh.world.endpoints(service.key)}
    return any(
        (each.meta.namespace, each.meta.name) in serving and labels.items() <= _labels(each).items()
        for each in mesh.inventory.objects.values()
        if isinstance(each, Pod | WorkloadEntry)
    )


def _labels(one: Object) -> Mapping[str, str]:
    return one.labels if isinstance(one, WorkloadEntry) else one.meta.labels


def _tls(one: Written, host: str, tls: ClientTls | None, code: Code, where: str) -> Iterator[Finding]:
    if tls is None or tls.mode not in (TlsMode.SIMPLE, TlsMode.MUTUAL):
        return
    if not (tls.roots or tls.credential or tls.skip_verify):
        message = f"tls mode {tls.mode.name} of {host}{where} has no caCertificates: the system's roots count"
        yield found(code, one, message)
