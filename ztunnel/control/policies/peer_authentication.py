"""PeerAuthentication as node proxies know it: not at all. STRICT becomes DENY policies that workloads refer
to.

As istiod does (istio/istio pilot/pkg/serviceregistry/ambient: authorization.go, policies.go): one static
policy in the root namespace denies whoever proved no identity, and workloads under STRICT list its key; a
PeerAuthentication with modes for single ports becomes a policy of its own, listed instead. Where istiod's two
halves disagree, both follow the inheritance that the API documents here: UNSET at a namespace inherits the
mesh's mode (istiod then lists a policy that it does not send), and DISABLE at a port is PERMISSIVE (istiod
lists the static policy all the same)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from ztunnel.control.settings import MeshSettings
from ztunnel.model.policy import Action, Clause, Match, MatchKind, Policy, PolicyScope, Rule, StringMatch
from ztunnel.state.istio import Mode, PeerAuthentication

STATIC_STRICT: Final = "istio_converted_static_strict"
"""With underscores, which no Kubernetes name has."""

_NOBODY = (StringMatch(MatchKind.PRESENCE),)


def converted_name(name: str) -> str:
    """The name of the policy that a PeerAuthentication with modes for ports becomes."""
    return f"converted_peer_authentication_{name}"


@dataclass(frozen=True, slots=True)
class PeerModes:
    """What is in force: the mode of each namespace (UNSET resolved, `root` where a namespace says nothing),
    and the PeerAuthentications that select workloads, by namespace, oldest first."""

    root: Mode
    namespaces: Mapping[str, Mode]
    selecting: Mapping[str, tuple[PeerAuthentication, ...]]
    static_key: str

    def of(self, namespace: str) -> tuple[object, ...]:
        """What decides about the workloads of a namespace."""
        return self.namespaces.get(namespace, self.root), self.selecting.get(namespace, ())

    def keys_for(self, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The policies that a workload with these labels has to list, sorted."""
        mode = self.namespaces.get(namespace, self.root)
        for found in self.selecting.get(namespace, ()):
            if found.selector.items() <= labels.items():
                if _rules(found, mode):
                    return (f"{namespace}/{converted_name(found.meta.name)}",)
                mode = _own(found, mode)
                break
        return (self.static_key,) if mode is Mode.STRICT else ()


def convert_peer_authentications(
    found: Iterable[PeerAuthentication], settings: MeshSettings
) -> tuple[PeerModes, tuple[Policy, ...], tuple[str, ...]]:
    """What is in force, the policies for it, and what the operator should know."""
    ordered = sorted(found, key=_age)
    wide: dict[str, PeerAuthentication] = {}
    selecting: dict[str, list[PeerAuthentication]] = {}
    warnings: list[str] = []
    for one in ordered:
        namespace, who = one.meta.namespace, f"PeerAuthentication {one.meta.namespace}/{one.meta.name}"
        if one.selector and namespace == settings.root_namespace:
            warnings.append(f"{who}: a selector has no meaning in the root namespace: ignored")
        elif one.selector:
            selecting.setdefault(namespace, []).append(one)
        elif namespace in wide:
            warnings.append(f"{who}: {wide[namespace].meta.name} is older and covers the same: ignored")
        else:
            wide[namespace] = one
    root = _plain(wide[settings.root_namespace].mode) if settings.root_namespace in wide else Mode.UNSET
    root = Mode.PERMISSIVE if root is Mode.UNSET else root
    modes = PeerModes(
        root,
        {namespace: _own(one, root) for namespace, one in wide.items()},
        {namespace: tuple(ones) for namespace, ones in selecting.items()},
        f"{settings.root_namespace}/{STATIC_STRICT}",
    )
    return modes, _policies(modes, settings) if ordered else (), tuple(warnings)


def _age(found: PeerAuthentication) -> tuple[str, str]:
    """Oldest first; RFC 3339 in UTC, as Kubernetes writes it, sorts as text. One without a time counts as
    oldest."""
    return found.meta.created, found.meta.name


def _policies(modes: PeerModes, settings: MeshSettings) -> tuple[Policy, ...]:
    strict: Rule = ((Match(not_principals=_NOBODY),),)
    policies = [_policy(STATIC_STRICT, settings.root_namespace, (strict,))]
    for namespace, ones in modes.selecting.items():
        mode = modes.namespaces.get(namespace, modes.root)
        converted = ((one, _rules(one, mode)) for one in ones)
        policies += [
            _policy(converted_name(one.meta.name), namespace, rules) for one, rules in converted if rules
        ]
    return tuple(policies)


def _policy(name: str, namespace: str, rules: tuple[Rule, ...]) -> Policy:
    return Policy(name, namespace, PolicyScope.WORKLOAD_SELECTOR, Action.DENY, rules)


def _rules(found: PeerAuthentication, inherited: Mode) -> tuple[Rule, ...]:
    """The rules that single ports need; none where the workload's mode says it all.

    Under STRICT one rule: nobody proved, and none of the exempt ports. Else one for each STRICT port.
    """
    ports = {port: _plain(mode) for port, mode in sorted(found.ports.items())}
    if _own(found, inherited) is not Mode.STRICT:
        strict = [port for port, mode in ports.items() if mode is Mode.STRICT]
        return tuple(((Match(not_principals=_NOBODY, destination_ports=(port,)),),) for port in strict)
    exempt = [port for port, mode in ports.items() if mode is Mode.PERMISSIVE]
    if not exempt:
        return ()
    others: list[Clause] = [(Match(not_destination_ports=(port,)),) for port in exempt]
    nobody: Clause = (Match(not_principals=_NOBODY),)
    return ((nobody, *others),) if found.mode is Mode.STRICT else ((*others, nobody),)


def _own(found: PeerAuthentication, inherited: Mode) -> Mode:
    mode = _plain(found.mode)
    return inherited if mode is Mode.UNSET else mode


def _plain(mode: Mode) -> Mode:
    """DISABLE is PERMISSIVE: a node proxy takes both kinds of connection either way."""
    return Mode.PERMISSIVE if mode is Mode.DISABLE else mode
