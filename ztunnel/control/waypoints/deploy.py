"""Runs the waypoints that Gateways of our class ask for: their objects are applied, and put right where
somebody changes or deletes them.

What is there already by such a name and was not made for that Gateway is somebody else's: it is left as it
is, and said. Nothing is deleted here: Kubernetes removes what a Gateway owned when that is gone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import trio

from ztunnel.control.settings import MeshSettings
from ztunnel.control.status.standing import MANAGER
from ztunnel.control.waypoints.deployment import MANAGED_BY_US, Part, render
from ztunnel.control.waypoints.fetch import SECONDS, Parameters
from ztunnel.control.waypoints.overlay import BadOverlay, Value
from ztunnel.control.waypoints.owner import has_our_number, is_istiods, is_made, is_owned, mark_of
from ztunnel.control.waypoints.template import Template
from ztunnel.control.waypoints.waypoint import MANAGED
from ztunnel.kube import informer
from ztunnel.kube.call import APPLY, Api
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.informer import Informer
from ztunnel.kube.resource import (
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    POD_AUTOSCALERS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Resource,
)
from ztunnel.kube.watch import Watcher
from ztunnel.state.gateway import Gateway
from ztunnel.telemetry.figures import Figures

WRITTEN: Final = (SERVICE_ACCOUNTS, SERVICES, DEPLOYMENTS, DISRUPTION_BUDGETS, POD_AUTOSCALERS)
BETWEEN_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 5.0
_REFUSED_SECONDS: Final = 60.0
_REPAIR_SECONDS: Final = 1.0
"""Whoever keeps on changing what is ours has it changed back once in so long."""
_SELECTOR: Final = {"labelSelector": f"{MANAGED}={MANAGED_BY_US}"}
_FORCED: Final = {"fieldManager": MANAGER, "force": "true"}
_AS_ISTIOD: Final = {"fieldManager": "istio.io/gateway-controller", "force": "true"}
"""As istiod applies what it makes for Gateways (istio/istio pilot/pkg/config/kube/gatewaycommon)."""
_HANDED_OVER: Final = {"fieldManager": f"{MANAGER}-replicas", "force": "true"}
"""Whose the number of pods is until an autoscaler has taken it up."""
_TAKEN_SECONDS: Final = 60.0
_TAKEN_TIMES: Final = 3
"""An object that was taken over so often in so long is taken back each time: istiod still runs ..."""
_LEFT_SECONDS: Final = 600.0
"""... and has it for so long."""

Name = tuple[str, str]


def _ignore(_gateway: Name, _text: str) -> None:
    """The default observer of faults."""


class NotOurs(Exception):
    """An object of that name is somebody else's; it is looked at again after so long."""

    def __init__(self, text: str, *, again_seconds: float) -> None:
        super().__init__(text)
        self.again_seconds = again_seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the world decides about the objects: the Gateways, and which ConfigMap has the roots; and the
    pod, by namespace and name, whose image is taken where the template names none. `fault` is told what is
    wrong with a Gateway's parameters, empty where nothing is."""

    gateways: Callable[[], Mapping[Name, Gateway]]
    roots: Callable[[], str]
    own_pod: Name = ("", "")
    fault: Callable[[Name, str], None] = _ignore


