"""Two pairs of proxies in the place of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from bench.cells import ENGINE_CELLS, OURS
from bench.engines import PLACES, SPACE, drive, manifests, of_one, one_and_two
from bench.figures import Result, Unmeasured

[CELL] = ENGINE_CELLS
ADDRESSES = {
    f"{SPACE}/{end}-{name}": f"10.0.0.{number}"
    for number, name in enumerate(PLACES, 1)
    for end in ("client", "server")
}


class Machine:
    """Answers as wrk does; its proxies are this process."""

    def __init__(self, root: Path, errors: int = 0) -> None:
        self.names = SimpleNamespace(proxy_cgroup=lambda node: root / node)
        self.called: list[tuple[str, list[str]]] = []
        self._errors = errors
        for node in {node for ends in PLACES.values() for node in ends}:
            (root / node).mkdir()
            (root / node / "cgroup.procs").write_text(f"{os.getpid()}\n")

    def exec(self, pod: str, words: list[str], timeout: float) -> SimpleNamespace:
        self.called.append((pod, words))
        found = {"requests": 3000, "duration": 2_000_000, "p50": 1, "p99": 2, "errors": self._errors}
        return SimpleNamespace(returncode=0, stdout=json.dumps(found), stderr="")


def test_pods_stand_where_their_proxies_are(tmp_path: Path) -> None:
    pods = [each for each in yaml.safe_load_all(manifests(tmp_path)) if each["kind"] == "Pod"]
    placed = {each["metadata"]["name"]: each["spec"]["nodeName"] for each in pods}
    assert len(placed) == 2 * len(PLACES)
    for name, ends in PLACES.items():
        assert (placed[f"client-{name}"], placed[f"server-{name}"]) == ends


def test_the_second_load_is_the_same_but_for_its_proxies() -> None:
    one, two = one_and_two(ADDRESSES)
    assert (one.nodes, two.nodes) == (
        (("node-1", "node-2"),),
        (("node-1", "node-2"), ("node-3", "node-4")),
    )
    assert one.ways[0] == two.ways[0]
    assert [way.client for way in (one.ways[1], two.ways[1])] == [
        f"{SPACE}/client-second",
        f"{SPACE}/client-apart",
    ]
    assert {way.host for way in (*one.ways, *two.ways)} == set(ADDRESSES.values())


def test_both_clients_together_have_as_many_connections_as_the_row_says(tmp_path: Path) -> None:
    machine, (_, two) = Machine(tmp_path), one_and_two(ADDRESSES)
    rate, cpu = drive(machine, two, CELL, 2)
    assert rate == 3000
    assert 0 <= cpu < 1
    assert {pod for pod, _ in machine.called} == {way.client for way in two.ways}
    assert all(f"-c{CELL.parallel // 2}" in words for _, words in machine.called)


def test_a_client_that_is_not_answered_is_no_sample(tmp_path: Path) -> None:
    with pytest.raises(Unmeasured, match="errors"):
        drive(Machine(tmp_path, errors=1), one_and_two(ADDRESSES)[0], CELL, 1)


def test_figures_are_those_of_two_by_those_of_one_of_the_same_round() -> None:
    samples = {"one": [(100.0, 2.0), (50.0, 4.0)], "two": [(150.0, 3.0), (50.0, 2.0)]}
    found = of_one(Result(CELL, samples, repeated=1))
    assert (found.samples, found.repeated) == ({OURS: [(1.5, 1.5), (1.0, 0.5)]}, 1)
    failed = of_one(Result(CELL, {"one": [], "two": []}, failure="away"))
    assert (failed.samples, failed.failure) == ({OURS: []}, "away")
