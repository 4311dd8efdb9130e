"""What the kernel reports: flow records through a ring buffer, outcomes by counters, live direct flows by
map."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Final

from ztunnel.kernel.batch import items
from ztunnel.kernel.bpf import Map, possible_cpus
from ztunnel.redirect.held import HeldCall, pull_held
from ztunnel.redirect.layout import NUMBER, SMALL, Outcome, Recalled
from ztunnel.redirect.outside import OutsideCall, pull_outside
from ztunnel.redirect.recall import Recall
from ztunnel.redirect.records import LiveFlow, pull_live_flow

_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_LENGTH: Final = (1 << 30) - 1
_HEADER_BYTES: Final = 8
_WINDOW_BYTES: Final = 1 << 16
"""Some 500 records; to move it takes as long as to read ten."""


class Records:
    """The reading end of a BPF ring buffer (kernel/bpf/ringbuf.c); one reader per buffer.

    Mapped are a page with the reader's position, one with the writer's, and a window of the buffer that moves
    on with the reader: all of it would be 2 MiB of the kernel's memory that counts as ours, and is mostly
    empty. The kernel has the buffer twice over, one behind the other, so that a record that wraps around its
    end is contiguous. Positions only grow.
    """

    def __init__(self, ring: Map) -> None:
        self.fd = ring.fd
        self._size = ring.spec.max_entries
        page = mmap.PAGESIZE
        self._mine = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._theirs = mmap.mmap(self.fd, page, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._begin, self._bytes = 0, min(_WINDOW_BYTES, self._size)
        self._window = self._map(0, self._bytes)

    def pull(self, limit: int = 1024) -> list[bytes]:
        """Up to `limit` records in the order in which they were made. Never waits; `fd` is readable when it
        would return some. They stay where the process has no descriptor, or the kernel no memory, to see
        them."""
        found: list[bytes] = []
        position: int = NUMBER.unpack_from(self._mine)[0]
        written: int = NUMBER.unpack_from(self._theirs)[0]
        while position < written and len(found) < limit:
            at = self._place(position % self._size, _HEADER_BYTES)
            if at < 0:
                break
            header: int = SMALL.unpack_from(self._window, at)[0]
            if header & _BUSY:
                break
            length = header & _LENGTH
            if not header & _DISCARDED:
                at = self._place(position % self._size, _HEADER_BYTES + length)
                if at < 0:
                    break
                at += _HEADER_BYTES
                end = at + length
                found.append(self._window[at:end])
            position += _HEADER_BYTES + (length + 7) // 8 * 8
            NUMBER.pack_into(self._mine, 0, position)
        return found

    def _place(self, start: int, length: int) -> int:
        """Where in the window what begins there in the buffer is; the window moves if it is not all in it. -1
        where it cannot."""
        at = start - self._begin
        if at >= 0 and at + length <= self._bytes:
            return at
        begin = start // mmap.PAGESIZE * mmap.PAGESIZE
        at = start - begin
        mapped = max(min(_WINDOW_BYTES, self._size), at + length)
        # Each mapping has a descriptor of its own: that of the old one is free for the new one.
        self._window.close()
        self._bytes = 0
        try:
            self._window = self._map(begin, mapped)
        except OSError:
            return -1
        self._begin, self._bytes = begin, mapped
        return at

    def _map(self, begin: int, length: int) -> mmap.mmap:
        offset = 2 * mmap.PAGESIZE + begin
        return mmap.mmap(self.fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)

    def close(self) -> None:
        """Unmap."""
        self._mine.close()
        self._theirs.close()
        self._window.close()


class HeldCalls:
    """Captured calls whose SYN waits until the proxy sends it on."""

    def __init__(self, maps: Mapping[str, Map], recall: Recall) -> None:
        self._holder, self._recall = maps["holder"], recall
        self._waiting = Records(maps["waiting"])

    @property
    def fd(self) -> int:
        """Readable when `pull` has something."""
        return self._waiting.fd

    def hold(self, since_ns: int) -> None:
        """From now on calls wait until we send their SYN on; those that a predecessor was told of are told
        anew. `since_ns` tells us from it; 0: they do not wait. Raises OSError."""
        self._holder.put(SMALL.pack(0), NUMBER.pack(since_ns))

    def pull(self, limit: int) -> list[HeldCall]:
        """Calls that wait from now on, or no longer, as `Records.pull` gives it."""
        return [pull_held(each) for each in self._waiting.pull(limit)]

    def destination(self, held: HeldCall) -> Recalled:
        """What it called; see `Recall.known`."""
        return self._recall.known(held.destination)

    def close(self) -> None:
        """Unmap."""
        self._waiting.close()


def outcomes(counters: Map) -> dict[str, int]:
    """How often each hook returned for each reason, over all CPUs since the maps were made, by lower-case
    name."""
    cpus = possible_cpus()
    found: dict[str, int] = {}
    for outcome in Outcome:
        value = counters.get(SMALL.pack(outcome)) or bytes(8 * cpus)
        found[outcome.name.lower()] = sum(NUMBER.unpack_from(value, 8 * cpu)[0] for cpu in range(cpus))
    return found


def direct_flows(maps: Mapping[str, Map]) -> list[LiveFlow]:
    """Both ends of the direct flows that live now, for instance to count and judge them again after a
    restart."""
    flows = (pull_live_flow(NUMBER.unpack(key)[0], value) for key, value in items(maps["intents"]))
    return [flow for flow in flows if flow is not None]


def outside_calls(outside: Map) -> list[OutsideCall]:
    """The calls that have left the mesh and live now, or try to."""
    return [pull_outside(value) for _, value in items(outside)]
