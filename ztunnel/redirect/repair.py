"""Keeps what is loaded attached and pinned: its descriptors are held, so that what somebody unpins stays in
force while we live, and is pinned again; what somebody detaches is attached again.

A successor that loads other programs takes the same pins; it holds the loader's lock meanwhile, and leaves
another version behind. From then on they are its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ztunnel.kernel import bpf, probe
from ztunnel.redirect.load import hold, is_held
from ztunnel.redirect.plan import HOOKS, SK_LOOKUP, Hook, Pins, Target
from ztunnel.redirect.replace import attach

_CGROUP_HOOKS = tuple(hook for hook in HOOKS if hook.target is Target.CGROUP)

Lock = Callable[[], AbstractContextManager[bool]]
"""The loader's lock: whether we have it within the block. Never waits."""


class Installation:
    """The pins of one node, as they were when it was opened.

    Attributes:
        programs: the kernel's numbers of our programs.
    """

    def __init__(self, pins: Pins, cgroup: Path, maps: Mapping[str, int], lock: Lock) -> None:
        """`maps` are descriptors by name, which stay the caller's. Raises OSError."""
        self._pins, self._lock = pins, lock
        self._seen: dict[Path, tuple[int, int]] = {}
        self._opened: list[int] = []
        self._is_ours = True
        try:
            self._keep(hold(pins.root))
            self._cgroup = self._keep(os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            self._version = os.readlink(pins.version)
            self._programs = {
                hook.name: self._open(pins.programs / hook.name)
                for hook in HOOKS
                if not hook.optional or (pins.programs / hook.name).exists()
            }
            self._links = {hook: self._open(pins.links / hook.name) for hook in _CGROUP_HOOKS}
            self.programs = frozenset(map(bpf.object_id, self._programs.values()))
        except OSError:
            self.close()
            raise
        lasting = {pins.maps / name: fd for name, fd in maps.items()}
        self._lasting = lasting | {pins.programs / name: fd for name, fd in self._programs.items()}
        self._link_pins = {hook: pins.links / hook.name for hook in _CGROUP_HOOKS}

    def close(self) -> None:
        """Let go; what is pinned stays in force."""
        for fd in self._opened:
            bpf.close(fd)
        self._opened.clear()

    @property
    def cgroup_fd(self) -> int:
        """The cgroup that they are attached to."""
        return self._cgroup

    def look(self) -> list[str]:
        """See whether all of it is there, and make what is missing; 100 us where all is.

        Returns:
            What had to be repaired: `link connect4`, `pins`, `bpffs`.

        Raises:
            Unsupported: no bpffs can be mounted. OSError: the kernel refuses, and says who is in the way.
        """
        with self._lock() as locked:
            if not locked or not self._is_ours:
                return []
            if self._version_now() not in (self._version, ""):
                self._is_ours = False
                return []
            fresh = [hook.name for hook in _CGROUP_HOOKS if self._attach(hook)]
            return [*(f"link {name}" for name in fresh), *self._pin_all(frozenset(fresh))]

    def _open(self, place: Path) -> int:
        return self._keep(bpf.open_pinned(place))

    def _keep(self, fd: int) -> int:
        self._opened.append(fd)
        return fd

    def _version_now(self) -> str:
        with suppress(OSError):
            return os.readlink(self._pins.version)
        return ""

    def _attach(self, hook: Hook) -> bool:
        """Whether the link had to be made anew, or given our program again."""
        program, link = self._programs[hook.name], self._links[hook]
        info = bpf.link_info(link)
        if info.target == bpf.target_id(self._cgroup):
            if info.program == bpf.object_id(program):
                return False
            bpf.link_update(link, program)
            return True
        fresh = self._keep(attach(program, self._cgroup, hook))
        self._opened.remove(link)
        bpf.close(link)
        self._links[hook] = fresh
        return True

    def _pin_all(self, fresh: frozenset[str]) -> list[str]:
        """Pin what is not; `fresh` are links that were just made, and need not be told of again."""
        links = ((self._link_pins[hook], fd) for hook, fd in self._links.items())
        wanted = [*self._lasting.items(), *links]
        missing = [(place, fd) for place, fd in wanted if not self._is_pinned(place, fd)]
        if not missing and self._version_now():
            return []
        told = [place for place, _ in missing if place.parent != self._pins.links or place.name not in fresh]
        made = ["pins"] if told or not self._version_now() else []
        if not self._pins.root.is_dir():
            if not probe.lies_on_bpffs(self._pins.root):
                made.append("bpffs")
            probe.require_bpffs(self._pins.root)
        pins = self._pins
        for place in (pins.root, pins.maps, pins.programs, pins.links, pins.pods, pins.forwards):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if "bpffs" in made or not is_held(pins.root):
            self._keep(hold(pins.root))
        for place, fd in missing:
            bpf.set_pinned(fd, place)
        if not self._version_now():
            self._pins.version.symlink_to(self._version)
        return made

    def _is_pinned(self, place: Path, fd: int) -> bool:
        """Whether this object is pinned there. A pin whose inode was seen before is the same as before."""
        try:
            found = os.stat(place)
            inode = found.st_dev, found.st_ino
            if self._seen.get(place) == inode:
                return True
        except OSError:
            return False
        if _pinned(place) != bpf.object_id(fd):
            return False
        self._seen[place] = inode
        return True


class PodLinks:
    """The sk_lookup links of pods, by the cookie of their namespace, pinned and held."""

    def __init__(self, pins: Pins, program_fd: int) -> None:
        """`program_fd` stays the caller's."""
        self._pins, self._program_fd = pins, program_fd
        self._place = pins.programs / SK_LOOKUP.name
        self._held: dict[int, int] = {}

    def close(self) -> None:
        """Let go; what is pinned stays attached."""
        for fd in self._held.values():
            bpf.close(fd)
        self._held.clear()

    def attach(self, cookie: int, netns_fd: int) -> bool:
        """The program is attached to that namespace, and pinned; whether something had to be done. Raises
        OSError."""
        place = self._pins.pod(cookie)
        link = self._held.get(cookie)
        if link is None:
            with suppress(OSError):
                link = self._held[cookie] = bpf.open_pinned(place)
        if link is not None and self._serves(link, netns_fd):
            if place.exists():
                return False
        else:
            self._drop(cookie)
            link = self._held[cookie] = bpf.link_create(self._program_fd, netns_fd, SK_LOOKUP.hook)
        bpf.set_pinned(link, place)
        return True

    def detach(self, cookie: int) -> None:
        """End it, pinned or not; nothing happens where there is none. Raises OSError."""
        link = self._held.get(cookie)
        if link is not None:
            with suppress(OSError):  # its namespace has gone
                bpf.link_detach(link)
            self._drop(cookie)
        bpf.remove_link(self._pins.pod(cookie))

    def _serves(self, link: int, netns_fd: int) -> bool:
        """Whether it is attached there and runs our program, or the one that a successor has pinned."""
        info = bpf.link_info(link)
        if info.target != bpf.target_id(netns_fd):
            return False
        return info.program == bpf.object_id(self._program_fd) or info.program == _pinned(self._place)

    def _drop(self, cookie: int) -> None:
        link = self._held.pop(cookie, None)
        if link is not None:
            bpf.close(link)


class Beside:
    """The programs of all node proxies that pin beside one, itself included, which are no strangers.

    A pin whose inode was seen before is the same as before: that is one system call instead of four.
    """

    def __init__(self, pins: Pins) -> None:
        self._parent = pins.root.parent
        self._seen: dict[str, tuple[int, int]] = {}

    def programs(self) -> frozenset[int]:
        """Their numbers."""
        try:
            nodes = sorted(os.listdir(self._parent))
        except OSError:
            return frozenset()
        seen, self._seen = self._seen, {}
        for node in nodes:
            for hook in HOOKS:
                self._look(f"{self._parent}/{node}/programs/{hook.name}", seen)
        return frozenset(number for _, number in self._seen.values())

    def _look(self, place: str, seen: Mapping[str, tuple[int, int]]) -> None:
        with suppress(OSError):
            inode = os.stat(place).st_ino
            known = seen.get(place)
            number = known[1] if known is not None and known[0] == inode else _pinned(Path(place))
            if number:
                self._seen[place] = inode, number


def programs_beside(pins: Pins) -> frozenset[int]:
    """As `Beside.programs`, once."""
    return Beside(pins).programs()


def _pinned(place: Path) -> int:
    """The number of what is pinned there; 0 for nothing."""
    try:
        fd = bpf.open_pinned(place)
    except OSError:
        return 0
    try:
        return bpf.object_id(fd)
    finally:
        bpf.close(fd)
