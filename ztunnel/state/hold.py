"""Holds the current world and tells its subscribers, in order, whenever it is replaced."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from ztunnel.state.change import Change
from ztunnel.state.world import World

Subscriber = Callable[[World, World, Change], None]
"""Called with the world before, the world now, and what the change can touch."""


class Hold:
    """The one place that knows which world is current. For one thread; `world` may be read at any time."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self._subscribers: list[Subscriber] = []

    def publish(self, world: World, change: Change) -> None:
        """Make `world` the current one; returns when every subscriber has acted upon it.

        So what the change voids is void before the caller acknowledges it. A subscriber that raises (a bug)
        does not keep the others from being told; the last such error is raised here at the end.
        """
        before, self.world = self.world, world
        if not change:
            return
        with ExitStack() as calls:
            for subscriber in reversed(self._subscribers):
                calls.callback(subscriber, before, world, change)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` upon each change from now on, after those that came before it.

        Returns:
            A function that ends it.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)
