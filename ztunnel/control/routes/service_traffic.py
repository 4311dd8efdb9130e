"""The traffic policies of services, kept up to date: what DestinationRules come to for callers of each
namespace (`registry.py` says which rules count)."""

from __future__ import annotations

from collections.abc import Iterator

from ztunnel.control.routes.hosts import covers, whole_name
from ztunnel.control.routes.registry import Registry
from ztunnel.control.source.document import Key, Object
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic, SubsetTraffic
from ztunnel.model.traffic import NO_TRAFFIC, UNSAID, PortTraffic, Traffic
from ztunnel.state.destination_rule import DestinationRule


class ServiceTraffics:
    """Those of all services that a rule is for."""

    def __init__(self, registry: Registry) -> None:
        """`registry` is to be told of what changes before this is."""
        self._registry = registry
        self._baseline = NO_TRAFFIC
        self._services: set[ServiceName] = set()
        self._dirty: set[ServiceName] = set()

    def put(self, key: Key, old: Object | None, new: Object | None) -> None:
        """The object of that key is now `new`, and was `old`."""
        for one in (old, new):
            if isinstance(one, DestinationRule):
                host = whole_name(one.host, key.namespace, self._registry.settings.cluster_domain)
                self._dirty.update(self._below(host))

    def put_baseline(self, baseline: Traffic) -> None:
        """This holds where no rule says anything."""
        if baseline != self._baseline:
            self._baseline = baseline
            self._dirty.update(self._services)

    def put_service(self, old: Service | None, new: Service | None) -> None:
        """A service is now `new`, and was `old`."""
        for one, there in ((old, False), (new, True)):
            if one is not None:
                self._services.discard(one.key)
                if there:
                    self._services.add(one.key)
                if old is None or new is None or old.key != new.key:
                    self._dirty.add(one.key)

    def update(self) -> Iterator[tuple[str, ServiceTraffic | None]]:
        """By `namespace/hostname`, the policies of services that may have others now."""
        dirty, self._dirty = self._dirty, set()
        for name in dirty:
            yield str(name), self._made(name) if name in self._services else None

    def _below(self, host: str) -> Iterator[ServiceName]:
        if host.startswith("*"):
            return (name for name in self._services if covers(host, name.hostname))
        return iter(self._registry.named(host))

    def _made(self, name: ServiceName) -> ServiceTraffic | None:
        common = self._for(name, "")
        clients = [
            made
            for caller in sorted(self._registry.callers(name.hostname))
            if (made := self._for(name, caller)) is not None and not _alike(made, common)
        ]
        if common is not None:
            clients.append(common)
        return ServiceTraffic(name, tuple(clients)) if clients else None

    def _for(self, name: ServiceName, caller: str) -> ClientTraffic | None:
        """What holds for callers of that namespace; None: nothing is said."""
        rules = self._registry.chosen(name.hostname, caller, name.namespace).rules
        baseline = self._baseline
        if not rules:
            return ClientTraffic(caller, PortTraffic(baseline)) if baseline != NO_TRAFFIC else None
        top = rules[0].traffic
        subsets = {one.name: one for rule in reversed(rules) for one in rule.subsets}
        made = tuple(
            SubsetTraffic(each, subsets[each].traffic.over(top).over_mesh(baseline))
            for each in sorted(subsets)
            if subsets[each].traffic != UNSAID
        )
        return ClientTraffic(caller, top.over_mesh(baseline), made)


def _alike(one: ClientTraffic, common: ClientTraffic | None) -> bool:
    return common is not None and (one.traffic, one.subsets) == (common.traffic, common.subsets)
