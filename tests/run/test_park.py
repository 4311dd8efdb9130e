"""A proxy that ends leaves its listeners with the holder, or nowhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.givers import Giver, Lines
from tests.run.holders import holding
from tests.run.parts import until
from ztunnel.run.park import park
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels


@pytest.fixture
def giver() -> Iterator[Giver]:
    made = Giver()
    yield made
    made.close()


def log(lines: Lines) -> Log:
    return Log(lines, Levels(), time.time_ns)  # type: ignore[arg-type]


async def test_with_a_holder_it_steps_back_for_good(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path) as held:
        assert await park(held.place, held.pins, giver, log(giver.log))
        assert giver.steps == ["back", "over"]
        await until(lambda: bool(held.log.about("keeps")))


async def test_without_one_nothing_is_done(tmp_path: Path, giver: Giver) -> None:
    assert not await park(tmp_path / "none.sock", tmp_path, giver, log(giver.log))
    assert giver.steps == []


async def test_where_the_kernel_refuses_it_serves_on(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path, broken=True) as held:
        assert not await park(held.place, held.pins, giver, log(giver.log))
        assert giver.steps == ["back", "up"]
        assert held.log.about("not kept")
        assert not held.given_at.exists()


async def test_one_whose_pins_are_others_keeps_what_it_has(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path) as held:
        assert not await park(held.place, tmp_path / "n2", giver, log(giver.log))
        assert giver.steps == []
        await until(lambda: held.log.about("not kept"))
        [line] = held.log.about("not kept")
        assert "its pins are" in line
