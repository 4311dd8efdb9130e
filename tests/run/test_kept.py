"""What a proxy has left is given to the next one, wholly, and once."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from tests.run.givers import PINS, Giver, call
from ztunnel.run.kept import Kept
from ztunnel.run.successor import take_over


async def test_all_of_it_is_offered_and_let_go_of_when_it_is_taken(tmp_path: Path) -> None:
    giver = Giver(calls=[call(1), call(2)])
    async with giver.serving(tmp_path / "n.sock"):
        inherited = await take_over(tmp_path / "n.sock", PINS, False)
        kept = Kept(inherited)
        offer = await kept.step_back()
        assert sorted(offer.listeners) == [7, 8]
        assert (offer.calls, offer.since_ns, offer.pages) == (giver.calls, 4711, ())
        kept.hand_over(False)
        assert kept.over.is_set()
        assert all(each.fileno() == -1 for pod in offer.listeners.values() for each in pod.all)
    giver.close()


async def test_a_second_one_waits_until_the_first_has_failed(tmp_path: Path, nursery: trio.Nursery) -> None:
    giver = Giver()
    async with giver.serving(tmp_path / "n.sock"):
        kept = Kept(await take_over(tmp_path / "n.sock", PINS, False))
        assert not kept.is_asked
        await kept.step_back()
        assert kept.is_asked
        offers = []

        async def second() -> None:
            offers.append(await kept.step_back())

        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        assert offers == []
        kept.step_up()
        await wait_all_tasks_blocked()
        assert len(offers) == 1
        assert not kept.over.is_set()
        kept.hand_over(False)
    giver.close()
