"""Where an accepted connection really wanted to go: taken from the kernel once, at accept."""

from __future__ import annotations

from typing import Final

from ztunnel.kernel.bpf import Map
from ztunnel.model.address import Endpoint
from ztunnel.redirect.layout import ASKED_BYTES, Recalled, pull_destination, push_caller

_REMEMBERED: Final = 4096
"""Destinations that are kept: applications call the same ones again and again."""


class Recall:
    """Reads the map that sockops fills before a captured SYN leaves."""

    def __init__(self, callers: Map) -> None:
        self._callers = callers
        self._known: dict[bytes, Recalled] = {}

    def original_destination(self, cookie: int, peer: Endpoint, capture_port: int) -> Recalled | None:
        """What the application asked for whose end is `peer` and who was accepted at `capture_port`, in the
        namespace of `cookie`; the entry is gone after. The same answer is the same object, as long as it is
        remembered.

        None: nobody was redirected from there, or the entry was lost; either way it is refused, because its
        destination is unknown.
        """
        found = self._callers.take(push_caller(cookie, peer, capture_port))
        return None if found is None else self.known(found[:ASKED_BYTES])

    def known(self, found: bytes) -> Recalled:
        """What was called and picked, as the kernel has packed it."""
        recalled = self._known.get(found)
        if recalled is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            recalled = self._known[found] = pull_destination(found)
        return recalled
