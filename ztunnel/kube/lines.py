"""The lines of a stream, however its bytes are cut; a watch sends one event on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ztunnel.errors import PeerError

MAX_LINE_BYTES: Final = 16 * 2**20
"""etcd keeps no object larger than 1.5 MiB; in JSON, with its managed fields, it is never ten times that."""


class Lines:
    """Feed it what comes; it gives what is complete. An unfinished line at the end is nothing."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, untrusted: bytes) -> Iterator[bytes]:
        """The lines that end in `untrusted`, without their ends; empty ones are left out.

        Raises:
            PeerError: a line is longer than it may be.
        """
        *complete, rest = untrusted.split(b"\n")
        for line in complete:
            self._keep(line)
            whole = b"".join(self._parts).strip()
            self._parts.clear()
            self._size = 0
            if whole:
                yield whole
        self._keep(rest)

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_bytes:
            raise PeerError(f"a line of more than {self._max_bytes} bytes")
        if part:
            self._parts.append(part)
