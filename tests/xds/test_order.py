"""Whatever changes, and however slowly it is answered: what a waypoint has refers to nothing missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tests.control.scoped import forwards, pod, routes, service, snapshot
from ztunnel.control.waypoints.scope import led_to
from ztunnel.control.waypoints.scopes import LINGER_SECONDS, Scopes
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.route import Routes
from ztunnel.model.service import Service
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import UNSAID
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.resource import ADDRESS, HTTP_POLICY, ROUTES, TRAFFIC, WAYPOINT_TYPES, Resource, parse

WAYPOINT = service("waypoint")
OWN = pod("waypoint-1", WAYPOINT)
NAMES = ("web", "api", "cart")


@dataclass
class Waypoint:
    """A subscriber that takes responses in their order, and answers them when it is told to."""

    publisher: Publisher
    scopes: Scopes
    has: dict[str, dict[str, Resource]] = field(default_factory=lambda: {url: {} for url in WAYPOINT_TYPES})
    unanswered: list[DeltaDiscoveryResponse] = field(default_factory=list)

    def take(self, responses: list[DeltaDiscoveryResponse]) -> None:
        for one in responses:
            held = self.has[one.type_url]
            for resource in one.resources:
                held[resource.name] = parse(one.type_url, resource, "")
            for name in one.removed_resources:
                held.pop(name, None)
            self.unanswered.append(one)
            self.check()

    def answer(self) -> None:
        response = self.unanswered.pop(0)
        answer = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        self.take(self.publisher.receive(answer))

    def check(self) -> None:
        for one in self.has[ADDRESS].values():
            if isinstance(one, Service) and one.waypoint is not None:
                assert all(guard in self.has[HTTP_POLICY] for guard in one.guards), one
                assert str(one.key) in self.has[ROUTES], one
        for routed in self.has[ROUTES].values():
            assert isinstance(routed, Routes)
            service = self.has[ADDRESS].get(routed.key)
            if not isinstance(service, Service) or service.waypoint is None:
                continue  # nobody asks for it
            for name in led_to(routed):
                assert str(name) in self.has[ADDRESS], (routed, name)
                assert str(name) in self.has[TRAFFIC], (routed, name)


def world_of(attached: dict[str, tuple[str, ...]], guarded: bool) -> list[Resource]:
    """Services that are attached, with a policy and routes to others; what nothing leads to is not there."""
    there = {*attached, *(name for to in attached.values() for name in to)}
    found: list[Resource] = [WAYPOINT, OWN]
    for name in sorted(there):
        guards = (f"shop/{name}",) if guarded and name in attached else ()
        made = service(name, at=WAYPOINT if name in attached else None, guards=guards)
        found += [made, ServiceTraffic(made.key, (ClientTraffic("", UNSAID, ()),))]
        if guards:
            found.append(HttpPolicy(name, "shop", HttpAction.DENY))
        if name in attached:
            found.append(routes(made, forwards(made, *(service(each) for each in attached[name]))))
    return found


WORLDS = st.builds(
    world_of,
    st.dictionaries(
        st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, max_size=2).map(tuple)
    ),
    st.booleans(),
)


@given(st.lists(st.one_of(WORLDS, st.just(None)), max_size=12), st.booleans())
def test_nothing_refers_to_what_is_not_there(steps: list[list[Resource] | None], prompt: bool) -> None:
    now, last = 0.0, snapshot(*world_of({}, False))
    scopes = Scopes(last)
    waypoint = Waypoint(Publisher(last), scopes)
    waypoint.publisher.narrow(scopes.follow(OWN.uid))
    for url in WAYPOINT_TYPES:
        waypoint.take(waypoint.publisher.receive(DeltaDiscoveryRequest(type_url=url)))
    for step in steps:
        if step is None and waypoint.unanswered:
            waypoint.answer()
        elif step is not None:
            now += LINGER_SECONDS / 2
            last = snapshot(*step, before=last)
            found = scopes.advance(last, now)
            waypoint.publisher.advance(last)
            for differing in (*found.values(), *scopes.expire(now).values()):
                waypoint.publisher.narrow(scopes.scope(OWN.uid), differing)
            waypoint.take([one for one in waypoint.publisher.work() if one is not None])
        while prompt and waypoint.unanswered:
            waypoint.answer()
    while waypoint.unanswered:
        waypoint.answer()
    assert waypoint.publisher.settled
    for url in WAYPOINT_TYPES:
        wanted = {name for name in last.resources[url] if scopes.scope(OWN.uid).holds(last, url, name)}
        assert waypoint.has[url].keys() == wanted
