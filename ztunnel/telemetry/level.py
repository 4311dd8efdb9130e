"""Levels of log messages, one default and one for each scope that differs from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

_SCOPE: Final = re.compile(r"[A-Za-z0-9_.:*-]{1,64}")
_MAX_SCOPES: Final = 256


class Level(IntEnum):
    """How much a message matters; a scope's level lets through what is at least as high."""

    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    OFF = 5

    @property
    def word(self) -> str:
        """The level as Istio logs and configures it."""
        return self.name.lower()


_BY_WORD: Mapping[str, Level] = {level.word: level for level in Level} | {"warning": Level.WARN}


def parse_levels(untrusted: str) -> dict[str, Level]:
    """Parse `info`, `info,access=off` or, as Istio's admin interface writes it, `access:debug,xds:trace`.

    Returns:
        Scope to level; the default stands under the empty scope, if one is given.

    Raises:
        ValueError: which part is wrong, and what is accepted.
    """
    levels: dict[str, Level] = {}
    for part in untrusted.split(","):
        scope, _, word = part.strip().rpartition("=" if "=" in part else ":")
        level = _BY_WORD.get(word.strip().lower())
        if level is None or (scope and not _SCOPE.fullmatch(scope)):
            words = "|".join(level.word for level in Level)
            raise ValueError(f"{part[:80]!r} is not <level> or <scope>=<level> with a level of {words}")
        levels[scope.strip()] = level
    return levels


class Levels:
    """What is in force; shared by all loggers of a process and changed while it runs."""

    def __init__(self, text: str = "info") -> None:
        """Takes `text` as the state that `reset` goes back to.

        Raises:
            ValueError: as `parse_levels`.
        """
        self._first = parse_levels(text)
        self._by_scope = dict(self._first)

    def enabled(self, scope: str, level: Level) -> bool:
        """Whether a message of this scope and level is written."""
        levels = self._by_scope
        return level >= levels.get(scope, levels.get("", Level.INFO))

    def change(self, untrusted: str) -> None:
        """Set what `untrusted` names and leave the rest; a default level ends what was set by scope before.

        Raises:
            ValueError: nothing was changed; as `parse_levels`.
        """
        levels = parse_levels(untrusted)
        if "" in levels:
            self._by_scope = levels
        else:
            merged = self._by_scope | levels
            # Whoever reaches the admin interface may name scopes: what that makes us hold is bounded.
            if len(merged) > _MAX_SCOPES:
                raise ValueError(f"at most {_MAX_SCOPES} scopes can have a level of their own")
            self._by_scope = merged

    def reset(self) -> None:
        """Back to how the process was started."""
        self._by_scope = dict(self._first)

    def __str__(self) -> str:
        default = self._by_scope.get("", Level.INFO).word
        scopes = sorted((scope, level) for scope, level in self._by_scope.items() if scope)
        return ",".join([default, *(f"{scope}={level.word}" for scope, level in scopes)])
