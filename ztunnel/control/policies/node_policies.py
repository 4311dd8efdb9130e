"""The policies that node proxies enforce, as AuthorizationPolicies and PeerAuthentications make them, kept up
to date."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ztunnel.control.delta import Delta
from ztunnel.control.policies.authorization import convert_authorization
from ztunnel.control.policies.peer_authentication import PeerModes, convert_peer_authentications
from ztunnel.control.settings import MeshSettings
from ztunnel.control.source.document import Key
from ztunnel.model.policy import Policy, PolicyScope
from ztunnel.state.istio import AuthorizationPolicy, PeerAuthentication


class Converted(NamedTuple):
    """What the operator should know of an AuthorizationPolicy, and the labels that it selects by and has
    selected by; None: not by labels."""

    remarks: tuple[str, ...]
    before: Mapping[str, str] | None
    now: Mapping[str, str] | None


class NodePolicies:
    """Policies by `namespace/name`.

    Attributes:
        in_force: all of them.
        modes: what PeerAuthentications say.
        remarks: what the operator should know of these.
    """

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._peers: dict[Key, PeerAuthentication] = {}
        self._of_peers: dict[str, Policy] = {}
        self._selecting: dict[str, dict[str, tuple[Policy, Mapping[str, str]]]] = {}
        self.in_force: dict[str, Policy] = {}
        self.modes, _, self.remarks = convert_peer_authentications((), settings)

    def selecting(self, namespace: str) -> Iterator[tuple[Policy, Mapping[str, str]]]:
        """Those that select workloads of a namespace by their labels, with these: of the root namespace, and
        its own."""
        for each in dict.fromkeys((self._settings.root_namespace, namespace)):
            yield from self._selecting.get(each, {}).values()

    def put(self, key: Key, new: AuthorizationPolicy | None, delta: Delta) -> Converted:
        """The policy of that key is now `new`."""
        policy, remarks = convert_authorization(new, self._settings) if new else (None, ())
        self._put(f"{key.namespace}/{key.name}", policy, delta)
        here = self._selecting.setdefault(key.namespace, {})
        before = here.pop(key.name)[1] if key.name in here else None
        now = None
        if new is not None and policy is not None and policy.scope is PolicyScope.WORKLOAD_SELECTOR:
            now = new.selector
            here[key.name] = policy, now
        return Converted(remarks, before, now)

    def put_peer(self, key: Key, new: PeerAuthentication | None) -> None:
        """The PeerAuthentication of that key is now `new`; `convert_peers` brings it into force."""
        self._peers.pop(key, None)
        if new is not None:
            self._peers[key] = new

    def convert_peers(self, delta: Delta) -> PeerModes:
        """Convert the PeerAuthentications; the modes that there were before."""
        before = self.modes
        found = (self._peers[key] for key in sorted(self._peers))
        self.modes, policies, self.remarks = convert_peer_authentications(found, self._settings)
        made = {policy.key: policy for policy in policies}
        for name in self._of_peers.keys() | made.keys():
            self._put(name, made.get(name), delta)
        self._of_peers = made
        return before

    def _put(self, name: str, policy: Policy | None, delta: Delta) -> None:
        if self.in_force.get(name) == policy:
            return
        delta.policies[name] = policy
        if policy is None:
            del self.in_force[name]
        else:
            self.in_force[name] = policy
