"""Serves whoever is to replace this process: hands over what it listens on, and steps back.

```
serves ── asked ──> takes up nothing new ── taken ──> given: only what lives goes on, until the end
                          └── the successor has gone, or waits too long ──> serves
given ── the successor leaves, or dies, before we are told to end ──> ends, to be started again
```
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from ztunnel.errors import PeerError
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.held import HeldCall, push_held
from ztunnel.run.handover import VERSION, Channel, close_all
from ztunnel.telemetry.export import Log

_ASK_SECONDS = 5.0
TAKEN_SECONDS = 20.0
"""For a successor to load programs and enroll pods. What comes meanwhile waits in the backlogs."""

_CALLS_PER_PACKET = 128
_BACKLOG = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """What is handed over, as `successor.Inherited`; the sockets stay the giver's."""

    listeners: Mapping[int, Listeners]
    calls: Sequence[HeldCall]
    since_ns: int
    pages: Sequence[int]


class Giver(Protocol):
    """Who serves now (`serve.Succession`)."""

    async def step_back(self) -> Offer:
        """Take up nothing new."""

    def step_up(self) -> None:
        """Undo that: nobody has taken over."""

    def hand_over(self, pages: bool) -> None:
        """A successor serves."""


async def serve_successors(
    place: Path,
    pins: Path,
    giver: Giver,
    log: Log,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> str:
    """Wait for a successor, and hand over to it; return when it leaves or dies, and why. Where no socket can
    be had, wait for ever: then this process is replaced as after a crash.

    Started once it can be asked.
    """
    with listening_at(place, log) as listener:
        task_status.started()
        if listener is None:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(listener)
            with suppress(BlockingIOError):
                sock, _ = listener.accept()
                with Channel(sock) as channel:
                    if await hand_over(channel, pins, giver, log):
                        listener.close()
                        return await _outlive(channel)


@contextmanager
def listening_at(place: Path, log: Log) -> Iterator[socket.socket | None]:
    """A socket of ours, root's alone, in the place of whoever listened there before; None, and why is said,
    where there can be none."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        try:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            listener.bind(str(beside))
            beside.chmod(0o600)
            own = beside.stat().st_ino
            listener.listen(_BACKLOG)
            beside.rename(place)
        except OSError as error:
            log.warn("no handover", reason=f"{place}: {error.strerror or error}: set ZTUNNEL_RUN_DIR")
            own = 0
        yield listener if own else None
    finally:
        listener.close()
        with suppress(OSError):
            if place.stat().st_ino == own:
                place.unlink()


async def hand_over(channel: Channel, pins: Path, giver: Giver, log: Log) -> bool:
    """To who asks at the other end; whether it has taken over."""
    try:
        wants_pages = await _asked(channel, pins)
        if wants_pages is None:
            return False
        offer, taken = await giver.step_back(), False
        try:
            with trio.move_on_after(TAKEN_SECONDS):
                await _give(channel, offer, wants_pages)
                packet = await channel.receive()
                if packet is not None:
                    close_all(packet[1])
                    taken = "taken" in packet[0]
        finally:
            if taken:
                giver.hand_over(wants_pages)
            else:
                giver.step_up()
    except (OSError, PeerError) as error:
        log.warn("handover failed", error=str(error))
        return False
    if taken:
        log.info("handed over", pods=len(offer.listeners), calls=len(offer.calls))
    else:
        log.warn("handover failed", error="the successor has gone, or did not take over in time")
    return taken


async def _asked(channel: Channel, pins: Path) -> bool | None:
    """Whether the successor wants the pages; None where it has gone, or must not have anything."""
    with trio.move_on_after(_ASK_SECONDS):
        packet = await channel.receive()
        if packet is None:
            return None
        message, files = packet
        close_all(files)
        if (user := channel.peer()[1]) not in (0, os.geteuid()):
            raise PeerError(f"uid {user} asked")
        why = ""
        if message.get("ask") != VERSION:
            why = f"it speaks version {VERSION} of the handover"
        elif message.get("pins") != str(pins):
            why = f"its pins are {pins}"
        if not why:
            return message.get("pages") is True
        await channel.send({"refused": why})
        raise PeerError(f"refused a successor: {why}, and was asked for {message}"[:500])
    return None


async def _give(channel: Channel, offer: Offer, pages: bool) -> None:
    for cookie, listeners in offer.listeners.items():
        await channel.send({"pod": cookie}, [each.fileno() for each in listeners.all])
    for start in range(0, len(offer.calls), _CALLS_PER_PACKET):
        calls = offer.calls[start : start + _CALLS_PER_PACKET]
        await channel.send({"calls": [base64.b64encode(push_held(call)).decode() for call in calls]})
    if pages:
        await channel.send({"pages": True}, offer.pages)
    await channel.send({"end": offer.since_ns})


async def _outlive(channel: Channel) -> str:
    """Until the successor is to end as well, or does."""
    while True:
        try:
            packet = await channel.receive()
        except PeerError:
            continue
        if packet is None:
            return "the successor has ended"
        close_all(packet[1])
        if "leaving" in packet[0]:
            return "the successor is to end"
