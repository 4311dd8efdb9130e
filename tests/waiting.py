"""Waits for what comes about by itself and tells nobody."""

from __future__ import annotations

from collections.abc import Callable

import trio


async def until(holds: Callable[[], object], seconds: float, step: float) -> None:
    """Look every `step` seconds, of Trio's clock. Raises trio.TooSlowError after `seconds`."""
    with trio.fail_after(seconds):
        while not holds():  # noqa: ASYNC110 (there is no event for what is waited for)
            await trio.sleep(step)
