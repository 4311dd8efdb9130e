"""Which identities a caller may have certificates for: its own, and a node proxy those of the pods that run
on its node.

Follows istio/istio security/pkg/server/ca/node_auth.go: the caller's service account is one that is trusted
(CA_TRUSTED_NODE_ACCOUNTS), its pod exists, is the one that the token is of, and some pod of the identity runs
on that pod's node. Beside that, the node that the token names, where it does, has to be the pod's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Protocol

from ztunnel.ca.caller import Caller, Proof, Reason, Refused
from ztunnel.model.identity import SpiffeId
from ztunnel.state import kube


class Pods(Protocol):
    """The pods of the cluster."""

    def pod(self, name: tuple[str, str]) -> kube.Pod | None:
        """By namespace and name."""

    def on_node(self, node: str) -> Iterator[tuple[str, str]]:
        """Namespace and name of those that run there."""


class NodeAuthorizer:
    """Decides by the pods as they are now."""

    def __init__(self, pods: Pods, trusted: Collection[str], trust_domain: str) -> None:
        """`trusted`: `namespace/name` of the service accounts of node proxies."""
        self._pods = pods
        self._trusted = frozenset(trusted)
        self._trust_domain = trust_domain

    def authorize(self, caller: Caller, identity: SpiffeId) -> None:
        """Whether `caller` may have a certificate for `identity`.

        Raises:
            Refused: it may not; says why.
        """
        if identity.trust_domain != self._trust_domain:
            raise Refused(
                Reason.OTHER_TRUST_DOMAIN,
                f"{identity} is of another trust domain than this control plane's, {self._trust_domain}",
            )
        if identity == caller.identity:
            return
        self._require_trusted(caller, "may have certificates for itself only")
        node = self.node_of(caller)
        if not any(self._is(name, identity) for name in self._pods.on_node(node)):
            raise Refused(
                Reason.OTHER_NODE,
                f"{caller} on node {node} may not have a certificate for {identity}: no pod of "
                f"{identity.namespace}/{identity.service_account} runs on that node",
            )

    def reporter(self, caller: Caller) -> str:
        """The node of whose pods `caller` may tell which are in the mesh.

        Raises:
            Refused: it is no node proxy, or it cannot be told on which node it is.
        """
        self._require_trusted(caller, "may not tell of pods")
        return self.node_of(caller)

    def _require_trusted(self, caller: Caller, what: str) -> None:
        if caller.account not in self._trusted:
            raise Refused(
                Reason.WRONG_ACCOUNT,
                f"{caller} {what}: its account is none of the node proxies' "
                f"(CA_TRUSTED_NODE_ACCOUNTS: {', '.join(sorted(self._trusted)) or 'none'})",
            )

    def node_of(self, caller: Caller) -> str:
        """The node that a node proxy is on.

        Raises:
            Refused: its pod is not known, or is not the one that the token is of.
        """
        if caller.proof is Proof.STATIC_TOKEN and caller.node:
            return caller.node  # the operator's file says so
        if caller.proof is Proof.CERTIFICATE:
            raise Refused(
                Reason.UNKNOWN_POD,
                f"{caller} has proved its account, and not its pod: a token of the pod is needed",
            )
        if not caller.pod:
            raise Refused(
                Reason.UNKNOWN_POD,
                f"the token of {caller} names no pod: it has to be bound to one (a projected volume)",
            )
        pod = self._pods.pod((caller.identity.namespace, caller.pod))
        if pod is None:
            raise Refused(Reason.UNKNOWN_POD, f"{caller} is not known here (yet): no such pod")
        if caller.pod_uid != pod.meta.uid:
            raise Refused(
                Reason.UNKNOWN_POD, f"{caller} is another pod of that name than the one that the token is of"
            )
        if pod.service_account != caller.identity.service_account:
            raise Refused(
                Reason.WRONG_ACCOUNT, f"{caller} runs as {pod.service_account}, the token is of another"
            )
        if not pod.node or (caller.node and caller.node != pod.node):
            raise Refused(
                Reason.OTHER_NODE,
                f"{caller} runs on {pod.node or 'no node'}, the token is of {caller.node or 'none'}",
            )
        return pod.node

    def _is(self, name: tuple[str, str], identity: SpiffeId) -> bool:
        if name[0] != identity.namespace:
            return False
        pod = self._pods.pod(name)
        return pod is not None and pod.service_account == identity.service_account and pod.phase not in _ENDED


_ENDED = ("Succeeded", "Failed")
