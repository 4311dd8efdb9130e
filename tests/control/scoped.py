"""Services, pods and routes as a control plane serves them, for what is about the scopes of waypoints."""

from __future__ import annotations

from typing import Any

from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.model.route_policy import Mirror
from ztunnel.model.service import Port, Service, Waypoint
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import Resource
from ztunnel.xds.snapshot import Snapshot, take

AT = RouteSource("HTTPRoute", "shop", "web")


def service(name: str, namespace: str = "shop", *, at: Service | None = None, **more: Any) -> Service:
    """One, attached to `at`."""
    waypoint = Waypoint(at.key, None) if at is not None else None
    return Service(name, namespace, f"{name}.{namespace}.svc", waypoint=waypoint, **more)


def pod(name: str, *services: Service, namespace: str = "shop", **more: Any) -> Workload:
    """One that serves these."""
    ports = {one.key: (Port(80, 8080),) for one in services}
    return Workload(f"c//Pod/{namespace}/{name}", name, namespace, services=ports, **more)


def forwards(_of: Service, *to: Service) -> Rule:
    """A rule that sends there."""
    return Rule("", AT, Forward(tuple(Destination(one.key) for one in to)))


def mirrored(of: Service, to: Service) -> Rule:
    """A rule that sends on, and a copy there."""
    return Rule("", AT, Forward((Destination(of.key),)), mirrors=(Mirror(Destination(to.key)),))


def routes(of: Service, *rules: Rule) -> Routes:
    """Those of a service."""
    return Routes(of.key, rules)


def snapshot(*resources: Resource, before: Snapshot | None = None) -> Snapshot:
    """Exactly these; the one that follows `before`."""
    return take(resources, "", before or Snapshot())
