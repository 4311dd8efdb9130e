"""A control plane's parts where Kubernetes is its source: objects, authority, roots, tokens, status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random, SystemRandom
from typing import Final

import trio

from ztunnel.ca.authenticate import TokenReviews
from ztunnel.ca.authority_report import AuthorityReport
from ztunnel.ca.distribute import RootDistribution
from ztunnel.ca.keep import KeptAuthority
from ztunnel.ca.root_maps import OWN, SHARED, RootMaps
from ztunnel.config import Settings
from ztunnel.control.serve import Server
from ztunnel.control.settings import MeshSettings, mesh_settings
from ztunnel.control.source.document import Key
from ztunnel.control.source.follow import ClusterWatch
from ztunnel.control.source.recall import LastGood
from ztunnel.control.source.report import ManifestReport
from ztunnel.control.status.annotate import Annotator
from ztunnel.control.status.patch import StatusWriter
from ztunnel.control.status.untaint import Untainting
from ztunnel.control.waypoints.deploy import Deployer, Wanted
from ztunnel.control.waypoints.template import read_template
from ztunnel.kube.call import Api
from ztunnel.kube.elect import Election
from ztunnel.kube.lease import Candidate
from ztunnel.run.reporting import Reporting, now
from ztunnel.state.gateway import Gateway
from ztunnel.telemetry.export import Log

LEASE: Final = "ztunnel-control"


@dataclass(frozen=True, slots=True)
class _QuietLog:
    """The log, where what is said of ordinary changes is for debugging: a cluster changes all the time."""

    log: Log

    def info(self, message: str, **fields: str | int | float | bool) -> None:
        self.log.debug(message, **fields)

    def warn(self, message: str, **fields: str | int | float | bool) -> None:
        self.log.warn(message, **fields)

    def error(self, message: str, **fields: str | int | float | bool) -> None:
        self.log.error(message, **fields)


class Cluster:
    """The parts, built; `follow` runs them."""

    def __init__(self, api: Api, settings: Settings, reporting: Reporting, server: Server) -> None:
        self._settings = settings
        self._reporting = reporting
        self._api = api
        self._troubles: tuple[str, ...] = ()
        self._absent: tuple[str, ...] | None = None
        chance = Random(SystemRandom().getrandbits(64))
        mesh = replace(mesh_settings(settings), attach_ready=True)
        log = reporting.log.scoped("kube")
        self._report = ManifestReport(_QuietLog(log), reporting.readiness, settings.root_namespace)
        self._report.register(reporting.figures)
        self.watch = ClusterWatch(api, mesh, server.publish, self._observe, chance)
        self.watch.register(reporting.figures)
        self._status = StatusWriter(api, self.watch.collection, mesh, now, adopt=settings.adopt)
        self._status.tell = self._teller("status of objects")
        self._status.register(reporting.figures)
        self.watch.unsettled = self._status.wake
        tell = self._teller("enrolment on pods")
        self.annotator = Annotator(api, lambda: self.watch.pods, self._leaves_pods_alone, tell)
        self.annotator.register(reporting.figures)
        self.watch.memory = self._status.memory = LastGood(api, settings.pod_namespace)
        self._status.memory.tell = self._teller("last good versions")
        self._untainting = self._untaint(settings) if settings.node_taint else None
        self._deployer = self._deploy(settings, mesh) if settings.waypoint else None
        self._authorities = AuthorityReport(reporting.log.scoped("ca"), reporting.readiness, now)
        self._authorities.register(reporting.figures)
        where = settings.pod_namespace, settings.trust_domain
        self._kept = KeptAuthority(api, where, now, chance, self._observe_authority)
        self.authority = self._kept.authority
        self._root_maps = RootMaps(settings.pod_namespace, settings.root_namespace, settings.adopt)
        self._roots = RootDistribution(
            api, self._root_maps, self.authority, chance, reporting.log.scoped("ca")
        )
        self._roots.register(reporting.figures)
        self.tokens = TokenReviews(api, settings.trust_domain, now)
        identity = f"{settings.pod_name or 'ztunnel-control'}_{chance.getrandbits(64):016x}"
        candidate = Candidate(settings.pod_namespace, LEASE, identity)
        self._election = Election(api, settings.pod_namespace, candidate, now, chance)
        self._election.tell = self._teller("election")
        reporting.figures.gauge(
            "ztunnel_control_leader",
            "1 where this replica writes the status of objects",
            lambda: float(candidate.leads(trio.current_time())),
        )

    def _teller(self, about: str) -> Callable[[str], None]:
        """Shows a trouble in readiness until it is over, and logs it once."""
        log = self._reporting.log.scoped("kube")

        def tell(trouble: str) -> None:
            self._reporting.readiness.detail(about, trouble)
            if trouble:
                log.warn(f"{about}: cannot be written", error=trouble)

        return tell

    def _untaint(self, settings: Settings) -> Untainting:
        tell = self._teller("node taint")
        made = Untainting(
            self._api, lambda: self.watch.pods, settings.pod_namespace, settings.node_taint, tell
        )
        made.register(self._reporting.figures)
        return made

    def _deploy(self, settings: Settings, mesh: MeshSettings) -> Deployer:
        own = settings.pod_namespace, settings.pod_name
        wanted = Wanted(
            self.watch.waypoints.deployed,
            lambda: OWN if self._beside_istiod() else SHARED,
            own,
            self._note_parameters,
        )
        template, tell = read_template(settings.waypoint), self._teller("waypoints")
        made = Deployer(self._api, template, mesh, wanted, tell)
        made.register(self._reporting.figures)
        return made

    def _note_parameters(self, gateway: tuple[str, str], fault: str) -> None:
        """What is wrong with a Gateway's parameters is said in its status."""
        known = self.watch.waypoints.parameters
        if known.get(gateway, "") == fault:
            return
        known.pop(gateway, None)
        if fault:
            known[gateway] = fault
        key = Key(Gateway.__name__, *gateway)
        if key in self.watch.collection.standings:
            self.watch.collection.unsettled.add(key)
            self._status.wake()

    async def follow(self, nursery: trio.Nursery, done: Callable[[str], None]) -> None:
        """Run all of it in `nursery`; returns when the objects have been read and there is an authority.
        `done` is told which of `manifests` and `certificate authority` is there."""
        ready = trio.Event()
        self.authority.on_change(lambda _: ready.set())
        nursery.start_soon(self._kept.run)
        nursery.start_soon(self._roots.run)
        await nursery.start(self.watch.run)
        done("manifests")
        nursery.start_soon(partial(self._election.run, LEASE, self._lead))
        nursery.start_soon(self.annotator.run)
        await ready.wait()
        done("certificate authority")

    async def _lead(self) -> None:
        """What only one replica does."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._status.run)
            if self._untainting is not None:
                nursery.start_soon(self._untainting.run)
            if self._deployer is not None:
                nursery.start_soon(self._deployer.run)

    def _leaves_pods_alone(self) -> bool:
        """An istiod has its proxies call pods that say so over HBONE, which wants a root that both trust."""
        if not self._settings.show_enrolment:
            return True
        return self._beside_istiod() and not self._root_maps.shares_root

    def _beside_istiod(self) -> bool:
        return self.watch.collection.istiod is not None and not self._settings.adopt

    def _observe(self) -> None:
        self.annotator.wake()
        if self._untainting is not None:
            self._untainting.wake()
        if self._deployer is not None:
            self._deployer.wake()
        self._report.observe(self.watch)
        troubles = self.watch.troubles
        for one in troubles:
            if one not in self._troubles:
                self._reporting.log.scoped("kube").warn("not up to date", error=one)
        if self._troubles and not troubles:
            self._reporting.log.scoped("kube").info("all kinds are up to date again")
        self._troubles = troubles
        self._reporting.readiness.detail("kubernetes", "\n".join(troubles))
        self._tell_absent(self.watch.absent)

    def _tell_absent(self, absent: tuple[str, ...]) -> None:
        """Kinds that were there and are not, or the other way round: with a definition all its objects go,
        and what policies refused is let through."""
        if not self.watch.loaded:
            return
        log, known = self._reporting.log.scoped("kube"), absent if self._absent is None else self._absent
        for one in sorted(set(absent) - set(known)):
            log.warn("not installed any more: no object of this kind is in force", kind=one)
        for one in sorted(set(known) - set(absent)):
            log.info("installed now", kind=one)
        self._absent = absent

    def _observe_authority(self) -> None:
        self._authorities.observe(self._kept.authority.current, self._kept.faults)
