r"""Regular expressions of RE2, which take time that is linear in the text, whatever the expression (Istio
and the Gateway API name this syntax; Python's `re` knows expressions of which 30 characters take it
minutes).

What is too large is refused when it is read, not when a request comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import re2

MOST_CHARACTERS = 1024
"""Of an expression (Istio's validation: 1024)."""

_MOST_BYTES = 1 << 20
"""What RE2 may take for one, compiled and at work: what does not fit is refused or, at work, slower."""

_SPECIAL = frozenset(r"\^$.[]|()*+?{}")
_REPEATED = frozenset("*?{")


def _options(most_bytes: int = _MOST_BYTES) -> re2.Options:
    made = re2.Options()
    made.max_mem = most_bytes
    made.log_errors = False
    return made


class Regex:
    """One, compiled.

    Attributes:
        prefix: with which every text begins that it matches as a whole; empty where none is known.
    """

    __slots__ = ("_compiled", "_fullmatch", "groups", "pattern", "prefix")

    def __init__(self, pattern: str, options: re2.Options | None = None) -> None:
        """Raises ValueError, with a reason: it is none, or too large."""
        try:
            self._compiled = re2.compile(pattern.encode(), options or _options())
        except re2.error as error:
            raise ValueError(f"not a regular expression of RE2: {pattern!r}: {_reason(error)}") from error
        except UnicodeEncodeError as error:
            raise ValueError(f"not text: {pattern!r}") from error
        self._fullmatch: Callable[[bytes], object] = self._compiled.fullmatch
        self.pattern = pattern
        self.groups: int = self._compiled.groups
        self.prefix = literal_prefix(pattern).encode()

    def matches(self, text: bytes) -> bool:
        """Whether it matches the whole text."""
        return self._fullmatch(text) is not None

    def replace(self, text: bytes, by: Substitute) -> bytes:
        """The text with `by` in the place of each match, left to right (RE2::GlobalReplace)."""
        made, end = [], 0
        for found in self._compiled.finditer(text):
            start, after = found.span()
            made += [text[end:start], by.expand([found.group(n) or b"" for n in range(self.groups + 1)])]
            end = after
        made.append(text[end:])
        return b"".join(made)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


@lru_cache(4096)
def regex(pattern: str) -> Regex:
    """That expression, compiled once. Raises ValueError as `Regex` does, and where it is too long."""
    if len(pattern) > MOST_CHARACTERS:
        raise ValueError(f"an expression has at most {MOST_CHARACTERS} characters, not {len(pattern)}")
    return Regex(pattern)


def any_of(patterns: list[str]) -> Regex | None:
    """What matches whatever one of these does; None: that would be too large."""
    try:
        return Regex(
            "|".join(f"(?:{pattern})" for pattern in patterns), _options(len(patterns) * _MOST_BYTES)
        )
    except ValueError:
        return None


class Substitute:
    r"""What is put in the place of a match: a text with `\0` to `\9` for its groups and `\\` for a
    backslash."""

    __slots__ = ("_parts",)

    def __init__(self, text: str, groups: int) -> None:
        """`groups`: how many the expression has. Raises ValueError, with a reason."""
        self._parts: list[bytes | int] = []
        plain, rest = bytearray(), iter(text)
        for character in rest:
            if character != "\\":
                plain += character.encode()
                continue
            after = next(rest, "")
            if after == "\\":
                plain += b"\\"
            elif after.isascii() and after.isdigit():
                if int(after) > groups:
                    raise ValueError(f"the regular expression has {groups} groups, no \\{after}: {text!r}")
                self._parts += [bytes(plain), int(after)]
                plain.clear()
            else:
                raise ValueError(f"after a backslash stands a digit or another backslash: {text!r}")
        self._parts.append(bytes(plain))

    def expand(self, groups: list[bytes]) -> bytes:
        """The text with these in it; the first is the whole match."""
        return b"".join([groups[part] if isinstance(part, int) else part for part in self._parts])


def literal_prefix(pattern: str) -> str:
    """With what a text begins that the expression matches as a whole, as far as that is told by a look."""
    if _alternates(pattern):
        return ""
    rest = pattern[1:] if pattern.startswith("^") else pattern
    made: list[str] = []
    at = 0
    while at < len(rest):
        character, size = rest[at], 1
        if character == "\\":
            size = 2
            character = rest[at + 1 : at + 2]
            if not character or character.isalnum() or not character.isascii():
                break
        elif character in _SPECIAL:
            break
        following = rest[at + size : at + size + 1]
        if following in _REPEATED and following:
            break
        made.append(character)
        at += size
    return "".join(made)


def _alternates(pattern: str) -> bool:
    """Whether there may be a choice outside of all groups."""
    if r"\Q" in pattern:
        return True
    if "|" not in pattern or "[" in pattern:
        return "|" in pattern
    depth, escaped = 0, False
    for character in pattern:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "|" and depth == 0:
            return True
    return False
