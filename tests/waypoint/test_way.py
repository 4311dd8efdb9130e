"""What connections of a waypoint share."""

from __future__ import annotations

from tests.waypoint.rig import Rig
from tests.waypoint.test_exchange import Client, begin
from ztunnel.waypoint.way import Patience


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
