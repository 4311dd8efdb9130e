"""Where an accepted connection really wanted to go: taken from the kernel once, at accept."""

from __future__ import annotations

from ztunnel.kernel.bpf import Map
from ztunnel.model.address import Endpoint
from ztunnel.redirect.layout import Recalled, pull_destination, push_caller


class Recall:
    """Reads the map that sockops fills before a captured SYN leaves."""

    def __init__(self, callers: Map) -> None:
        self._callers = callers

    def original_destination(self, cookie: int, peer: Endpoint) -> Recalled | None:
        """What the application asked for whose end is `peer`, in the namespace of `cookie`; the entry is gone
        after.

        None: nobody was redirected from there. The connection was made to our port by hand, or its entry was
        lost; either way it is refused, because its destination is unknown.
        """
        found = self._callers.take(push_caller(cookie, peer))
        return pull_destination(found) if found else None
