"""Keeps the authority in Secrets: reads, makes and follows them.

Any number of control planes may do so at once. The self-signed root is made by whoever creates the Secret
first; the others read it. All sign with what stands in the Secret.

What was in force goes on signing when a Secret is changed to something that is wrong, is deleted, or would
cut the mesh (`choice`). Which roots the mesh trusts so far, a control plane that starts reads from the
ConfigMap in its own namespace."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import trio
from cryptography import x509

from ztunnel.ca.choice import REPLACE_ROOT, Candidate, choose
from ztunnel.ca.root_maps import KEY, OWN
from ztunnel.ca.stored import PLUGGED_IN, SELF_SIGNED, new_secret, read_secret, secret_of
from ztunnel.errors import ConfigError, Fault, PeerError
from ztunnel.identity.chain import parse_certificates
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.informer import Change, Informer, Rng, Upsert
from ztunnel.kube.resource import CONFIG_MAPS, SECRETS
from ztunnel.kube.watch import Watcher

_AGAIN_SECONDS: Final = 2.0
_DELETED: Final = "deleted; it signs on until this process ends. Put it back"
_FAULTY_SECONDS: Final = 30.0
"""After that a Secret that was refused is read again: a certificate becomes valid by itself."""


class KeptAuthority:
    """The authority of a control plane in Kubernetes.

    Attributes:
        authority: the one in force; what signs for the mesh.
        faults: what is wrong with the Secrets, or with reaching them.
    """

    def __init__(
        self,
        api: Api,
        where: tuple[str, str],
        now: Callable[[], datetime],
        rng: Rng,
        observe: Callable[[], None],
    ) -> None:
        """`where`: the namespace of the Secrets, and the trust domain. `observe` is called in the loop's
        thread when another authority is in force or `faults` are others."""
        self._api = api
        self._namespace, self._trust_domain = where
        self._now = now
        self._observe = observe
        self._secrets: dict[str, Mapping[str, Any] | None] = {}
        self._from = ""
        self._recorded = False
        self._trusted: list[x509.Certificate] | None = None
        self._stirred = trio.Event()
        self._watchers = {name: self._watcher(name, rng) for name in (PLUGGED_IN, SELF_SIGNED)}
        self.authority = StandingAuthority()
        self.faults: tuple[Fault, ...] = ()

    async def run(self) -> None:
        """Follow the Secrets until cancelled; the first authority comes when it can be had."""
        async with trio.open_nursery() as nursery:
            for watcher in self._watchers.values():
                nursery.start_soon(watcher.run)
            while True:
                self._stirred = trio.Event()
                again = await self._look()
                faulty = _FAULTY_SECONDS if self.faults else float("inf")
                with trio.move_on_after(_AGAIN_SECONDS if again else faulty):
                    await self._stirred.wait()

    def _watcher(self, name: str, rng: Rng) -> Watcher:
        selectors = {"fieldSelector": f"metadata.name={name}"}
        informer = Informer([SECRETS], rng, selectors, namespace=self._namespace)
        return Watcher(self._api, informer, partial(self._take, name), lambda: self._stirred.set())

    def _take(self, name: str, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.name[1] == name:
                self._secrets[name] = change.value if isinstance(change, Upsert) else None
        self._stirred.set()

    async def _look(self) -> bool:
        """Take over what the Secrets say now; whether it has to be tried again soon."""
        if not all(watcher.informer.synced for watcher in self._watchers.values()):
            trouble = [one.informer.trouble for one in self._watchers.values() if one.informer.trouble]
            self._say([Fault("Kubernetes", 0, "", text) for text in trouble[:1]])
            return False
        if not self._recorded and not await self._recall():
            return True
        plugged, own = [await self._candidate(name) for name in (PLUGGED_IN, SELF_SIGNED)]
        current = self.authority.current
        if own is None and plugged is None and self._from != PLUGGED_IN:
            return await self._create()
        now = self._now()
        roots = current.roots if current is not None else self._trusted
        trusted = [one for one in roots or () if one.not_valid_after_utc > now]
        signing = current if current is not None and current.not_after > now else None
        chosen = choose(plugged, own, signing, trusted or None)
        faults = chosen.faults
        if plugged is None and self._from == PLUGGED_IN:
            if chosen.authority is current:
                faults = (Fault(self._where(PLUGGED_IN), 0, "", _DELETED),)
            else:
                self._from = SELF_SIGNED
        changed = False
        if chosen.authority is not None:
            changed = self.authority.take(chosen.authority)
            if plugged is not None and chosen.authority is plugged.authority:
                self._from = PLUGGED_IN
        self._say(faults, changed)
        return False

    async def _recall(self) -> bool:
        """The roots that the mesh trusts, as they were brought to our own namespace last."""
        try:
            found = await self._api.get(CONFIG_MAPS, OWN, self._namespace)
            self._trusted = parse_certificates(str((found.get("data") or {}).get(KEY, "")))
        except ApiFailure as failure:
            if failure.code != 404:
                self._say([Fault("Kubernetes", 0, "", str(failure))])
                return False
        except PeerError:
            self._trusted = None  # whatever somebody has written there
        self._recorded = True
        return True

    async def _candidate(self, name: str) -> Candidate | None:
        value = self._secrets.get(name)
        if value is None:
            return None
        annotations = (value.get("metadata") or {}).get("annotations") or {}
        try:
            read = partial(read_secret, value, self._trust_domain, self._now())
            authority = await trio.to_thread.run_sync(read)
        except ConfigError as error:
            return Candidate(self._where(name), faults=error.faults)
        return Candidate(self._where(name), authority, forced=annotations.get(REPLACE_ROOT) == "true")

    def _where(self, name: str) -> str:
        return f"Secret {self._namespace}/{name}"

    async def _create(self) -> bool:
        """The Secret of a new root; or, where it was deleted, of the one that signs."""
        current = self.authority.current
        make = (
            partial(new_secret, self._namespace, self._now())
            if current is None
            else partial(secret_of, current, self._namespace)
        )
        try:
            await self._api.create(SECRETS, await trio.to_thread.run_sync(make), self._namespace)
        except ApiFailure as failure:
            if failure.reason == "AlreadyExists":
                return True  # another control plane was first: the watch brings it
            self._say([Fault(self._where(SELF_SIGNED), 0, "", f"cannot be made: {failure}")])
        else:
            if current is not None:
                where = self._where(SELF_SIGNED)
                logging.getLogger(__name__).warning("%s was deleted, and is put back", where)
        return True

    def _say(self, faults: Sequence[Fault], changed: bool = False) -> None:
        if changed or tuple(faults) != self.faults:
            self.faults = tuple(faults)
            self._observe()
