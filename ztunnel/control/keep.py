"""Keeps the authority in Secrets: reads, makes and follows them.

Any number of control planes may do so at once. The self-signed root is made by whoever creates the Secret
first; the others read it. All sign with what stands in the Secret.

What was in force goes on signing when a Secret is changed to something that is wrong, or is deleted: another
root all of a sudden would cut the mesh in two."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import trio

from ztunnel.control.stored import PLUGGED_IN, SELF_SIGNED, new_secret, read_secret, secret_of
from ztunnel.errors import ConfigError, Fault
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.call import Api
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.informer import Change, Informer, Rng, Upsert
from ztunnel.kube.resource import SECRETS
from ztunnel.kube.watch import Watcher

_AGAIN_SECONDS: Final = 2.0
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
        plugged, own = (self._secrets.get(name) for name in (PLUGGED_IN, SELF_SIGNED))
        if plugged is not None:
            return await self._read(PLUGGED_IN, plugged)
        if self._from == PLUGGED_IN:
            text = "deleted; it signs on until this process ends. Put it back: without it, another root signs"
            self._say([Fault(f"Secret {self._namespace}/{PLUGGED_IN}", 0, "", text)])
            return False
        if own is not None:
            return await self._read(SELF_SIGNED, own)
        return await self._create()

    async def _read(self, name: str, value: Mapping[str, Any]) -> bool:
        try:
            read = partial(read_secret, value, self._trust_domain, self._now())
            authority = await trio.to_thread.run_sync(read)
        except ConfigError as error:
            self._say(error.faults)
            return False
        changed = self.authority.take(authority)
        self._from = name
        self._say((), changed)
        return False

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
            self._say([Fault(f"Secret {self._namespace}/{SELF_SIGNED}", 0, "", f"cannot be made: {failure}")])
        else:
            if current is not None:
                where = f"{self._namespace}/{SELF_SIGNED}"
                logging.getLogger(__name__).warning("Secret %s was deleted, and is put back", where)
        return True

    def _say(self, faults: Sequence[Fault], changed: bool = False) -> None:
        if changed or tuple(faults) != self.faults:
            self.faults = tuple(faults)
            self._observe()
