"""What the taking over of a folder changed, as one line can say it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ztunnel.control.source.document import Key
from ztunnel.control.source.inventory import Inventory

_NAMED = 10
"""Objects named in a line; of more, how many there are."""


@dataclass(frozen=True, slots=True)
class Change:
    """Objects that came into force, were replaced, or went, each in order."""

    added: tuple[Key, ...] = ()
    changed: tuple[Key, ...] = ()
    removed: tuple[Key, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def fields(self) -> dict[str, str]:
        """For a log line: what there is of the three, each a bounded list of names."""
        named = {"added": self.added, "changed": self.changed, "removed": self.removed}
        return {name: name_some(map(str, keys), len(keys)) for name, keys in named.items() if keys}


def difference(before: Inventory, after: Inventory) -> Change:
    """What `after` changes; the gathering has kept what is equal as the same object."""
    old, new = before.objects, after.objects
    return Change(
        tuple(sorted(new.keys() - old.keys())),
        tuple(sorted(key for key, one in new.items() if key in old and old[key] is not one)),
        tuple(sorted(old.keys() - new.keys())),
    )


def name_some(names: Iterable[str], count: int) -> str:
    """The first of `count` names, and how many more there are."""
    shown = [name for name, _ in zip(names, range(_NAMED), strict=False)]
    more = f" and {count - _NAMED} more" if count > _NAMED else ""
    return ", ".join(shown) + more
