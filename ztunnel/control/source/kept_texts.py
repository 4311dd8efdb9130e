"""Texts that are kept for the next process, with the names of what is good in each, as plain values."""

from __future__ import annotations

from collections.abc import Iterable


def is_text(one: object) -> bool:
    """Whether it is one."""
    return isinstance(one, str)


def read_texts(value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Texts and the names in each, as `render_texts` has written them; what makes no sense is left out."""
    found = []
    for one in value if isinstance(value, list) else ():
        text, names = (one.get("text"), one.get("names")) if isinstance(one, dict) else (None, None)
        if isinstance(text, str) and isinstance(names, list):
            found.append((text, tuple(filter(is_text, names))))
    return tuple(found)


def render_texts(texts: Iterable[tuple[str, Iterable[str]]]) -> list[dict[str, object]]:
    """As plain values."""
    return [{"text": text, "names": list(names)} for text, names in texts]
