"""Connects to the agent's socket: packets with descriptors, each of which belongs to somebody at any time."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import trio

from ztunnel.zds.message import MESSAGE_BYTES

_MOST_DESCRIPTORS = 16
"""Room for more than one: what came too much is closed, and not lost sight of."""

_SIZE = array.array("i").itemsize
_CREDENTIALS = struct.Struct("3i")  # struct ucred


class Packet:
    """One packet. Its descriptors are closed at the end of a `with` block, but for one that was taken."""

    def __init__(self, payload: bytes, descriptors: Sequence[int] = (), truncated: bool = False) -> None:
        self.payload = payload
        self.truncated = truncated
        self._descriptors = list(descriptors)

    @property
    def descriptors(self) -> Sequence[int]:
        """Those that are ours to close."""
        return tuple(self._descriptors)

    def take(self) -> int:
        """The first one, from now on the caller's."""
        return self._descriptors.pop(0)

    def __enter__(self) -> Packet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


class AgentSocket:
    """A connection with the agent."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock

    async def receive(self) -> Packet | None:
        """The next packet; None where the agent has closed the connection. Raises OSError."""
        room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * _SIZE)
        payload, ancillary, flags, _ = await self._sock.recvmsg(MESSAGE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        found = [fd for level, kind, data in ancillary for fd in _descriptors(level, kind, data)]
        packet = Packet(payload, found, bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))
        if payload or packet.truncated:
            return packet
        with packet:  # an end has none, and an empty packet looks like one
            return None

    async def send(self, message: bytes) -> None:
        """One packet. Raises OSError."""
        await self._sock.send(message)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


async def open_agent(path: Path) -> tuple[AgentSocket, trio.socket.SocketType]:
    """Connect; the second is what the caller closes.

    Raises:
        OSError: nobody listens, or it is somebody who may not: only root, or who we are, names pods.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _translated(path):
            await sock.connect(os.fspath(path))
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            _, user, _ = _CREDENTIALS.unpack(credentials)
            if user not in (0, os.geteuid()):
                raise OSError(errno.EPERM, f"who listens there is user {user}, and not root")
    except BaseException:
        sock.close()
        raise
    return AgentSocket(sock), sock


def _descriptors(level: int, kind: int, data: bytes) -> list[int]:
    if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
        return []
    found = array.array("i")
    found.frombytes(data[: len(data) // _SIZE * _SIZE])
    return found.tolist()
