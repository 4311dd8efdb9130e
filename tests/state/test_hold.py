"""Hold: the current world and its subscribers."""

from __future__ import annotations

import pytest

from tests.builders import workload, world_of
from ztunnel.state.change import Change
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold
from ztunnel.state.world import World


def test_it_starts_with_an_empty_world_or_the_given_one() -> None:
    assert Hold().world == World()
    world = world_of(workload("a"))
    assert Hold(world).world is world


def test_subscribers_are_told_in_order_when_the_world_is_current_already() -> None:
    hold, told = Hold(), list[tuple[str, World, World, Change, World]]()
    hold.subscribe(lambda old, new, change: told.append(("first", old, new, change, hold.world)))
    hold.subscribe(lambda old, new, change: told.append(("second", old, new, change, hold.world)))
    before = hold.world
    world, change = apply(before, [workload("a")])
    hold.publish(world, change)
    assert told == [("first", before, world, change, world), ("second", before, world, change, world)]


def test_nobody_is_told_of_no_change() -> None:
    hold, told = Hold(), list[World]()
    hold.subscribe(lambda old, new, change: told.append(new))
    hold.publish(hold.world, Change())
    assert told == []


def test_who_unsubscribed_is_not_told() -> None:
    hold, told = Hold(), list[World]()
    end = hold.subscribe(lambda old, new, change: told.append(new))
    end()
    hold.publish(*apply(hold.world, [workload("a")]))
    assert told == []


def test_a_subscriber_with_a_bug_keeps_nobody_from_being_told() -> None:
    def fail(old: World, new: World, change: Change) -> None:
        raise LookupError("a bug")

    hold, told = Hold(), list[World]()
    hold.subscribe(fail)
    hold.subscribe(lambda old, new, change: told.append(new))
    with pytest.raises(LookupError):
        hold.publish(*apply(hold.world, [workload("a")]))
    assert told == [hold.world]
