"""What a proxy and its successor say to each other over a unix socket of the host: packets of JSON, some with
descriptors.

```
successor                                        predecessor
  ask: I am ready; shall I have your pages? ──────>  takes up nothing new from here on
  <────── the listeners of each pod, calls that wait, the pages, how the kernel knows whoever holds calls
  taken: I serve ─────────────────────────────────>  closes its own copies, and drains
  leaving: I am to end, and nobody succeeds me ───>  (it may have outlived its successor)
```

With the holder (`hold.py`) a proxy that ends speaks first, `keep`, and then as a predecessor; to the next one
the holder is the predecessor.

Where the connection ends before `taken`, the predecessor goes on as if nothing had been. A packet arrives
whole or not at all (SOCK_SEQPACKET). Who may connect is root: the directory is 0700, the peer's uid is looked
at besides.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from array import array
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from ztunnel.errors import PeerError

VERSION = 1
MOST_BYTES = 65536
_MOST_FILES = 32
_INT_BYTES = array("i").itemsize
_PATH_BYTES = 107  # sockaddr_un, without the zero at its end
_CREDENTIALS = struct.Struct("=iII")

Message = Mapping[str, Any]


def socket_of(run_dir: Path, pins: Path) -> Path:
    """Where the proxy of these pins is asked."""
    return _place(run_dir, pins.name)


def holder_of(run_dir: Path, pins: Path) -> Path:
    """Where a proxy of these pins that ends leaves what it listens on."""
    return _place(run_dir, f"{pins.name}.holder")


def _place(run_dir: Path, name: str) -> Path:
    """A name that is too long for a socket is one of its hash."""
    place = run_dir / f"{name}.sock"
    if len(os.fsencode(place)) <= _PATH_BYTES:
        return place
    return run_dir / f"{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.sock"


class Channel:
    """One end of a handover. Owns its socket; use as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        """Takes over a connected SOCK_SEQPACKET socket."""
        sock.setblocking(False)
        self._sock = sock

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The other end sees it."""
        self._sock.close()

    def peer(self) -> tuple[int, int]:
        """The process at the other end and its user: who has connected, or who listens. A process of another
        PID namespace is 0. Raises OSError."""
        raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        process, user, _ = _CREDENTIALS.unpack(raw)
        return process, user

    async def send(self, message: Message, files: Sequence[int] = ()) -> None:
        """One packet; the descriptors stay the caller's. Raises OSError: the other end has gone."""
        packed = json.dumps(message).encode()
        while True:
            await trio.lowlevel.wait_writable(self._sock)
            with suppress(BlockingIOError):
                self._sock.sendmsg([packed], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))])
                return

    async def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next packet with its descriptors, which are the caller's; None where the other end has gone.

        Raises:
            PeerError: what was sent is no such packet; its descriptors are closed.
        """
        while True:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                # Not recv_fds(): Python 3.11 loses its flags.
                packed, ancillary, flags, _ = self._sock.recvmsg(
                    MOST_BYTES, socket.CMSG_LEN(_MOST_FILES * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            except OSError:
                return None
            break
        files = _files(ancillary)
        if not packed and not files:
            return None
        try:
            return _parse(packed, flags), files
        except PeerError:
            close_all(files)
            raise


def _files(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = array("i")
            whole.frombytes(packed[: len(packed) - len(packed) % _INT_BYTES])
            found += whole
    return found


def close_all(files: Sequence[int]) -> None:
    """Let go of descriptors that nobody uses."""
    for fd in files:
        os.close(fd)


def _parse(untrusted: bytes, flags: int) -> dict[str, Any]:
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise PeerError(f"a packet has at most {MOST_BYTES} bytes and {_MOST_FILES} descriptors")
    try:
        message = json.loads(untrusted)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"a packet is JSON: {error}") from error
    if not isinstance(message, dict):
        raise PeerError("a packet is a JSON object")
    return message


def listening(fd: int) -> socket.socket:
    """A listener out of its descriptor, which it takes over. Raises PeerError, and closes it, where it is
    none."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        os.close(fd)
        raise PeerError("a descriptor is no socket") from error
    try:
        if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.setblocking(False)
            return sock
    except OSError:
        pass
    sock.close()
    raise PeerError("a descriptor is no listening socket")
