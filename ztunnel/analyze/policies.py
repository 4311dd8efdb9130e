"""What is doubtful in policies: selectors that match nothing, STRICT where it protects nobody, HTTP rules
that nobody enforces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ztunnel.analyze.finding import (
    INEFFECTIVE,
    MISSING,
    NO_MATCH,
    REMARK,
    SECOND_TELEMETRY,
    STRICT_CLIENTS,
    STRICT_OUTSIDE,
    Code,
    Finding,
)
from ztunnel.analyze.mesh import Mesh, Written, is_route
from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import of_kind
from ztunnel.model.http_policy import HttpAction
from ztunnel.model.provider import ExtAuthz
from ztunnel.model.workload import Workload
from ztunnel.state import kube
from ztunnel.state.lookup import authorizer_of
from ztunnel.state.rate_limit_policy import RateLimitPolicy

_SECURITY = "security.istio.io"
_NAMED = 5
_WAYPOINT = "is not ready: HTTP rules"
_UNKNOWN_PROVIDER = "no extensionProvider of the mesh config has that name"
_NO_SECRET = "there is no Secret "
_MODE = "is neither ambient nor none"
"""Told of what is written; this is also of pods that are made of it."""
_SECOND = "is older and for the same namespace"
_HTTP_MARKS = ("HTTP attributes", "nobody enforces it", "do not support the", "it does nothing")


def policy_findings(mesh: Mesh) -> Iterator[Finding]:
    """All of them."""
    for kind in ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"):
        for one in mesh.of(_SECURITY, kind):
            yield from _selectors(mesh, one)
    yield from _strict(mesh)
    yield from _limits(mesh)
    yield from _authorizers(mesh)
    yield from _remarks(mesh)


def found(code: Code, one: Written, message: str) -> Finding:
    """A finding about an object."""
    return Finding(code.code, code.level, str(one), message, one.file, one.line)


def named(names: Iterator[str] | list[str]) -> str:
    """Some of the names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"


def _selectors(mesh: Mesh, one: Written) -> Iterator[Finding]:
    wanted = one.labels("spec.selector.matchLabels")
    if wanted and not list(_pods(mesh, one, wanted)):
        text = ", ".join(f"{key}={value}" for key, value in sorted(wanted.items()))
        yield found(NO_MATCH, one, f"no pod has the labels {text}: it concerns nobody")


def _pods(mesh: Mesh, policy: Written, selector: Mapping[str, str]) -> Iterator[kube.Pod]:
    """The pods that a policy selects; one of the root namespace selects everywhere."""
    everywhere = policy.namespace == mesh.settings.root_namespace
    for pod in of_kind(mesh.inventory.objects.values(), kube.Pod):
        if (everywhere or pod.meta.namespace == policy.namespace) and (
            selector.items() <= pod.meta.labels.items()
        ):
            yield pod


def _authorizers(mesh: Mesh) -> Iterator[Finding]:
    """Providers of CUSTOM policies that are there, and whose service is not."""
    world = mesh.world
    for one in mesh.of(_SECURITY, "AuthorizationPolicy"):
        policy = world.http_policies.get(f"{one.namespace}/{one.name}")
        if policy is None or policy.action is not HttpAction.CUSTOM:
            continue
        provider = world.providers.get(policy.provider)
        if provider is None or not isinstance(provider.what, ExtAuthz):
            continue  # which is a remark
        why = authorizer_of(world, policy.provider)
        if isinstance(why, str):
            yield found(REMARK, one, f"{why}: what the policy matches is refused")


def _strict(mesh: Mesh) -> Iterator[Finding]:
    workloads = {(one.namespace, one.name): one for one in mesh.world.workloads.values()}
    for one in mesh.of(_SECURITY, "PeerAuthentication"):
        if one.get("spec.mtls.mode") != "STRICT":
            continue
        pods = [
            workloads.get((pod.meta.namespace, pod.meta.name))
            for pod in _pods(mesh, one, one.labels("spec.selector.matchLabels"))
        ]
        bare = [
            _name(each) for each in pods if each is not None and not each.enrolled and not each.host_network
        ]
        if bare:
            message = f"it protects nobody who is not in the mesh: {named(bare)}"
            yield found(STRICT_OUTSIDE, one, message)
        elif outside := _outside(mesh, one.namespace):
            message = (
                f"what is not in the mesh cannot call its pods; in the same namespaces: {named(outside)}"
            )
            yield found(STRICT_CLIENTS, one, message)


def _limits(mesh: Mesh) -> Iterator[Finding]:
    """Services that are to count for rate limits, and are not there."""
    for one in mesh.of("ztunnel.io", RateLimitPolicy.__name__):
        policy = mesh.inventory.objects.get(Key(one.kind, one.namespace, one.name))
        limit = policy.service if isinstance(policy, RateLimitPolicy) else None
        if limit is None:
            continue
        then = "answered 500" if limit.deny else "let through"
        services = mesh.world.services_named(limit.host)
        if not services:
            text = f"global.host: there is no service {limit.host}: requests are {then}"
            yield found(MISSING, one, text)
        elif not any(port.service == limit.port for each in services for port in each.ports):
            text = f"global.port: {limit.host} has no port {limit.port}: requests are {then}"
            yield found(MISSING, one, text)


def _outside(mesh: Mesh, namespace: str) -> list[str]:
    """Pods outside of the mesh that are likely clients: in the policy's namespace, everywhere for the
    root's."""
    everywhere = namespace == mesh.settings.root_namespace
    return [
        _name(one)
        for one in mesh.world.workloads.values()
        if not one.enrolled and (everywhere or one.namespace == namespace) and one.namespace != "kube-system"
    ]


def _name(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name}"


def _has_waypoint(mesh: Mesh, namespace: str) -> bool:
    label = "istio.io/use-waypoint"
    return any(
        one.labels().get(label, "none") != "none"
        for one in mesh.written
        if one.namespace == namespace or (one.kind == "Namespace" and one.name == namespace)
    )


def _remarks(mesh: Mesh) -> Iterator[Finding]:
    """What the translation remarks, as findings about the objects that it names (`Kind namespace/name: ...`);
    waypoints that are missing are a finding of their own."""
    by_name = {str(one): one for one in mesh.written}
    for text in mesh.warnings:
        who, _, message = text.partition(": ")
        one = by_name.get(who)
        if _WAYPOINT in message or _MODE in message or is_route(who.partition(" ")[0]):
            continue
        code = INEFFECTIVE if any(mark in message for mark in _HTTP_MARKS) else REMARK
        if _UNKNOWN_PROVIDER in message or _NO_SECRET in message:
            code = MISSING
        elif _SECOND in message:
            code = SECOND_TELEMETRY
        if one is not None:
            yield found(code, one, message)
        elif not text.startswith("not read: "):
            yield Finding(code.code, code.level, "mesh", text)
