"""Saying goodbye within a deadline: the only place where cancellation is shielded."""

from __future__ import annotations

import trio


def closing(seconds: float) -> trio.CancelScope:
    """A shielded scope for a goodbye (a GOAWAY, a flush) that gives up after `seconds`."""
    return trio.move_on_after(seconds, shield=True)
