"""Texts that stand in a line as they are: a module of its own, as no subclass of `str` can be compiled."""

from __future__ import annotations


class Bare(str):
    """A value that text shows without quotes, such as an address; quoted all the same if it needs them."""

    __slots__ = ()