class Deployer:
    """The waypoints of one cluster; kept while `run` runs, by the one replica that leads.

    Attributes:
        troubles: by Gateway, why it has not got what it asks for.
        applied: objects by kind and outcome (`written`, `failed`, `foreign`).
    """

    def __init__(
        self,
        api: Api,
        template: Template,
        settings: MeshSettings,
        wanted: Wanted,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tell` is called with the first of the troubles whenever that is another one."""
        self._api, self._template, self._settings, self._wanted = api, template, settings, wanted
        self._tell = tell
        self._woken = trio.Event()
        self._done: dict[Name, tuple[Gateway, str]] = {}
        self._due_at: dict[Name, float] = {}
        self._marks: dict[tuple[Resource, Name], object] = {}
        self._told = ""
        self._parameters = Parameters(api, wanted.own_pod[0])
        self._taken: dict[tuple[Resource, Name], list[float]] = {}
        self.troubles: dict[Name, str] = {}
        self.applied: Counter[tuple[str, str]] = Counter()

    def register(self, figures: Figures) -> None:
        """Bring the figures to the register."""
        figures.counter(
            "ztunnel_control_waypoint_objects_total",
            "Objects of waypoints that were applied, could not be, or are somebody else's",
            lambda: list(self.applied.items()),
            ["kind", "outcome"],
        )
        figures.gauge(
            "ztunnel_control_waypoints_failing",
            "Gateways of ours that have not got what they ask for",
            lambda: float(len(self.troubles)),
        )

    def wake(self) -> None:
        """Gateways may be others."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled. Begins with everything: who wrote before may have been another version."""
        self._done.clear()
        await self._find_image()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_at_parameters)
            for resource in WRITTEN:
                nursery.start_soon(self._watcher(resource).run)
            while True:
                name = self._next()
                if name is None:
                    with trio.move_on_at(min(self._due_at.values(), default=math.inf)):
                        await self._woken.wait()
                    self._woken = trio.Event()
                else:
                    await self._deploy(name)

    async def _find_image(self) -> None:
        while not self._template.image:
            try:
                found = await self._api.get(PODS, self._wanted.own_pod[1], self._wanted.own_pod[0])
            except ApiFailure as failure:
                self._tell(f"which image are waypoints to be of? {failure}")
                await trio.sleep(max(failure.retry_seconds or 0.0, _RETRY_SECONDS))
            else:
                image = str(found["spec"]["containers"][0]["image"])
                self._template = replace(self._template, image=image)
                self._tell("")

    def _next(self) -> Name | None:
        """A Gateway whose objects are not known to be as they should."""
        gateways, roots = self._wanted.gateways(), self._wanted.roots()
        for gone in [name for name in (*self._done, *self._due_at) if name not in gateways]:
            for kept in (self._done, self._due_at, self.troubles):
                kept.pop(gone, None)
            self._parameters.forget(gone)
            self._wanted.fault(gone, "")
            self._say()
        now = trio.current_time()
        for name, gateway in gateways.items():
            if self._due_at.get(name, now) <= now and self._done.get(name) != (gateway, roots):
                return name
        return None

    async def _deploy(self, name: Name) -> None:
        gateway, roots = self._wanted.gateways()[name], self._wanted.roots()
        self._done[name] = (gateway, roots)  # unless something of it changes while it is applied
        self._due_at.pop(name, None)
        overlays: tuple[Mapping[str, Value], ...] = ()
        try:
            overlays = await self._parameters.overlays(name, gateway)
            for part in tuple(render(gateway, self._template, self._settings, roots, overlays)):
                await self._apply(part, gateway)
        except BadOverlay as error:
            self._failed(name, str(error), _REFUSED_SECONDS)
            self._wanted.fault(name, str(error))
        except NotOurs as error:
            self._failed(name, str(error), error.again_seconds)
        except ApiFailure as failure:
            refused = failure.code in (400, 403, 422)
            seconds = _REFUSED_SECONDS if refused else _RETRY_SECONDS
            self._failed(name, str(failure), max(failure.retry_seconds or 0.0, seconds))
            if refused and overlays:
                self._wanted.fault(name, str(failure))
        else:
            self._wanted.fault(name, "")
            self.troubles.pop(name, None)
            self._say()

    async def _look_at_parameters(self) -> None:
        """Have a Gateway seen to again whose ConfigMaps are others."""
        while True:
            await trio.sleep(SECONDS)
            for name, gateway in tuple(self._wanted.gateways().items()):
                if await self._parameters.changed(name, gateway):
                    self._done.pop(name, None)
                    self._due_at.pop(name, None)
                    self.wake()

    async def _apply(self, part: Part, gateway: Gateway) -> None:
        """Bring one object to what it should be. Raises ApiFailure, NotOurs."""
        namespace, kind = gateway.meta.namespace, part.resource.kind
        try:
            found = await self._api.get(part.resource, part.name, namespace)
        except ApiFailure as failure:
            if failure.code != 404:
                self.applied[kind, "failed"] += 1
                raise
            found = None
        if found is not None and not is_owned(found, gateway):
            leaves = is_made(found, gateway)  # for an earlier Gateway of the name: Kubernetes will remove it
            if not leaves:
                self.applied[kind, "foreign"] += 1
            text = f"{kind} {namespace}/{part.name} is not this Gateway's: it is left as it is"
            raise NotOurs(text, again_seconds=_REPAIR_SECONDS if leaves else _REFUSED_SECONDS)
        request = Request("patch", part.resource, namespace, part.name)
        try:
            if found is not None and is_istiods(found):
                await self._take_over(part, request)
            if found is not None and part.scaled and has_our_number(found):
                await self._hand_over(found, part, request)
            await self._api.patch(request, part.value, APPLY, _FORCED)
        except ApiFailure:
            self.applied[kind, "failed"] += 1
            raise
        self.applied[kind, "written"] += 1
        await trio.sleep(BETWEEN_SECONDS)

    async def _take_over(self, part: Part, request: Request) -> None:
        """What istiod has applied would stay, its container beside ours: so it is applied in its name, too.
        Where istiod takes it back, it gets it. Raises ApiFailure, NotOurs."""
        key, now = (part.resource, (request.namespace, part.name)), trio.current_time()
        taken = self._taken[key] = [at for at in self._taken.get(key, ()) if now - at < _TAKEN_SECONDS]
        if len(taken) < _TAKEN_TIMES:
            taken.append(now)
            await self._api.patch(request, part.value, APPLY, _AS_ISTIOD)
            return
        identity = {"name": part.name, "namespace": request.namespace}
        nothing = {name: part.value[name] for name in ("apiVersion", "kind")} | {"metadata": identity}
        await self._api.patch(request, nothing, APPLY, _FORCED)
        self.applied[part.resource.kind, "foreign"] += 1
        text = (
            f"{part.resource.kind} {request.namespace}/{part.name} is written by an istiod that still runs: "
        )
        raise NotOurs(f"{text}it has it for ten minutes; take that istiod away", again_seconds=_LEFT_SECONDS)

    async def _hand_over(self, found: Mapping[str, Any], part: Part, request: Request) -> None:
        """An autoscaler begins with as many pods as there are: what we had applied and apply no more is taken
        away, and would leave one (Kubernetes, Server-Side Apply, Transferring ownership). Raises
        ApiFailure."""
        value = {name: part.value[name] for name in ("apiVersion", "kind")}
        value["metadata"] = {"name": part.name, "namespace": request.namespace}
        value["spec"] = {"replicas": found["spec"]["replicas"]}
        await self._api.patch(request, value, APPLY, _HANDED_OVER)

    def _failed(self, name: Name, why: str, seconds: float) -> None:
        self._done.pop(name, None)
        self._due_at[name] = trio.current_time() + seconds
        self.troubles[name] = why
        self._say()

    def _say(self) -> None:
        first = min(self.troubles, default=None)
        text = f"Gateway {first[0]}/{first[1]}: {self.troubles[first]}" if first else ""
        if text != self._told:
            self._told = text
            self._tell(text)

    # --- what others do to the objects

    def _watcher(self, resource: Resource) -> Watcher:
        def take(changes: Sequence[informer.Change]) -> None:
            for change in changes:
                self._take(resource, change)

        return Watcher(self._api, Informer((resource,), Random(), _SELECTOR), take)

    def _take(self, resource: Resource, change: informer.Change) -> None:
        """What is applied is compared by the API server: to apply it once more costs no version. So each
        change of what is not status has it applied again."""
        key = resource, change.name
        mark = None if isinstance(change, informer.Removal) else mark_of(change.value)
        before = self._marks.get(key)
        if mark is None:
            self._marks.pop(key, None)
        else:
            self._marks[key] = mark
        if mark != before:
            for name in [name for name in self._done if name[0] == change.name[0]]:
                self._done.pop(name)
                self._due_at.setdefault(name, trio.current_time() + _REPAIR_SECONDS)
            self.wake()
