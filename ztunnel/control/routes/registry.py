"""What routes refer to: services by their hosts, destination rules, delegates, grants.

Whoever converts an object asks a `View`, which writes down what was asked. So it is known what has to be
converted anew when anything of it changes, what was not there included."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ztunnel.control.membership import set_entry
from ztunnel.control.routes.hosts import covering, is_exported, whole_name
from ztunnel.control.services.endpoint import Name
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key, Object
from ztunnel.model.route_policy import RetryDefault
from ztunnel.model.service import Service, ServiceName
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.gateway import ReferenceGrant
from ztunnel.state.route_filter import Reference
from ztunnel.state.virtual_service import VirtualService


class Asked(NamedTuple):
    """What was asked for: `host`, `entry`, `rule` (a DestinationRule's host), `delegate`, `grants` or
    `retries`, and its name."""

    what: str
    name: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The DestinationRules that count for a host: of one namespace and one host, the oldest first."""

    rules: tuple[DestinationRule, ...] = ()

    def labels(self, subset: str) -> tuple[tuple[str, str], ...] | None:
        """The labels of a subset, sorted; None where there is no such subset."""
        for rule in self.rules:
            for one in rule.subsets:
                if one.name == subset:
                    return tuple(sorted(one.labels.items()))
        return None


class Registry:
    """Kept up to date by `put` and `put_service`, which say what of it is another."""

    def __init__(self, settings: MeshSettings) -> None:
        self.settings = settings
        self._services: dict[str, dict[ServiceName, Service]] = {}
        self._entries: dict[Name, dict[ServiceName, Service]] = {}
        self._rules: dict[str, dict[Key, DestinationRule]] = {}
        self._delegates: dict[Name, VirtualService] = {}
        self._grants: dict[str, dict[Key, ReferenceGrant]] = {}
        self.retries = RetryDefault()

    def put_retries(self, retries: RetryDefault) -> Iterator[Asked]:
        """This counts for rules that say nothing of retries."""
        if retries != self.retries:
            self.retries = retries
            yield _RETRIES

    def put(self, key: Key, old: Object | None, new: Object | None) -> Iterator[Asked]:
        """The object of that key is now `new`, and was `old`."""
        for one, there in ((old, False), (new, True)):
            if isinstance(one, DestinationRule):
                host = whole_name(one.host, key.namespace, self.settings.cluster_domain)
                set_entry(self._rules, host, key, one if there else None)
                yield Asked("rule", host)
            elif isinstance(one, ReferenceGrant):
                set_entry(self._grants, key.namespace, key, one if there else None)
                yield Asked("grants", key.namespace)
            elif isinstance(one, VirtualService) and one.is_delegate:
                self._delegates.pop((key.namespace, key.name), None)
                if there:
                    self._delegates[key.namespace, key.name] = one
                yield Asked("delegate", f"{key.namespace}/{key.name}")

    def put_service(self, old: Service | None, new: Service | None) -> Iterator[Asked]:
        """A service is now `new`, and was `old`; what a waypoint or endpoints of it change concerns no
        route to it."""
        for one, there in ((old, None), (new, new)):
            if one is not None:
                set_entry(self._services, one.hostname, one.key, there)
                if not self.is_kube(one):
                    set_entry(self._entries, (one.namespace, one.name), one.key, there)
        if old is None or new is None or _seen(old) != _seen(new):
            for one in (old, new):
                if one is not None:
                    yield Asked("host", one.hostname)
                    yield Asked("entry", f"{one.namespace}/{one.name}")

    def is_kube(self, one: Service) -> bool:
        """Whether it is a Service, and not a host of a ServiceEntry: by its name."""
        return one.hostname == f"{one.name}.{one.namespace}.svc.{self.settings.cluster_domain}"

    def hosts_of(self, entry: Name) -> tuple[Service, ...]:
        """The services of a ServiceEntry, in order."""
        found = self._entries.get(entry, {})
        return tuple(found[key] for key in sorted(found))

    def named(self, host: str) -> Iterable[ServiceName]:
        """The services with that host."""
        return self._services.get(host, ())

    def service(self, host: str, namespace: str) -> Service | None:
        """The service with that host: the namespace's own, else the mesh's, else the first."""
        found = self._services.get(host)
        if not found:
            return None
        ordered = sorted(
            found.values(), key=lambda one: (one.namespace != namespace, not one.canonical, one.key)
        )
        return ordered[0]

    def chosen(self, host: str, namespace: str, of_service: str) -> Chosen:
        """The rules for a host that count for callers of `namespace`: of that namespace, else of the
        service's, else of the root namespace; of the most specific host."""
        for each in dict.fromkeys((namespace, of_service, self.settings.root_namespace)):
            for pattern in covering(host):
                rules = [
                    one
                    for key, one in self._rules.get(pattern, {}).items()
                    if key.namespace == each
                    and not one.selector
                    and is_exported(one.export_to, each, namespace)
                ]
                if rules:
                    return Chosen(
                        tuple(sorted(rules, key=lambda one: (one.meta.created or "~", one.meta.name)))
                    )
        return Chosen()

    def callers(self, host: str) -> set[str]:
        """The namespaces for whose callers rules for a host may count that do not count for all: those of the
        rules, and those that they name in `exportTo`."""
        rules = [rule for pattern in covering(host) for rule in self._rules.get(pattern, {}).items()]
        named = {each for _, rule in rules for each in rule.export_to}
        return (named | {key.namespace for key, _ in rules}) - {"*", "."}

    def delegate(self, name: Name) -> VirtualService | None:
        """The VirtualService of that name, if others may delegate to it."""
        return self._delegates.get(name)

    def is_granted(self, kind: str, namespace: str, target: Reference) -> bool:
        """Whether a grant of the target's namespace lets routes of that kind and namespace refer to it."""
        source = ("gateway.networking.k8s.io", kind, namespace)
        wanted = (target.group, target.kind)
        return any(
            source in grant.sources
            and any((group, of) == wanted and name in ("", target.name) for group, of, name in grant.targets)
            for grant in self._grants.get(target.namespace, {}).values()
        )


_RETRIES: Final = Asked("retries", "")


class View:
    """The registry as one conversion sees it. `asked` is what it has looked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.settings = registry.settings
        self.asked: set[Asked] = set()

    def service(self, host: str, namespace: str) -> Service | None:
        """See `Registry.service`."""
        self.asked.add(Asked("host", host))
        return self._registry.service(host, namespace)

    def entry(self, namespace: str, name: str) -> Service | None:
        """The service of the first host of a ServiceEntry."""
        self.asked.add(Asked("entry", f"{namespace}/{name}"))
        return next(iter(self._registry.hosts_of((namespace, name))), None)

    def chosen(self, service: Service, namespace: str) -> Chosen:
        """See `Registry.chosen`."""
        self.asked.update(Asked("rule", pattern) for pattern in covering(service.hostname))
        return self._registry.chosen(service.hostname, namespace, service.namespace)

    def retries(self) -> RetryDefault:
        """What counts for a rule that says nothing of retries."""
        self.asked.add(_RETRIES)
        return self._registry.retries

    def delegate(self, name: Name) -> VirtualService | None:
        """See `Registry.delegate`."""
        self.asked.add(Asked("delegate", f"{name[0]}/{name[1]}"))
        return self._registry.delegate(name)

    def is_granted(self, kind: str, namespace: str, target: Reference) -> bool:
        """See `Registry.is_granted`."""
        self.asked.add(Asked("grants", target.namespace))
        return self._registry.is_granted(kind, namespace, target)


def _seen(one: Service) -> tuple[object, ...]:
    """What of a service a route to it depends on."""
    return one.ports, one.canonical, one.namespace, one.name
