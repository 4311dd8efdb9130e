"""The authority in a folder, taken over while it signs whenever its files change to a good set.

A set counts once it has looked the same twice in a row, a second apart: four files are not written at once.
One that is wrong is refused as a whole, said, and what was in force goes on signing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import trio

from ztunnel.errors import ConfigError, Fault
from ztunnel.identity.authority import Authority
from ztunnel.identity.sign import Stamp, load_authority, open_authority, stamp_authority
from ztunnel.identity.standing import StandingAuthority

POLL_SECONDS: Final = 1.0
_AGAIN_POLLS: Final = 30
"""After so many a set that was refused is read again: a certificate becomes valid by itself."""


class AuthorityWatch:
    """One folder and the authority that it holds.

    Attributes:
        authority: the one in force; what signs for the mesh.
        faults: what is wrong with the files as they are now; empty where they are in force.
    """

    def __init__(
        self,
        folder: Path,
        trust_domain: str,
        now: Callable[[], datetime],
        observe: Callable[[], None],
        make: bool = True,
    ) -> None:
        """`make`: a root of our own, where nothing is in the folder yet. `observe` is called in the loop's
        thread when another set is in force or `faults` are others."""
        self._folder = folder
        self._trust_domain = trust_domain
        self._now = now
        self._observe = observe
        self._open = open_authority if make else load_authority
        self._seen: Mapping[str, Stamp] = {}
        self._taken: Mapping[str, Stamp] = {}
        self._polls = 0
        self.authority = StandingAuthority()
        self.faults: tuple[Fault, ...] = ()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the folder, and poll until cancelled. Started when there is an authority.

        Raises:
            ConfigError: there is none, and none can be made.
        """
        self._seen = self._taken = await trio.to_thread.run_sync(stamp_authority, self._folder)
        open_folder = partial(self._open, self._folder, self._now(), self._trust_domain)
        opened = await trio.to_thread.run_sync(open_folder)
        self.authority.take(opened)
        self._observe()
        self._seen = self._taken = await trio.to_thread.run_sync(stamp_authority, self._folder)
        task_status.started()
        while True:
            await trio.sleep(POLL_SECONDS)
            await self.poll()

    async def poll(self) -> None:
        """Look once, and take over what has changed and looked the same the time before."""
        stamps, before = await trio.to_thread.run_sync(stamp_authority, self._folder), self._seen
        self._seen = stamps
        self._polls += 1
        again = bool(self.faults) and self._polls >= _AGAIN_POLLS
        if stamps != before or (stamps == self._taken and not again):
            return
        self._taken, self._polls = stamps, 0
        load = partial(load_authority, self._folder, self._now(), self._trust_domain)
        try:
            found: Authority | None = await trio.to_thread.run_sync(load)
            faults: tuple[Fault, ...] = ()
        except ConfigError as error:
            found, faults = None, error.faults
        changed = found is not None and self.authority.take(found)
        if changed or faults != self.faults:
            self.faults = faults
            self._observe()
