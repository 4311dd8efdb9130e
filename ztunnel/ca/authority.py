"""Certificates for a node's workloads, from an authority in this process: a node gets what runs on it, no
more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

import trio

from ztunnel.control.serve import Server
from ztunnel.errors import NoCertificate
from ztunnel.model.identity import SpiffeId
from ztunnel.model.workload import Workload
from ztunnel.xds.resource import ADDRESS
from ztunnel.xds.snapshot import Snapshot


class Signer(Protocol):
    """An authority; `identity.standing.StandingAuthority` is one. It is called in a thread."""

    def sign(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float, now: datetime) -> Sequence[str]:
        """PEM texts: the leaf first, the roots last. Raises PeerError for a request that is none."""


class OwnCertificates:
    """A source of certificates for one workload, which may have its own and no other."""

    def __init__(self, signer: Signer, server: Server, uid: str, now: Callable[[], datetime]) -> None:
        """`uid`: the workload's name on the wire."""
        self._signer = signer
        self._server = server
        self._uid = uid
        self._now = now

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        """As of `NodeCertificates`; NoCertificate for any other identity."""
        own = self._server.snapshot.origins[ADDRESS].get(self._uid)
        if not isinstance(own, Workload) or own.identity != identity:
            raise NoCertificate(f"no certificate for {identity}: {self._uid} is not known as that")
        sign = partial(self._signer.sign, csr_pem, identity, ttl_seconds, self._now())
        return await trio.to_thread.run_sync(sign)


class NodeCertificates:
    """A source of certificates for one node proxy."""

    def __init__(self, signer: Signer, server: Server, node: str, now: Callable[[], datetime]) -> None:
        self._signer = signer
        self._server = server
        self._node = node
        self._now = now
        self._known: tuple[Snapshot | None, frozenset[SpiffeId]] = (None, frozenset())

    async def create(self, csr_pem: str, identity: SpiffeId, ttl_seconds: float) -> Sequence[str]:
        """Have a request signed; the leaf first, the bundle of roots last.

        Raises:
            NoCertificate: no workload of this identity runs on the node; it may be asked again when one does.
            PeerError: the request is malformed or for somebody else.
        """
        if identity not in self._identities():
            raise NoCertificate(
                f"no certificate for {identity}: no workload of the mesh on {self._node} has this identity"
            )
        sign = partial(self._signer.sign, csr_pem, identity, ttl_seconds, self._now())
        return await trio.to_thread.run_sync(sign)  # 5 ms with an RSA key of 4096 bits

    def _identities(self) -> frozenset[SpiffeId]:
        """Of the enrolled workloads on the node; worked out once for each snapshot."""
        snapshot, known = self._known
        if snapshot is not self._server.snapshot:
            snapshot = self._server.snapshot
            workloads = snapshot.origins[ADDRESS].values()
            known = frozenset(
                one.identity
                for one in workloads
                if isinstance(one, Workload) and one.node == self._node and one.may_be_enrolled
            )
            self._known = (snapshot, known)
        return known
