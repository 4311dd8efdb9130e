"""Figures of the pods of a node."""

from __future__ import annotations

import time

import pytest

from tests.builders import BuiltWorkload, workload, world_of
from tests.pods.parts import Lines
from ztunnel.kernel.processes import since_boot
from ztunnel.pods.kubelet import Place
from ztunnel.pods.lifecycle import NO_NAMESPACE
from ztunnel.pods.measure import Entries, outside, pending, register, unenrolled, waited
from ztunnel.telemetry.component import PodFigures
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.figures import Figures
from ztunnel.telemetry.level import Levels

WEB = workload("web", "shop").on("n1").hbone()
PLACE = "/proc/4711/ns/net"


def place(seconds: float, inode: int = 7) -> Place:
    """Of a pod whose first process began so long ago, and may have ended since."""
    return Place(PLACE, inode, "u1", since_boot() - seconds)


class Starting:
    """Says which pods were quicker."""

    def __init__(self) -> None:
        self.early: set[str] = set()

    def enrolled(self, pod: str) -> bool:
        return pod in self.early


class Measured:
    """Entries, and what became of them."""

    def __init__(self) -> None:
        self.starting, self.lines, self.figures = Starting(), Lines(), Figures()
        log = Log(self.lines, Levels(), time.time_ns)  # type: ignore[arg-type]
        self.entries = Entries(self.starting, log)
        self.entries.figures = PodFigures(self.figures)

    def counted(self) -> tuple[float, float]:
        """Pods whose time was measured, and those that were quicker."""
        values = {sample.name: sample.value for family in self.figures.collect() for sample in family.samples}
        return values["ztunnel_pod_enroll_seconds_count"], values["ztunnel_pod_start_misses_total"]


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_pods_that_wait_are_told_with_the_cause() -> None:
    reasons = {WEB.uid: f"{NO_NAMESPACE}: nothing runs", "gone": "port 15008 is taken by nginx"}
    assert pending(reasons, world_of(WEB)) == [(("shop", "web", "no namespace"), 1.0)]


def test_nobody_is_outside_where_nobody_is_enrolled() -> None:
    assert list(outside({}, world_of)) == []


def test_who_ran_outside_of_the_mesh_is_told_by_name() -> None:
    assert unenrolled({WEB.uid: 3.5, "gone": 1.0}, world_of(WEB)) == [(("shop", "web"), 3.5)]


def test_the_figures_are_there() -> None:
    figures = Figures()
    web = ("shop", "web")
    register(figures, lambda: [(web, 1)], lambda: [((*web, "x"), 1)], lambda: [(web, 3.5)])
    assert {family.name for family in figures.families()} >= {
        "ztunnel_connections_outside_mesh",
        "ztunnel_pods_pending",
        "ztunnel_pod_unenrolled_seconds",
    }


def test_the_wait_is_from_the_first_process_also_where_that_has_ended() -> None:
    ran = waited(place(3.0))
    assert ran is not None
    assert 3.0 <= ran < 4.0
    assert waited(Place(PLACE, 7, "u1", since_boot() + 100)) == 0.0
    assert waited(Place(PLACE, 7)) is None  # the laboratory's


def test_a_pod_that_is_younger_than_the_proxy_is_measured(measured: Measured) -> None:
    measured.entries.enrolled(WEB, place(0.0), is_known=False)
    assert measured.counted() == (1, 0)
    assert measured.entries.outside == {}


def test_a_pod_that_was_quicker_is_counted_whatever_its_age(measured: Measured) -> None:
    measured.starting.early.add("u1")
    measured.entries.enrolled(WEB, place(100.0), is_known=False)
    assert measured.counted() == (0, 1)
    (line,) = measured.lines.about("called before it was enrolled")
    assert "shop/web" in line
    measured.entries.missed("shop/job")
    assert measured.counted() == (0, 2)
    assert [WEB.uid] == list(measured.entries.outside)


def test_a_pod_that_is_older_than_the_proxy_has_run_outside_of_the_mesh(measured: Measured) -> None:
    """After the machine has started, or while there was no proxy."""
    measured.entries.enrolled(WEB, place(100.0), is_known=False)
    assert measured.counted() == (0, 0)
    assert measured.entries.outside[WEB.uid] == pytest.approx(100.0, abs=2)
    measured.entries.only({"another"})
    assert measured.entries.outside == {}


def test_what_the_proxy_has_done_counts_once(measured: Measured) -> None:
    """Refused first, as a port is taken, and enrolled later: from then on it ran no more."""
    measured.entries.refused(WEB.uid, place(100.0), is_known=False)
    before = dict(measured.entries.outside)
    assert before
    measured.entries.refused(WEB.uid, place(110.0), is_known=False)
    measured.entries.enrolled(WEB, place(120.0), is_known=False)
    assert measured.entries.outside == before


@pytest.mark.parametrize(
    "why", ["a predecessor had it", "opted in by label", "let out by an operator", "refused before"]
)
def test_a_pod_that_is_rightly_not_in_the_mesh_is_not_told(measured: Measured, why: str) -> None:
    entries = measured.entries
    if why == "opted in by label":
        entries.changed(WEB.uid, WEB.plain(), WEB)
    if why == "let out by an operator":
        entries.excuse([WEB.uid])
    entries.enrolled(WEB, place(100.0), is_known=why in ("a predecessor had it", "refused before"))
    assert entries.outside == {}


@pytest.mark.parametrize("before", [None, WEB])
def test_a_pod_that_was_to_be_in_the_mesh_all_the_time_is_told(
    measured: Measured, before: BuiltWorkload | None
) -> None:
    """web-0 went, and came again, while its label was what it is."""
    measured.entries.changed(WEB.uid, WEB.plain(), WEB)
    measured.entries.changed(WEB.uid, WEB, None)
    measured.entries.changed(WEB.uid, before, WEB)
    measured.entries.enrolled(WEB, place(100.0), is_known=False)
    assert list(measured.entries.outside) == [WEB.uid]


def test_a_new_sandbox_of_an_old_pod_is_looked_at_again(measured: Measured) -> None:
    measured.entries.enrolled(WEB, place(100.0), is_known=True)
    measured.entries.enrolled(WEB, place(50.0, inode=8), is_known=False)
    assert measured.entries.outside[WEB.uid] == pytest.approx(50.0, abs=2)
