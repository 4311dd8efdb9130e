"""Picks of endpoints for tries."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.builders import world_of
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WEB
from tests.waypoint.rig import Clock, Rig
from ztunnel.l7.request import Request
from ztunnel.model.address import Endpoint
from ztunnel.model.service import Port
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import (
    Balance,
    Balancing,
    ConsistentHash,
    HashCookie,
    Outlier,
    PortTraffic,
    Traffic,
)
from ztunnel.state.delta import apply
from ztunnel.waypoint.exchange.attempts import Attempts
from ztunnel.waypoint.upstream.asking import Asking
from ztunnel.waypoint.upstream.clusters import Clusters
from ztunnel.waypoint.upstream.pick import Caller, Pick

VIP = Endpoint(SERVICE.addresses[0], 80)
SOURCE = CALLER.addresses[0]


class Picks:
    def __init__(self, balancing=None, *more) -> None:
        traffic = PortTraffic(Traffic(balancing, outlier=Outlier(1, most_percent=100)))
        made = ServiceTraffic(WEB, (ClientTraffic("", traffic),))
        self.world = apply(world_of(ME, *SERVERS, SERVICE), [made, *more])[0]
        self.clusters = Clusters(Random(1), lambda: 100.0)

    def pick(self, request=None, source=SOURCE, tried=None, asked=VIP):
        made = Pick(self.clusters, self.world, Caller(source, request), tried)
        return made, made.choose(self.world.served[WEB], asked, ME)

    def chosen(self, times=1, **more):
        return {self.pick(**more)[1].endpoint for _ in range(times)}


def request(user):
    return Request(b"GET", b"a", b"/", [(b"x-user", user)])


def test_all_endpoints_are_chosen_and_the_try_knows_which():
    picks = Picks()
    found = set()
    for _ in range(50):
        made, choice = picks.pick()
        assert made.host.endpoint == choice.endpoint
        assert choice.workload in SERVERS
        one = made.asking(Clock())
        assert made.host.active == 1
        one.end()
        found.add(choice.endpoint)
    assert len(found) == 2


def test_requests_are_hashed_by_what_is_said_and_connections_by_their_caller_or_not():
    by_header = Picks(Balancing(None, ConsistentHash(header="x-user")))
    for user in (b"a", b"b", b"c"):
        assert len(by_header.chosen(20, request=request(user))) == 1
    assert len(set().union(*(by_header.chosen(request=request(b"%d" % n)) for n in range(50)))) == 2
    assert len(by_header.chosen(50)) == 2
    by_source = Picks(Balancing(None, ConsistentHash(source_ip=True)))
    assert len(by_source.chosen(20)) == 1
    assert by_source.chosen() == by_source.chosen(request=request(b"x"))
    assert len(set().union(*(by_source.chosen(source=SOURCE + n) for n in range(50)))) == 2


def test_a_cookie_that_is_made_goes_with_the_try():
    picks = Picks(Balancing(None, ConsistentHash(cookie=HashCookie("s", ttl_seconds=0))))
    made, choice = picks.pick(request(b"x"))
    cookie = made.asking(Clock()).cookie
    again = Request(b"GET", b"a", b"/", [(b"cookie", cookie.partition(b";")[0])])
    assert picks.chosen(20, request=again) == {choice.endpoint}
    assert picks.pick(again)[0].asking(Clock()).cookie == b""


def test_with_passthrough_the_endpoint_that_was_called_by_its_own_address():
    picks = Picks(Balancing(Balance.PASSTHROUGH))
    assert len(picks.chosen(50)) == 2
    own = Endpoint(SERVERS[1].addresses[0], 8080)
    ported = replace(SERVERS[1], services={WEB: (Port(8080, 8080),)})
    picks.world = apply(picks.world, [ported])[0]
    assert picks.chosen(20, asked=own) == {own}


def test_without_endpoints_nobody_is_asked():
    picks = Picks()
    for host in picks.pick()[0].cluster.hosts.values():
        picks.pick()[0].cluster.responded(host, 500, 100.0)
    made, choice = picks.pick()
    assert choice is None
    assert made.asking(Clock()) is None
    assert Pick(picks.clusters, picks.world, Caller(SOURCE)).asking(Clock()) is None


COOKIE = b's="0011223344556677"; HttpOnly'
STICKS = [
    (((b":status", b"200"),), True),
    (((b":status", b"200"), (b"set-cookie", b"other=1")), True),
    (((b":status", b"200"), (b"set-cookie", b"s=the servers own")), False),
]


@pytest.mark.parametrize(("fields", "sticks"), STICKS)
def test_a_cookie_of_the_servers_own_is_not_written_over(fields, sticks):
    made = Attempts(Rig().way)
    assert made.stick(fields) == fields
    picks = Picks()
    picked, _ = picks.pick()
    made.ask(Asking(picked.cluster, picked.host, Clock(), COOKIE))
    assert made.stick(fields) == ((*fields, (b"set-cookie", COOKIE)) if sticks else fields)
    made.end()
    assert picked.host.active == 0
