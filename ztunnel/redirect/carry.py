"""Carries what pinned maps hold over to maps of another layout, while programs go on to use them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ztunnel.errors import Unsupported
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import NOEXIST, Map, MapSpec

_SOCKHASH, _RINGBUF = 18, 27
_ESSENTIAL = frozenset({"enrolled", "owners"})
"""Without these calls of pods are left alone: no moment may be without what they hold."""


class KeptMaps:
    """The maps of one version: those that are pinned where they have its layout, else new ones.

    Structs only grow at their end, where zero means not given. So an entry is copied as far as it fits; keys
    of another size, sockets and records cannot be: listeners are entered by whoever has them, calls that are
    on their way fail.
    """

    def __init__(self, place: Path, specs: Mapping[str, MapSpec]) -> None:
        """`place` is where they are pinned; nothing is changed there before `pin`.

        Raises:
            OSError: the kernel refuses. Unsupported: what says who is in the mesh cannot be copied.
        """
        self._place = place
        self.opened: dict[str, Map] = {}
        self._old: dict[str, Map] = {}
        self._copied: dict[str, set[bytes]] = {}
        try:
            for name, spec in specs.items():
                self._keep(name, spec)
        except (OSError, Unsupported):
            self.close()
            raise

    def _keep(self, name: str, spec: MapSpec) -> None:
        with suppress(FileNotFoundError):
            old = Map(bpf.open_pinned(self._place / name))
            if old.spec == spec:
                self.opened[name] = old
                return
            self._old[name] = old
            if name in _ESSENTIAL and not _is_like(old.spec, spec):
                raise Unsupported(
                    f"this version keeps {name} in another way than what runs, and would have to let pods "
                    "out of the mesh in between: let them go first (ztunnel detach, clean), then start it"
                )
        self.opened[name] = Map(bpf.map_create(name, spec))

    @property
    def descriptors(self) -> dict[str, int]:
        """By name; they stay ours."""
        return {name: each.fd for name, each in self.opened.items()}

    @property
    def differ(self) -> bool:
        """Whether a map that is pinned has another layout."""
        return bool(self._old)

    def carry_over(self) -> None:
        """Copy entries that have not been copied yet. What a program has changed in a new map since stays.
        Raises OSError."""
        for name, old in self._old.items():
            fresh = self.opened[name]
            if not _is_like(old.spec, fresh.spec):
                continue
            copied, again = self._copied.setdefault(name, set()), name in self._copied
            for key in old:
                value = None if key in copied else old.get(key)
                if value is not None:
                    copied.add(key)
                    with suppress(FileExistsError):
                        shaped = value[: fresh.value_size].ljust(fresh.value_size, b"\0")
                        fresh.put(key, shaped, NOEXIST if again else 0)

    def pin(self) -> None:
        """From now on these are found under their names. Raises OSError."""
        for name, each in self.opened.items():
            bpf.set_pinned(each.fd, self._place / name)

    def close(self) -> None:
        """Let go; what is pinned stays."""
        for each in (*self.opened.values(), *self._old.values()):
            each.close()
        self.opened.clear()
        self._old.clear()


def differ(place: Path, specs: Mapping[str, MapSpec]) -> bool:
    """Whether maps that are pinned there have another layout than these. Raises OSError."""
    for name, spec in specs.items():
        with suppress(FileNotFoundError), Map(bpf.open_pinned(place / name)) as pinned:
            if pinned.spec != spec:
                return True
    return False


def _is_like(old: MapSpec, new: MapSpec) -> bool:
    """Whether entries can be copied."""
    return old.kind == new.kind and old.key_size == new.key_size and new.kind not in (_SOCKHASH, _RINGBUF)
