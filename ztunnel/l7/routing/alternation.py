"""Which of many regular expressions match a text: a tree, in which each expression is one of a few, and
those few together are one expression, too. What does not match the few is none of them.

A hundred expressions that do not match cost a dozen comparisons so.
"""

from __future__ import annotations

from ztunnel.l7.regex import Regex, any_of, regex

_FEW = 8


class Alternation:
    """Expressions by number; the numbers ascend."""

    __slots__ = ("_few", "_last", "_number", "_together")

    def __init__(self, patterns: list[tuple[int, str]]) -> None:
        self._last = patterns[-1][0]
        self._number = patterns[0][0]
        self._few: list[Alternation] = []
        self._together: Regex | None
        if len(patterns) == 1:
            self._together = regex(patterns[0][1])
            return
        size = 1
        while size * _FEW < len(patterns):
            size *= _FEW
        self._few = [Alternation(patterns[at : at + size]) for at in range(0, len(patterns), size)]
        self._together = any_of([pattern for _, pattern in patterns])

    def next(self, text: bytes, least: int) -> int:
        """The first number, not less than `least`, of an expression that matches the text; -1: there is
        none."""
        if self._last < least or not (self._together is None or self._together.matches(text)):
            return -1
        if not self._few:
            return self._number
        for each in self._few:
            found = each.next(text, least)
            if found >= 0:
                return found
        return -1
