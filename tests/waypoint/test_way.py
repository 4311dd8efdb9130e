"""What connections of a waypoint share."""

from __future__ import annotations

from tests.waypoint.rig import Client, Rig
from tests.waypoint.test_exchange import begin
from ztunnel.l7.path import merge_slashes
from ztunnel.l7.request import Request
from ztunnel.waypoint.way import Common, HttpWay, Patience


def test_it_leads_to_servers_and_hears_of_the_end() -> None:
    rig = Rig()
    assert rig.way.now == rig.clock.now
    assert rig.way.new_id() == b"an-id"
    assert rig.way.live is rig.live
    exchange, client = begin(rig)
    assert isinstance(client, Client)
    exchange.gone()
    assert rig.ended_ == [exchange]


def test_patience_is_envoys_where_envoy_has_some() -> None:
    assert Patience().idle_seconds == 300.0
    assert Patience().head_seconds == 10.0


def test_a_path_is_judged_and_forwarded_in_the_spelling_that_is_asked_for() -> None:
    rig = Rig()
    common = Common(rig.clock, set(), lambda: b"an-id", respell=merge_slashes)
    way = HttpWay(common, rig, rig)
    assert way.admit(Request(b"GET", b"a", b"//admin", [])).path == b"/admin"
    assert rig.way.admit(Request(b"GET", b"a", b"//admin", [])).path == b"//admin"
