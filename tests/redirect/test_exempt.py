"""This process stays exempt wherever it is moved, or takes no captured calls."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from tests.kernel.lab import Lab
from ztunnel.kernel import cgroup
from ztunnel.redirect.exempt import LOOK_SECONDS, Exemption

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


class Cgroups:
    """The map, with room for so many."""

    def __init__(self, room: int = 64) -> None:
        self.ids: list[int] = []
        self.room = room
        self.broken = False

    def own_cgroup(self, cgroup_id: int) -> None:
        if self.broken or len(self.ids) >= self.room:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        self.disown_cgroup(cgroup_id)
        self.ids.append(cgroup_id)

    def disown_cgroup(self, cgroup_id: int) -> None:
        self.ids = [each for each in self.ids if each != cgroup_id]

    def own_cgroups(self) -> list[int]:
        return list(self.ids)

    def is_own_cgroup(self, cgroup_id: int) -> bool:
        return cgroup_id in self.ids


@pytest.fixture
def cgroups() -> Cgroups:
    return Cgroups()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def exemption(lab: Lab, cgroups: Cgroups, told: list[str]) -> Iterator[Exemption]:
    made = Exemption(cgroups, cgroup.find_root(), told.append)
    yield made
    made.close()
    made.close()


def test_where_we_are_is_written_down_and_looked_at_now_and_then(
    lab: Lab, cgroups: Cgroups, exemption: Exemption, told: list[str]
) -> None:
    assert cgroups.ids == [lab.cgroup_id("app")]
    assert exemption.look_at == 0.0
    exemption.look(7.0)
    assert exemption.look_at == 7.0 + LOOK_SECONDS
    assert (cgroups.ids, told, exemption.trouble) == ([lab.cgroup_id("app")], [], "")


def test_a_process_that_is_moved_is_exempt_where_it_is_and_nowhere_else(
    lab: Lab, cgroups: Cgroups, exemption: Exemption, told: list[str]
) -> None:
    with lab.in_cgroup("proxy"):
        exemption.look(7.0)
        assert cgroups.ids == [lab.cgroup_id("proxy")]
        exemption.look(8.0)
    exemption.look(9.0)
    assert cgroups.ids == [lab.cgroup_id("app")]
    assert told == ["own cgroup"] * 2


def test_another_cgroup_of_the_same_name_is_another_one(
    lab: Lab, cgroups: Cgroups, exemption: Exemption
) -> None:
    """Moved away, and back to where the name is now another cgroup's, between two looks."""
    place = lab.root / "elsewhere"
    ids = []
    for now in (7.0, 8.0):
        cgroup.create(place)
        try:
            cgroup.join(place)
            exemption.look(now)
            ids.append(cgroup.cgroup_id(place))
            assert cgroups.ids == ids[-1:]
        finally:
            cgroup.join(lab.branches["app"])
            cgroup.remove(place)
    assert ids[0] != ids[1]


def test_an_entry_that_somebody_removes_is_written_again(
    lab: Lab, cgroups: Cgroups, exemption: Exemption, told: list[str]
) -> None:
    cgroups.ids.clear()
    exemption.look(7.0)
    assert cgroups.ids == [lab.cgroup_id("app")]
    assert told == ["own cgroup"]


def test_in_the_root_cgroup_nobody_is_exempt_and_the_reason_says_what_to_do(
    lab: Lab, cgroups: Cgroups, exemption: Exemption, told: list[str]
) -> None:
    try:
        cgroup.join(cgroup.find_root())
        exemption.look(7.0)
        assert "Move it to a cgroup of its own" in exemption.trouble
        assert cgroup.cgroup_id(cgroup.find_root()) not in cgroups.ids
        assert told == []
    finally:
        cgroup.join(lab.branches["app"])
    exemption.look(8.0)
    assert (exemption.trouble, told) == ("", ["own cgroup"])
    assert cgroups.ids == [lab.cgroup_id("app")]


def test_what_the_kernel_refuses_is_said_until_it_does_not(
    lab: Lab, cgroups: Cgroups, exemption: Exemption
) -> None:
    cgroups.ids.clear()
    cgroups.broken = True
    exemption.look(7.0)
    assert "cannot exempt itself" in exemption.trouble
    cgroups.broken = False
    exemption.look(8.0)
    assert exemption.trouble == ""
    assert cgroups.ids == [lab.cgroup_id("app")]


def test_a_map_that_is_full_of_predecessors_is_no_hindrance(lab: Lab) -> None:
    cgroups = Cgroups(room=2)
    cgroups.ids = [1000, 1001]
    Exemption(cgroups, cgroup.find_root()).close()
    assert cgroups.ids == [lab.cgroup_id("app")]


def test_what_cannot_be_written_at_the_start_leaves_nothing(lab: Lab) -> None:
    cgroups = Cgroups()
    cgroups.broken = True
    with pytest.raises(OSError, match="too long"):
        Exemption(cgroups, cgroup.find_root())
