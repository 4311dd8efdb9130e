"""What waypoints are given of Secrets: those that a `credentialName` of a DestinationRule names, of the
namespace of the waypoints whose requests it concerns; kept up to date.

Which Secret holds what is as istiod has it (pilot/pkg/credentials/kube/secrets.go): authorities are those of
`<name>-cacert`, else of `<name>`; certificate and key those of `<name>`, and sent only where a rule wants
MUTUAL. A Secret is asked for (`wanted`) only where a waypoint uses it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ztunnel.control.delta import Delta, HttpResources
from ztunnel.control.membership import set_member
from ztunnel.control.services.endpoint import Name
from ztunnel.control.source.document import Key, Object
from ztunnel.control.waypoints.scope import handle_of, led_to, provided_by, waypoints_of
from ztunnel.model.credential import Credential
from ztunnel.model.provider import ServicePort
from ztunnel.model.route import Routes
from ztunnel.model.service import Service, ServiceName
from ztunnel.model.service_traffic import ServiceTraffic
from ztunnel.model.traffic import ClientTls, PortTraffic, TlsMode
from ztunnel.model.workload import Workload
from ztunnel.state.destination_rule import DestinationRule
from ztunnel.state.secret import Secret
from ztunnel.xds.resource import CREDENTIAL, PROVIDER, RATE_LIMIT, Resource

ROOTS_SUFFIX: Final = "-cacert"


def _no_trouble(_name: Name) -> str:
    """The default of `trouble`."""
    return ""


class Credentials:
    """Those of all waypoints.

    Attributes:
        wanted: the Secrets, by namespace and name, that there are perhaps.
        trouble: why a Secret cannot be read, where that is so.
        untold: Secrets are not told here, so nothing is said of those that are missing.
    """

    def __init__(self, http: HttpResources) -> None:
        self.wanted: frozenset[Name] = frozenset()
        self.trouble: Callable[[Name], str] = _no_trouble
        self.untold = False
        self._http = http
        self._secrets: dict[Name, Secret] = {}
        self._rules: dict[Key, DestinationRule] = {}
        self._using: dict[ServiceName, ServiceTraffic] = {}
        self._waypoints: dict[ServiceName, frozenset[str]] = {}
        self._of_workloads: Counter[str] = Counter()
        self._leading: dict[ServiceName, set[ServiceName]] = {}
        self._routes: dict[ServiceName, frozenset[ServiceName]] = {}
        self._providers: dict[tuple[str, str], ServicePort] = {}
        self._made: dict[str, Credential] = {}
        self._dirty = False

    # --- what it is told

    def put(self, key: Key, old: Object | None, new: Object | None) -> None:
        """The object of that key is now `new`, and was `old`."""
        if isinstance(old, Secret) or isinstance(new, Secret):
            self._secrets.pop((key.namespace, key.name), None)
            if isinstance(new, Secret):
                self._secrets[key.namespace, key.name] = new
            self._dirty = True
        if isinstance(old, DestinationRule) or isinstance(new, DestinationRule):
            self._rules.pop(key, None)
            if isinstance(new, DestinationRule) and any(_of_rule(new)):
                self._rules[key] = new
                self._dirty = True

    def put_service(self, old: Service | None, new: Service | None) -> None:
        """A service is now `new`, and was `old`: which waypoints serve it."""
        if old is not None and (new is None or new.key != old.key):
            self._dirty |= self._waypoints.pop(old.key, None) is not None
        if new is not None:
            found = frozenset(one.namespace for one in waypoints_of(new) if isinstance(one, ServiceName))
            if found != self._waypoints.get(new.key, frozenset()):
                self._dirty = True
                self._waypoints.pop(new.key, None)
                if found:
                    self._waypoints[new.key] = found

    def put_workload(self, old: Workload | None, new: Workload | None) -> None:
        """A workload is now `new`, and was `old`: its waypoint asks providers as any other, though no service
        may be attached to it."""
        for one, more in ((new, 1), (old, -1)):
            handle = handle_of(one.waypoint) if one is not None else None
            if isinstance(handle, ServiceName):
                count = self._of_workloads[handle.namespace]
                self._of_workloads[handle.namespace] = count + more
                self._dirty |= count + more == 0 or count == 0

    def put_routes(self, service: ServiceName, routes: Routes | None) -> None:
        """The routes of a service are these now: where they lead."""
        before = self._routes.pop(service, frozenset())
        now = frozenset(led_to(routes)) if routes is not None else frozenset()
        for one in before - now:
            set_member(self._leading, one, service, False)
        for one in now - before:
            set_member(self._leading, one, service, True)
        if now:
            self._routes[service] = now
        self._dirty |= before != now

    def put_traffic(self, service: ServiceName, traffic: ServiceTraffic | None) -> None:
        """The traffic policies of a service are these now."""
        before = self._using.pop(service, None)
        if traffic is not None and any(traffic.credentials()):
            self._using[service] = traffic
        self._dirty |= before != self._using.get(service)

    def put_provider(self, type_url: str, name: str, provider: Resource | None) -> None:
        """A provider, or a rate limit, is this now: the service that it is at is called by any waypoint."""
        before = self._providers.pop((type_url, name), None)
        now = provided_by(provider)
        if now is not None:
            self._providers[type_url, name] = now
        self._dirty |= before != now

    # --- what it comes to

    def renew(self, delta: Delta, *, anew: bool = False) -> frozenset[Key]:
        """Have waypoints sent what has changed; the DestinationRules of which there may be something else to
        say. `anew`: `trouble` has another answer. Who is asked or told by waypoints is taken from the same
        delta."""
        for url in (PROVIDER, RATE_LIMIT):
            for name, provider in delta.http.get(url, {}).items():
                self.put_provider(url, name, provider)
        if not self._dirty and not anew:
            return frozenset()
        self._dirty = False
        used = self._used()
        self.wanted = frozenset(
            (namespace, name)
            for namespace, credential in used
            for name in (credential, credential + ROOTS_SUFFIX)
        )
        before, self._made = (
            self._made,
            {made.key: made for name, private in used.items() if (made := self._make(name, private=private))},
        )
        changed = {key for key in before.keys() | self._made.keys() if before.get(key) != self._made.get(key)}
        for key in changed:
            self._http.put(CREDENTIAL, key, self._made.get(key), delta)
        return frozenset(self._rules) if changed else frozenset()

    def _used(self) -> dict[Name, bool]:
        """The credentials that waypoints use, by namespace and name; whether with the key."""
        found: dict[Name, bool] = {}
        for service, traffic in self._using.items():
            for namespace in self._callers(service):
                for tls in traffic.credentials(namespace):
                    name = namespace, tls.credential
                    found[name] = found.get(name, False) or tls.mode is TlsMode.MUTUAL
        return found

    def _callers(self, service: ServiceName) -> set[str]:
        """The namespaces of the waypoints that call a service: its own, and those of services whose routes
        lead to it; of a provider's all."""
        if any(at.means(service) for at in self._providers.values()):
            return {one for found in self._waypoints.values() for one in found}.union(+self._of_workloads)
        services = {service, *self._leading.get(service, ())}
        return {one for each in services for one in self._waypoints.get(each, ())}

    def _make(self, name: Name, *, private: bool) -> Credential:
        namespace, credential = name
        own = self._secrets.get(name)
        roots = self._secrets.get((namespace, credential + ROOTS_SUFFIX))
        proving = roots if roots is not None and roots.roots else own
        return Credential(
            credential,
            namespace,
            own.certificate if own is not None and private else "",
            own.private_key if own is not None and private else "",
            proving.roots if proving is not None else "",
            proving.revoked if proving is not None else "",
            self._problem(name, own, roots),
        )

    def _problem(self, name: Name, own: Secret | None, roots: Secret | None) -> str:
        namespace, credential = name
        if own is not None:
            return ""
        trouble = self.trouble(name) or (
            self.trouble((namespace, credential + ROOTS_SUFFIX)) if roots is None else ""
        )
        return trouble or f"there is no Secret {namespace}/{credential}"

    # --- what there is to say

    def remarks(self, key: Key) -> tuple[str, ...]:
        """What of a DestinationRule's Secrets is missing, for which its servers are not called."""
        rule = self._rules.get(key)
        if rule is None or self.untold:
            return ()
        texts = (
            f"credentialName {tls.credential!r}, for waypoints of {made.namespace}: {lacks}"
            for tls in _of_rule(rule)
            for made in self._made.values()
            if made.name == tls.credential and (lacks := made.lacks(tls))
        )
        return tuple(dict.fromkeys(texts))

    def texts(self) -> Iterator[str]:
        """The same of all rules, a line each."""
        for key in sorted(self._rules):
            yield from (f"{key}: {text}" for text in self.remarks(key))


def _of_rule(rule: DestinationRule) -> Iterator[ClientTls]:
    yield from _of(rule.traffic)
    for subset in rule.subsets:
        yield from _of(subset.traffic)


def _of(traffic: PortTraffic) -> Iterable[ClientTls]:
    return traffic.credentials()
