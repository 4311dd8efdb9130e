"""Takes over from the proxy that serves the node's pods now, where there is one that answers."""

from __future__ import annotations

import base64
import binascii
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from ztunnel.errors import PeerError, Unsupported
from ztunnel.pods.listen import Listeners
from ztunnel.redirect.held import HELD, HeldCall, pull_held
from ztunnel.run.handover import VERSION, Channel, close_all, listening

ANSWER_SECONDS = 10.0
"""For all that a predecessor has to give. One that stands still for so long is about to end itself."""

_AGAIN_SECONDS = 0.1


@dataclass(slots=True)
class Inherited:
    """What a predecessor has handed over; empty where there was none. Whoever takes something takes it out.

    Attributes:
        listeners: of pods, by the cookie of their namespace.
        calls: that wait for the far end's answer.
        since_ns: by which the kernel knows whoever holds calls; 0 where they are not held.
        pages: listeners for metrics, readiness and admin.
        place: where it was asked.
    """

    listeners: dict[int, Listeners] = field(default_factory=dict)
    calls: list[HeldCall] = field(default_factory=list)
    since_ns: int = 0
    pages: tuple[socket.socket, ...] = ()
    channel: Channel | None = None
    place: Path | None = None

    def close(self) -> None:
        """Let go of what nobody has taken. A predecessor that was not told `taken` goes on serving."""
        for listeners in self.listeners.values():
            listeners.close()
        for page in self.pages:
            page.close()
        if self.channel is not None:
            self.channel.close()

    async def tell(self, what: str) -> None:
        """`taken`, `leaving`. Raises Unsupported where the predecessor waits no longer, and serves again; one
        that has died meanwhile needs no answer."""
        if self.channel is None:
            return
        try:
            await self.channel.send({what: True})
        except OSError as error:
            if self.place is not None and not serving(self.place):
                return
            raise Unsupported(f"the predecessor did not wait and goes on: {error}") from error


def serving(place: Path) -> int:
    """The process that hands over there, by its number in our PID namespace; 0 where there is none. Never
    waits. One that is in another namespace is -1."""
    try:
        channel = Channel(connected(place))
    except BlockingIOError:  # others ask as well
        return -1
    except OSError:
        return 0
    with channel:
        return channel.peer()[0] or -1


async def take_over(place: Path, pins: Path, pages: bool) -> Inherited:
    """Ask whoever serves now for all that it has; nothing where nobody answers.

    Args:
        pages: whether to take over its own pages as well: we cannot listen there beside it.

    Raises:
        Unsupported: it does not want to, and says why.
    """
    channel = await _connect(place)
    if channel is None:
        return Inherited()
    inherited = await ask(channel, pins, pages)
    if inherited.channel is not None:
        inherited.place = place
    return inherited


async def ask(channel: Channel, pins: Path, pages: bool) -> Inherited:
    """As `take_over`, of who is at the other end. The channel is the answer's, or closed."""
    inherited = Inherited(channel=channel)
    with ExitStack() as undo:
        undo.callback(inherited.close)
        try:
            with trio.move_on_after(ANSWER_SECONDS):
                await channel.send({"ask": VERSION, "pins": str(pins), "pages": pages})
                if await _receive_all(channel, inherited):
                    undo.pop_all()
                    return inherited
        except OSError:  # it has just ended
            return Inherited()
        except PeerError as error:
            raise Unsupported(f"the proxy that runs hands nothing over: {error}") from error
    return Inherited()


async def _connect(place: Path) -> Channel | None:
    with trio.move_on_after(ANSWER_SECONDS):
        while True:
            try:
                return Channel(connected(place))
            except BlockingIOError:
                await trio.sleep(_AGAIN_SECONDS)
            except OSError:
                break
    return None


def connected(place: Path) -> socket.socket:
    """To who listens there, without waiting. Raises OSError; BlockingIOError where others ask as well."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(place))
    except OSError:
        sock.close()
        raise
    return sock


async def _receive_all(channel: Channel, into: Inherited) -> bool:
    """Whether it came to its end. Raises PeerError."""
    while (packet := await channel.receive()) is not None:
        message, files = packet
        if "refused" in message:
            close_all(files)
            raise PeerError(str(message["refused"]))
        if "end" in message:
            close_all(files)
            into.since_ns = _number(message["end"])
            return True
        _take_in(message, files, into)
    return False


def _take_in(message: dict[str, Any], files: list[int], into: Inherited) -> None:
    """Raises PeerError; no descriptor is left over."""
    if "calls" in message:
        close_all(files)
        into.calls += [_call(each) for each in message["calls"]]
        return
    sockets: list[socket.socket] = []
    try:
        while files:
            sockets.append(listening(files.pop(0)))
        if len(sockets) < 3 or ("pages" in message and len(sockets) > 3):
            raise PeerError(f"three listeners are expected, of a pod there may be more: {len(sockets)}")
        if "pages" in message:
            into.pages = tuple(sockets)
        else:
            into.listeners[_number(message.get("pod"))] = Listeners.of(sockets)
    except PeerError:
        close_all(files)
        for sock in sockets:
            sock.close()
        raise


def _number(untrusted: object) -> int:
    if isinstance(untrusted, int) and 0 <= untrusted < 1 << 64:
        return untrusted
    raise PeerError(f"{untrusted!r} is no number of the kernel's")


def _call(untrusted: object) -> HeldCall:
    try:
        packed = base64.b64decode(str(untrusted), validate=True)
    except binascii.Error as error:
        raise PeerError("a call that waits is not base64") from error
    if len(packed) != HELD.size:
        raise PeerError(f"a call that waits has {HELD.size} bytes")
    return pull_held(packed)
