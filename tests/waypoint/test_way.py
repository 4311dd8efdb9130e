"""What connections of a waypoint share."""

from __future__ import annotations

from random import Random

from tests.waypoint.exchange.test_exchange import begin
from tests.waypoint.rig import Client, Rig
from ztunnel.l7.path import Spelling, merge_slashes
from ztunnel.l7.request import Request
from ztunnel.l7.trace import enter
from ztunnel.waypoint.reporting.scope import Scope
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
    assert Patience().client_idle_seconds == 3600.0
    assert Patience().head_seconds == 10.0


def test_a_path_is_judged_and_forwarded_in_the_spelling_that_is_asked_for() -> None:
    rig = Rig()
    common = Common(rig.clock, set(), lambda: b"an-id", spelling=Spelling())
    way = HttpWay(common, rig, rig)
    assert way.admit(Request(b"GET", b"a", b"//admin", [])).path == b"//admin"
    common.spelling.respell = merge_slashes  # for what comes on connections that stand, too
    assert way.admit(Request(b"GET", b"a", b"//admin", [])).path == b"/admin"
    assert rig.way.admit(Request(b"GET", b"a", b"//admin", [])).path == b"//admin"


def test_the_first_request_of_a_tunnel_that_is_traced_is_below_it() -> None:
    context = b"00-%b-%b-01" % (b"4b" * 16, b"aa" * 8)
    rig, rng = Rig(), Random(1)
    scope = Scope(enter=lambda fields, below: enter(fields, 0.0, rng, below=below))
    way = HttpWay(Common(rig.clock, set(), lambda: b"an-id"), rig, rig, b"", scope)
    way.context = context
    first, second = (way.admit(Request(b"GET", b"a", b"/", [])).trace for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first.trace_id, first.parent_id, first.sampled) == ("4b" * 16, "aa" * 8, True)
    assert (second.parent_id, second.sampled) == ("", False)
    way.context = context
    own = b"00-%b-%b-01" % (b"5c" * 16, b"bb" * 8)
    said = way.admit(Request(b"GET", b"a", b"/", [(b"traceparent", own)])).trace
    assert said is not None
    assert said.trace_id == "5c" * 16
