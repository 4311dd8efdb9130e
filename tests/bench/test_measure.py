"""The benchmark itself, without ztunnel, for a second each: it stands, measures, and leaves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.cells import BARE, ENVOY, Cell, Load, Route, idle_cells
from bench.contestants import Contestant, Way
from bench.figures import Unmeasured
from bench.idle import measure_idle
from bench.measure import bulk_command, measure, run_in, until_answered, warm_up, wrk_command
from bench.peers import parse_peer
from bench.prepare import Ground, Wanted, ground

ITSELF = Way("a/client", "a/far", "10.0.0.1", (80, 81), ("10.0.0.1", 5001))
BESIDE = Way("a/client", "a/far", "127.0.0.1", (15001,), ("127.0.0.1", 15004))
NOTHING = {"start": ["sleep", "infinity"], "stop": ["true"]}

IDLE_CELLS = idle_cells(10_000)


def test_new_connections_go_to_all_ports_in_turn_and_others_to_one() -> None:
    opens, stays = (Cell(Route.TWO_NODES, load, 64) for load in (Load.CONNECTIONS, Load.KIB_16))
    assert wrk_command(ITSELF, opens, 2)[-4:] == ["--", "10.0.0.1", "80", "81"]
    assert wrk_command(BESIDE, opens, 2)[-3:] == ["-H", "Connection: close", "http://127.0.0.1:15001/"]
    assert wrk_command(ITSELF, stays, 2)[-1] == "http://10.0.0.1:80/16k"
    assert "-c64" in wrk_command(ITSELF, stays, 2)


def test_bulk_goes_either_way() -> None:
    down, up = (Cell(Route.TWO_NODES, load, 8) for load in (Load.BULK, Load.UPLOAD))
    assert bulk_command(BESIDE, down, 2)[-5:] == ["down", "127.0.0.1", "15001", "2", "8"]
    assert bulk_command(BESIDE, up, 2)[-5:] == ["up", "127.0.0.1", "15004", "2", "8"]


@pytest.fixture(scope="module")
def stands() -> Iterator[Ground]:
    peer = parse_peer({"client": NOTHING, "server": NOTHING}, "a test", "idler", 0)
    with ground(f"benchtest{os.getpid()}", Wanted(nodes=False, peers=(peer,))) as made:
        yield made


def contestant(stands: Ground, name: str) -> Contestant:
    return next(one for one in stands.contestants if one.name == name)


@pytest.mark.root
@pytest.mark.parametrize("name", [BARE, ENVOY, "idler"])
def test_a_contestant_goes_the_ways_that_it_says(stands: Ground, name: str) -> None:
    one = contestant(stands, name)
    for route in one.ways:
        warm_up(stands.laboratory, one, route)


@pytest.mark.root
@pytest.mark.timeout(30)
def test_every_load_gives_its_figures(stands: Ground) -> None:
    for name, load, count in (
        (ENVOY, Load.REQUESTS, 6),
        (BARE, Load.CONNECTIONS, 1),
        (ENVOY, Load.BULK, 1),
        (ENVOY, Load.UPLOAD, 1),
    ):
        one = contestant(stands, name)
        until_answered(stands.laboratory, one, Route.TWO_NODES)
        sample = measure(stands.laboratory, one, Cell(Route.TWO_NODES, load, 1), seconds=1)
        assert len(sample) == count
        assert all(value > 0 for value in sample)


@pytest.mark.root
@pytest.mark.timeout(30)
def test_proxies_are_weighed_with_connections_that_stand(stands: Ground) -> None:
    others = [contestant(stands, name) for name in (BARE, ENVOY, "idler")]
    cells = (IDLE_CELLS[0], Cell(Route.PROXIES, Load.IDLE, 20))
    found = measure_idle(stands.laboratory, others, cells, rounds=1)
    assert [result.failure for result in found] == ["", ""]
    assert found[0].samples.keys() == {ENVOY, "idler"}
    assert found[1].median(ENVOY, 0) > found[0].median("idler", 0) > 0


@pytest.mark.root
def test_a_command_that_fails_says_what_it_printed(stands: Ground) -> None:
    with pytest.raises(Unmeasured, match=r"sh: no such thing"):
        run_in(stands.laboratory, "plain/client", ["sh", "-c", "echo no such thing; exit 1"], seconds=1)
