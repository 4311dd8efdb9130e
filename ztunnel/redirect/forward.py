"""What pods only forward, as the kernel stops it: a netfilter program at FORWARD in each pod's namespace.

The links are the calling thread's namespace's, so they are made inside it; they cannot be given another
program, so a new one is attached beside the old before that is detached. A link keeps its namespace alive
until it is detached.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from ztunnel.kernel import bpf
from ztunnel.kernel.batch import items
from ztunnel.kernel.bpf import Map
from ztunnel.kernel.filter import allow_forwarded, is_refusing, refuse_forwarded
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import Endpoint, IPAddress
from ztunnel.redirect.layout import NUMBER, SMALL
from ztunnel.redirect.observe import Records
from ztunnel.redirect.passages import (
    INTERFACE,
    Forwarded,
    pull_forwarded,
    push_interface,
    push_passage,
)
from ztunnel.redirect.plan import FORWARD, Pins

FAMILIES = (2, 10)  # NFPROTO_IPV4, NFPROTO_IPV6
_PRIORITIES = range(300, 332)
"""After the pod's own filters: what these drop is not ours to answer."""


class Forwards:
    """The netfilter links of one node's pods, and what their program asks and is told."""

    def __init__(self, pins: Pins, maps: Mapping[str, Map], program_fd: int) -> None:
        """`program_fd` stays the caller's; -1 where the kernel has none: then nftables refuses, and nobody is
        asked."""
        self._pins, self._program_fd = pins, program_fd
        self._uplinks, self._passages = maps["uplinks"], maps["passages"]
        self._records = Records(maps["forwards"])
        self._held: dict[tuple[int, int], int] = {}
        self._filtered: dict[int, tuple[int, ...] | None] = {}
        self._told: dict[int, frozenset[int]] = {}

    @property
    def supported(self) -> bool:
        """Whether the kernel has the program (Linux 6.4, with CONFIG_NETFILTER_BPF_LINK and BTF)."""
        return self._program_fd >= 0

    @property
    def records_fd(self) -> int:
        """Readable when `records()` has something."""
        return self._records.fd

    def records(self, limit: int = 256) -> list[Forwarded]:
        """What the kernel asks or tells, in order. Never waits."""
        return list(map(pull_forwarded, self._records.pull(limit)))

    def know_uplinks(self, cookie: int, uplinks: Collection[int]) -> None:
        """By these interfaces the pod is reached, and its tunnels leave. Raises OSError."""
        for index in uplinks:
            self._uplinks.put(push_interface(cookie, index), SMALL.pack(1))
        told = frozenset(uplinks)
        if self._told.get(cookie) != told:  # all pods' are looked through
            self._forget_uplinks(cookie, told)
            self._told[cookie] = told

    def attach(self, netns: NetworkNamespace, uplinks: Collection[int], allowed: bool = False) -> bool:
        """What this namespace forwards by way of these interfaces is stopped from now on, unless it is
        `allowed`, which the program sees for itself; whether something had to be made. Raises OSError."""
        self.know_uplinks(netns.cookie, uplinks)
        if not self.supported:
            return self._filter(netns, None if allowed else tuple(uplinks))
        made = [self._attach(netns, family) for family in FAMILIES]
        return any(made)

    def release(self, netns: NetworkNamespace) -> None:
        """What `detach` cannot undo by a cookie alone. Raises OSError."""
        if self._filtered.pop(netns.cookie, None) is not None:
            allow_forwarded(netns)

    def detach(self, cookie: int) -> None:
        """Undo `attach`; nothing happens where it was not done. Raises OSError."""
        for family in FAMILIES:
            link = self._held.pop((cookie, family), -1)
            if link >= 0:
                with suppress(OSError):  # its namespace has gone
                    bpf.link_detach(link)
                bpf.close(link)
            bpf.remove_link(self._pins.forward(cookie, family))
        self._told.pop(cookie, None)
        self._forget_uplinks(cookie, ())

    def admit(self, cookie: int, source: IPAddress, called: Endpoint, generation: int) -> None:
        """While this is the pod's generation, and the proxy lives, connections from this address to what they
        call may be forwarded. Raises OSError."""
        self._passages.put(push_passage(cookie, source, called), NUMBER.pack(generation))

    def close(self) -> None:
        """Unmap, and let go; what is pinned stays attached."""
        self._records.close()
        for link in self._held.values():
            bpf.close(link)
        self._held.clear()

    def _filter(self, netns: NetworkNamespace, uplinks: tuple[int, ...] | None) -> bool:
        """By nftables; None: nothing is stopped."""
        known = netns.cookie in self._filtered and self._filtered[netns.cookie] == uplinks
        if known and (uplinks is None or is_refusing(netns)):
            return False
        if uplinks is None:
            allow_forwarded(netns)
        else:
            refuse_forwarded(netns, uplinks)
        self._filtered[netns.cookie] = uplinks
        return True

    def _forget_uplinks(self, cookie: int, keep: Collection[int]) -> None:
        for key, _ in items(self._uplinks):
            owner, index = INTERFACE.unpack(key)
            if owner == cookie and index not in keep:
                self._uplinks.drop(key)

    def _attach(self, netns: NetworkNamespace, family: int) -> bool:
        """Links are held as well as pinned: what somebody unpins stays in force while we live."""
        place, key = self._pins.forward(netns.cookie, family), (netns.cookie, family)
        old = self._held.get(key, -1)
        if old < 0:
            old = _open(place)
        if old >= 0:
            self._held[key] = old
            if bpf.link_info(old).program == bpf.object_id(self._program_fd):
                if place.exists():
                    return False
                bpf.set_pinned(old, place)
                return True
        with netns.entered():
            link = self._held[key] = _create(self._program_fd, family)
        try:
            bpf.set_pinned(link, place)
        finally:
            if old >= 0:
                bpf.link_detach(old)
                bpf.close(old)
        return True


def _open(place: Path) -> int:
    try:
        return bpf.open_pinned(place)
    except FileNotFoundError:
        return -1


def _create(program_fd: int, family: int) -> int:
    """No two programs have one priority: the next is taken where somebody has it."""
    for priority in _PRIORITIES:
        try:
            return bpf.link_create_here(program_fd, FORWARD.hook, family, priority)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EEXIST):
                raise
    raise OSError(errno.EBUSY, "other programs have every priority from 300 on at FORWARD")
