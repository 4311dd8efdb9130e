"""The holder of a node: a process beside the proxies of the node, of which there is none now and then.

```
idle ── a proxy ends, and leaves its listeners ──> keeps them ── the next proxy takes them ──> idle
                                                       └── nobody comes in time ──> refused; idle
no proxy uses the pins, and the DaemonSet is gone ──> the pods are let go, and nothing is left
```

Where a node proxy is replaced only when it has ended, connections that are made meanwhile wait in the
backlogs of its listeners, which stay open here. Nothing is accepted, and nothing gets past the mesh: verdicts
count no more, so every call is captured and waits, be it for a bounded time.

A proxy that starts and ends again and again, or is not started at all, cannot let its pods go. So whoever
asks for the DaemonSet then is the holder, and it does so only then.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import trio

from ztunnel.errors import PeerError, Unsupported
from ztunnel.redirect.attach import Redirection
from ztunnel.redirect.load import is_held
from ztunnel.run.handover import Channel, close_all, holder_of, socket_of
from ztunnel.run.incumbent import listening_at, serve_successors
from ztunnel.run.kept import Kept
from ztunnel.run.owner import ANSWERS, Fate, Owner
from ztunnel.run.remove import uninstall
from ztunnel.run.stop import Stop
from ztunnel.run.successor import Inherited, ask
from ztunnel.telemetry.export import Log

LEASE_SECONDS = 0.5
LOOK_SECONDS = 2.0
"""Between two looks whether a proxy uses the pins, and, where none does, questions to the API server."""

OWNER_SECONDS = 6.0
"""After SIGTERM, as long as a proxy asks."""

_FREE_SECONDS = 30.0
_ASK_SECONDS = 5.0


class Kernel(Protocol):
    """What is done in the kernel (`Pinned`)."""

    def guard(self) -> None: ...
    def refuse(self) -> None: ...
    def is_used(self) -> bool: ...
    def free(self) -> int | None: ...


class Pinned:
    """The pins of one node. Blocks: milliseconds, but for `free`."""

    def __init__(self, pins: Path, run_dir: Path) -> None:
        self._pins, self._run_dir = pins, run_dir

    def guard(self) -> None:
        """Calls come to the listeners, and no verdict and no list of addresses counts: they were true of a
        world that nobody follows now. The pins are opened anew each time: a loader may have changed them.
        Raises OSError or Unsupported."""
        with Redirection.open(self._pins) as redirection:
            redirection.addresses.known(False)
            redirection.bump_all()
            redirection.renew_lease(time.monotonic_ns())

    def refuse(self) -> None:
        """Nobody comes: what is held by the kernel is let through to where it is refused. Raises OSError or
        Unsupported."""
        with Redirection.open(self._pins) as redirection:
            redirection.end_lease()

    def is_used(self) -> bool:
        """Whether a proxy has them."""
        return is_held(self._pins)

    def free(self) -> int | None:
        """As `uninstall`."""
        return uninstall(self._pins, self._run_dir)


class Station(NamedTuple):
    """Whose proxies these are: where they pin, where they meet, and what the kernel knows of them."""

    pins: Path
    run_dir: Path
    kernel: Kernel


class Holder:
    """The holder of one node."""

    def __init__(self, station: Station, owner: Owner, log: Log, seconds: float) -> None:
        """`seconds`: how long connections wait for the next proxy."""
        self._pins, self._run_dir, self._kernel = station
        self._owner, self._log = owner, log
        self._seconds = seconds
        self._kept: Kept | None = None

    async def run(self, stop: Stop, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> str:
        """Until the end is asked for, and what was left here is taken or its time is up; or the DaemonSet is
        gone, and the pods are let go. Started once proxies can leave something.

        Returns:
            Why they cannot; empty at the end.
        """
        stop.started()  # whenever the end is asked for, the DaemonSet is asked for
        place = holder_of(self._run_dir, self._pins)
        with listening_at(place, self._log) as listener:
            if listener is None:
                return f"nothing can be left at {place}"
            async with trio.open_nursery() as nursery:
                await self._owner.try_out()
                nursery.start_soon(self._watch_owner)
                nursery.start_soon(self._accept, nursery, listener)
                task_status.started()
                await stop.asked.wait()
                await self._end(stop)
                nursery.cancel_scope.cancel()
        return ""

    async def _end(self, stop: Stop) -> None:
        """Told to end: with the mesh, or to be replaced."""
        gone = False
        with trio.move_on_after(OWNER_SECONDS if self._owner else 0):
            await self._owner.gone()
            gone = True
        if gone:
            with trio.move_on_after(_FREE_SECONDS):
                while self._kernel.is_used():  # noqa: ASYNC110 (another process; it lets its pods go)
                    await trio.sleep(LEASE_SECONDS)
            await self._free()
            return
        while self._kept is not None and not stop.urged.is_set():
            with trio.move_on_after(LEASE_SECONDS):
                await self._kept.over.wait()

    # The DaemonSet.

    async def _watch_owner(self) -> None:
        """Where no proxy is there to do it, see whether the mesh is uninstalled, until cancelled. One answer
        is not enough: nobody has told us to end."""
        answers = 0
        while self._owner:
            await trio.sleep(LOOK_SECONDS)
            if not self._pins.is_dir() or self._kernel.is_used():
                answers = 0
                continue
            answers = answers + 1 if await self._owner.look() is Fate.GONE else 0
            if answers >= ANSWERS and not self._kernel.is_used():
                await self._free()
        await trio.sleep_forever()

    async def _free(self) -> None:
        """Unless the mesh has been installed again since it was gone: these pins are the next proxy's."""
        if await self._owner.look() is Fate.STAYS:
            return
        freed = await trio.to_thread.run_sync(self._kernel.free)
        if self._kept is not None:
            self._kept.hand_over(False)
        if freed is not None:
            self._log.info(f"{self._owner.reason}: pods leave the mesh", pods=freed)

    # What proxies leave.

    async def _accept(self, nursery: trio.Nursery, listener: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            with suppress(BlockingIOError):
                sock, _ = listener.accept()
                nursery.start_soon(self._take, Channel(sock))

    async def _take(self, channel: Channel) -> None:
        """From one proxy that ends."""
        with channel:
            try:
                if not await self._is_asked(channel) or self._kept is not None:
                    return
                with closing(await ask(channel, self._pins, False)) as inherited:
                    if inherited.channel is not None:
                        await self._keep(inherited)
            except (OSError, PeerError, Unsupported) as error:
                self._log.warn("not kept: new connections are refused", error=str(error))

    async def _is_asked(self, channel: Channel) -> bool:
        """Raises PeerError: by somebody who may not, or for something else."""
        with trio.move_on_after(_ASK_SECONDS):
            packet = await channel.receive()
            if packet is None:
                return False
            message, files = packet
            close_all(files)
            if (user := channel.peer()[1]) not in (0, os.geteuid()):
                raise PeerError(f"uid {user} asked")
            if "keep" not in message:
                raise PeerError(f"a proxy that ends says `keep`: {message}"[:200])
            return True
        return False

    async def _keep(self, inherited: Inherited) -> None:
        """Until the next proxy has it, or the time is up. Raises OSError or Unsupported: the kernel
        refuses."""
        self._kernel.guard()
        kept = self._kept = Kept(inherited)
        try:
            with trio.move_on_after(self._seconds):
                async with trio.open_nursery() as nursery:
                    place = socket_of(self._run_dir, self._pins)
                    # First, so that there is always one who can be asked.
                    await nursery.start(partial(serve_successors, place, self._pins, kept, self._log))
                    nursery.start_soon(self._renew, kept)
                    if await self._is_taken(inherited):
                        self._log.info("keeps", pods=len(inherited.listeners), seconds=self._seconds)
                        await kept.over.wait()
                    nursery.cancel_scope.cancel()
        finally:
            self._kept = None
            if not kept.over.is_set():
                self._log.warn("no proxy has come: new connections are refused", seconds=self._seconds)
                with suppress(OSError, Unsupported):
                    self._kernel.refuse()

    async def _is_taken(self, inherited: Inherited) -> bool:
        """Whether the one that ends has stepped back for good."""
        try:
            await inherited.tell("taken")
        except Unsupported:
            return False
        return True

    async def _renew(self, kept: Kept) -> None:
        while True:
            if not kept.is_asked:  # the next one says by now what counts
                with suppress(OSError, Unsupported):  # they are being changed
                    self._kernel.guard()
            await trio.sleep(LEASE_SECONDS)
