"""Teaches the kernel which addresses concern the mesh, so that calls to all others are left alone.

The kernel's list follows the world before a change is acknowledged, at the cost of what the change names.
While it cannot be trusted to be whole, it does not count, and every call comes to the proxy:

    started ──> nothing known ── world received ──> known ── no room ──> nothing known
                                                       ^ ── the world fits again, all told anew ──┘
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from ztunnel.model.address import IPAddress
from ztunnel.state.change import Change
from ztunnel.state.hold import Hold
from ztunnel.state.lookup import concerns
from ztunnel.state.world import World


class Kernel(Protocol):
    """What the kernel knows of addresses (`redirect.enforce.Addresses`, which says more of each)."""

    @property
    def limit(self) -> int: ...

    def tell(self, concerned: Collection[IPAddress], others: Iterable[IPAddress] = ()) -> None: ...
    def forget(self) -> None: ...
    def known(self, known: bool) -> None: ...


class MeshAddresses:
    """The kernel's list. `left_alone` tells whether calls to other addresses do not come to the proxy."""

    def __init__(self, kernel: Kernel, hold: Hold, node: str) -> None:
        self._kernel = kernel
        self._hold = hold
        self._node = node
        self._received = False
        self._whole = False
        self._strange = self._is_strange(hold.world)
        self.left_alone = False
        kernel.forget()
        self._tell_all(hold.world)
        self._end = hold.subscribe(self._changed)

    def begin_anew(self) -> None:
        """The kernel's list may be anything: tell all of it again. Raises OSError."""
        self._kernel.forget()
        self.left_alone = self._whole = False
        self._tell_all(self._hold.world)
        self._settle()

    def hand_over(self) -> None:
        """A successor keeps the list from now on."""
        self._end()

    def received(self) -> None:
        """The world is complete: an address that is not in it is nobody's."""
        self._received = True
        self._settle()

    def _changed(self, before: World, world: World, change: Change) -> None:
        """Runs before the change is acknowledged; what the kernel refuses to take ends the list's
        validity."""
        if self._node in change.nodes:
            self._strange = self._is_strange(world)
        if self._whole:
            self._tell_change(before, world, change)
        elif change.addresses or change.services:
            self._tell_all(world)
        self._settle()

    def _is_strange(self, world: World) -> bool:
        """A pod of another network would find none of the mesh's addresses: its calls are to be refused."""
        return any(each.enrolled and each.network != world.network for each in world.on_node(self._node))

    def _tell_change(self, before: World, world: World, change: Change) -> None:
        concerned: list[IPAddress] = []
        others: list[IPAddress] = []
        for ip in _moved(before, world, change):
            now = concerns(world, ip)
            if now != concerns(before, ip):
                (concerned if now else others).append(ip)
        if concerned or others:
            try:
                self._kernel.tell(concerned, others)
            except OSError:
                self._whole = False

    def _tell_all(self, world: World) -> None:
        """Of a world that does not fit, nothing is told: to try would cost the same at each change."""
        if len(world.addresses) + len(world.virtual) > self._kernel.limit:
            return
        self._kernel.forget()
        self.left_alone = False
        addresses = (*world.addresses, *world.virtual)
        try:
            self._kernel.tell([ip for ip in addresses if concerns(world, ip)])
        except OSError:
            return
        self._whole = True

    def _settle(self) -> None:
        known = self._received and self._whole and not self._strange
        if known != self.left_alone:
            self._kernel.known(known)
            self.left_alone = known


def _moved(before: World, world: World, change: Change) -> Iterable[IPAddress]:
    """The addresses about which the answer may be another one now."""
    yield from change.addresses
    for name in change.services:
        old, new = before.service(name), world.service(name)
        if old is not new:
            yield from old.addresses if old else ()
            yield from new.addresses if new else ()
