"""What waypoints are told of RequestAuthentications, with the keys of the moment: for which services each is,
and what it says.

Only those with `targetRefs` are for waypoints, as in Istio's ambient mode; a node proxy sees no token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from ztunnel.control.delta import Delta, HttpResources, Touched
from ztunnel.control.keys.key_source import KeySource, source_of
from ztunnel.control.policies.guard import Guards
from ztunnel.control.policies.policy_targets import PolicyTargets
from ztunnel.control.source.document import Key, Object
from ztunnel.model.jwt import JwtPolicy, JwtRule
from ztunnel.state.request_authentication import RequestAuthentication
from ztunnel.xds.resource import JWT_POLICY

KeysOf = Callable[[KeySource], str]
"""The keys in force of a source, as a JWKS; empty where there are none."""


def no_keys(_source: KeySource) -> str:
    """Of whoever fetches none."""
    return ""


class JwtPolicies:
    """All of them. Kept up to date by `put` and `renew`."""

    def __init__(self, guards: Guards, targets: PolicyTargets, http: HttpResources, keys_of: KeysOf) -> None:
        """All but `keys_of` is kept up to date, too; `guards` are of these policies alone."""
        self._guards = guards
        self._targets = targets
        self._http = http
        self._keys_of = keys_of
        self._objects: dict[Key, RequestAuthentication] = {}
        self._using: dict[KeySource, set[Key]] = {}

    @property
    def sources(self) -> dict[KeySource, float]:
        """Where keys are to be fetched, with the seconds that each may take."""
        found: dict[KeySource, float] = {}
        for source, keys in self._using.items():
            rules = (rule for key in keys for rule in self._objects[key].rules)
            found[source] = max(rule.timeout_seconds for rule in rules if source_of(rule) == source)
        return found

    def sources_of(self, names: Iterable[str]) -> set[KeySource]:
        """Those of the objects of these names, `namespace/name`."""
        wanted = frozenset(names)
        return {
            source
            for source, keys in self._using.items()
            if any(f"{key.namespace}/{key.name}" in wanted for key in keys)
        }

    def put(self, key: Key, new: Object | None, touched: Touched, delta: Delta) -> None:
        """The object of that key is now `new`; of another kind it is none of ours."""
        if key.kind != RequestAuthentication.__name__:
            return
        for source in _sources(self._objects.pop(key, None)):
            self._using[source].discard(key)
            if not self._using[source]:
                del self._using[source]
        found = new if isinstance(new, RequestAuthentication) else None
        if found is not None and found.targets:
            self._objects[key] = found
            for source in _sources(found):
                self._using.setdefault(source, set()).add(key)
        self._convert(key, delta)
        self._targets.put(
            key, found.meta if found is not None else None, found.targets if found is not None else ()
        )
        for each in self._guards.put((key.namespace, key.name), found):
            touched.take(each)
            delta.unsettled.add(each)

    def renew(self, sources: Iterable[KeySource]) -> Delta:
        """The keys of these are others now; what that changes."""
        delta = Delta()
        for key in sorted({key for source in sources for key in self._using.get(source, ())}):
            self._convert(key, delta)
        return delta

    def of(self, key: Key, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Those, `namespace/name`, for a service with these labels, or for the waypoint that it is."""
        return self._guards.of(key, labels)

    def about(self, keys: Iterable[Key]) -> Iterator[Key]:
        """Those that have one of these as a target."""
        return self._guards.about(keys)

    def _convert(self, key: Key, delta: Delta) -> None:
        found, made = self._objects.get(key), None
        if found is not None:
            made = JwtPolicy(key.name, key.namespace, tuple(map(self._keyed, found.rules)))
        self._http.put(JWT_POLICY, f"{key.namespace}/{key.name}", made, delta)

    def _keyed(self, rule: JwtRule) -> JwtRule:
        source = source_of(rule)
        return rule if source is None else replace(rule, keys=self._keys_of(source))


def _sources(found: RequestAuthentication | None) -> set[KeySource]:
    sources = map(source_of, found.rules) if found is not None else ()
    return {source for source in sources if source is not None}
