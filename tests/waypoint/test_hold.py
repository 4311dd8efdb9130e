"""What all sessions of a waypoint work with."""

from __future__ import annotations

from tests.hbone.conftest import contexts, lab
from tests.hbone.peers import Lab
from tests.waypoint.mesh import Mesh

__all__ = ["contexts", "lab"]


class Told:
    """A tunnel that something goes on in, which leaves when it is told."""

    def __init__(self, among: set) -> None:
        self.among = among
        self.told: list[str] = []
        among.add(self)

    def rejudge(self) -> None:
        self.told.append("rejudge")
        self.among.discard(self)

    def expire(self) -> None:
        self.told.append("expire")
        self.among.discard(self)


def test_whoever_has_something_under_way_is_told_and_may_leave_meanwhile(lab: Lab) -> None:
    parts = Mesh(lab).parts
    one, other = Told(parts.guarded), Told(parts.guarded)
    parts.rejudge()
    assert (one.told, other.told, parts.guarded) == (["rejudge"], ["rejudge"], set())
    late = Told(parts.guarded)
    parts.expire()
    assert (one.told, late.told, parts.guarded) == (["rejudge"], ["expire"], set())


def test_each_waypoint_has_its_own(lab: Lab) -> None:
    one, other = Mesh(lab).parts, Mesh(lab).parts
    assert one.guarded is not other.guarded
    assert one.authenticator is not other.authenticator
    assert one.shadows is not other.shadows
