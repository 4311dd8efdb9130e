"""What a client of HTTP/1.1 sends is read in turn, and its going noticed; `test_downstream1` has requests."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import Rig
from tests.waypoint.test_downstream1 import GET, POST, serve


def test_many_small_requests_cost_their_sender_its_next_turn() -> None:
    rig = Rig()
    rig.reachable = False
    wire, _ = serve(rig)
    wire.send(GET * 100)
    assert 0 < wire.said().count(b"HTTP/1.1 503") < 20
    assert rig.clock.later
    rig.clock.rounds()
    assert len(rig.ended_) == 100
    assert {each.flag for each in rig.ended_} == {"UH"}
    assert wire.took == wire.given


def test_what_comes_ahead_of_its_turn_is_not_taken() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET + GET + b"x" * 100)
    assert wire.took == len(GET)
    rig.server.respond(end=True)
    rig.clock.rounds()
    assert len(rig.servers) == 2
    assert wire.took == 2 * len(GET)


def test_a_client_that_goes_is_noticed_upstream() -> None:
    rig = Rig()
    wire, server = serve(rig)
    wire.send(GET)
    server.lost(None)
    assert rig.server.cancelled
    assert [(each.status, each.flag) for each in rig.ended_] == [(0, "DC")]
    assert not rig.live


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("request_", [GET, POST[:-1], GET + GET], ids=["whole", "not whole", "two"])
def test_a_client_that_closes_its_side_while_it_waits_has_gone(request_: bytes, begun: bool) -> None:
    rig = Rig()
    wire, server = serve(rig)
    wire.send(request_)
    if begun:
        rig.server.respond((b"content-length", b"9"))
        rig.server.say(b"some")
    server.ended()
    rig.clock.rounds()
    assert rig.server.cancelled
    assert [(each.status, each.flag) for each in rig.ended_] == [(200 if begun else 0, "DC")]
    assert rig.ended_[0].details == "downstream_remote_disconnect"
    assert wire.finished
    assert wire.aborted is None
    assert wire.said().endswith(b"some" if begun else b"")
    assert wire.took == wire.given
    assert not rig.live
    assert len(rig.servers) == 1
