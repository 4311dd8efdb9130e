"""What a publisher sends, and when: one unanswered response a type, nothing twice, all in its order."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import Destination, Forward
from ztunnel.model.service import Service
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import UNSAID
from ztunnel.model.workload import Workload
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest, Node, Status
from ztunnel.xds.publisher import Publisher, TypeStatus
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_POLICY, ROUTES, TRAFFIC, TYPES
from ztunnel.xds.snapshot import Snapshot, take


def pod(name, *policies, healthy=True):
    return Workload(f"c//Pod/ns/{name}", name, "ns", authorization_policies=policies, healthy=healthy)


def policy(name):
    return Policy(name, "ns", PolicyScope.WORKLOAD_SELECTOR, Action.DENY)


def snapshot(*resources):
    return take(resources, "", Snapshot())


def ask(type_url, **fields):
    return DeltaDiscoveryRequest(type_url=type_url, **fields)


def ack(response):
    return DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)


def named(responses):
    return [
        (
            [one.name.rpartition("/")[2] for one in it.resources],
            [n.rpartition("/")[2] for n in it.removed_resources],
        )
        for it in responses
    ]


def started(*resources):
    """A publisher whose subscriber has everything and has said so."""
    publisher = Publisher(snapshot(*resources))
    for type_url in TYPES:
        for response in publisher.receive(ask(type_url)):
            publisher.receive(ack(response))
    assert publisher.settled
    return publisher


def test_the_first_request_is_answered_with_everything():
    publisher = Publisher(snapshot(pod("a"), pod("b")))
    assert named(publisher.receive(ask(ADDRESS, node=Node(id="n")))) == [(["a", "b"], [])]
    assert publisher.node.id == "n"


def test_the_first_request_is_answered_even_when_there_is_nothing():
    assert named(Publisher(Snapshot()).receive(ask(ADDRESS))) == [([], [])]


def test_an_answer_to_nothing_new_is_not_answered():
    publisher = Publisher(snapshot(pod("a")))
    (response,) = publisher.receive(ask(ADDRESS))
    assert publisher.receive(ack(response)) == []
    assert publisher.settled


def test_only_what_differs_is_sent():
    publisher = started(pod("a"), pod("b"), pod("c"))
    responses = publisher.publish(snapshot(pod("a"), pod("b", healthy=False), pod("d")))
    assert named(responses) == [(["b", "d"], ["c"])]


def test_an_equal_snapshot_is_not_sent():
    assert started(pod("a")).publish(snapshot(pod("a"))) == []


def test_snapshots_wait_for_the_answer_and_replace_each_other():
    publisher = started(pod("a"))
    (first,) = publisher.publish(snapshot(pod("a"), pod("b")))
    assert publisher.publish(snapshot(pod("a"), pod("b"), pod("c"))) == []
    assert publisher.publish(snapshot(pod("b"), pod("d"))) == []
    assert not publisher.settled
    assert named(publisher.receive(ack(first))) == [(["d"], ["a"])]


def test_an_answer_to_an_older_response_counts_for_nothing():
    publisher = started(pod("a"))
    publisher.publish(snapshot(pod("b")))
    assert publisher.receive(ask(ADDRESS, response_nonce="1")) == []
    assert not publisher.settled


def test_a_refused_resource_is_not_sent_again_until_it_changes():
    publisher = started(pod("a"))
    (response,) = publisher.publish(snapshot(pod("a", healthy=False)))
    refusal = ask(ADDRESS, response_nonce=response.nonce, error_detail=Status(message="a: no"))
    assert publisher.receive(refusal) == []
    assert publisher.rejections == {ADDRESS: "a: no"}
    assert named(publisher.publish(snapshot(pod("a", "ns/p")))) == [(["a"], [])]


def test_a_subscriber_that_comes_back_gets_what_differs_and_learns_what_is_gone():
    before = snapshot(pod("a"), pod("b"), pod("c"))
    versions = {name: one.version for name, one in before.resources[ADDRESS].items()}
    publisher = Publisher(snapshot(pod("a"), pod("b", healthy=False), pod("d")))
    responses = publisher.receive(ask(ADDRESS, initial_resource_versions=versions))
    assert named(responses) == [(["b", "d"], ["c"])]


def test_policies_go_before_the_workloads_that_refer_to_them():
    publisher = started(pod("a"))
    responses = publisher.publish(snapshot(pod("a", "ns/p"), policy("p")))
    assert [one.type_url for one in responses] == [AUTHORIZATION, ADDRESS]


def test_workloads_wait_while_a_policy_cannot_be_sent():
    publisher = started(pod("a"))
    (first,) = publisher.publish(snapshot(pod("a"), policy("p")))
    assert publisher.publish(snapshot(pod("a", "ns/q"), policy("p"), policy("q"))) == []
    responses = publisher.receive(ack(first))
    assert [one.type_url for one in responses] == [AUTHORIZATION, ADDRESS]


def test_a_policy_is_removed_only_after_the_workloads_have_let_go_of_it():
    publisher = started(pod("a", "ns/p"), policy("p"))
    responses = publisher.publish(snapshot(pod("a")))
    assert named(responses) == [(["a"], [])]
    assert named(publisher.receive(ack(responses[0]))) == [([], ["p"])]


def web(*guards):
    return Service("web", "ns", "web.ns.svc", guards=guards)


def http_policy(name):
    return HttpPolicy(name, "ns", HttpAction.DENY)


def test_policies_of_waypoints_come_before_the_services_that_name_them_and_go_after():
    publisher = started(web())
    responses = publisher.publish(snapshot(web("ns/p"), http_policy("p")))
    assert [one.type_url for one in responses] == [HTTP_POLICY, ADDRESS]
    for response in responses:
        publisher.receive(ack(response))
    (response,) = publisher.publish(snapshot(web()))
    assert named([response]) == [(["web.ns.svc"], [])]
    assert named(publisher.receive(ack(response))) == [([], ["p"])]


def test_addresses_wait_for_the_slowest_of_what_they_refer_to():
    publisher = started(web(), pod("a"))
    (first,) = publisher.publish(snapshot(web(), pod("a"), http_policy("p")))
    both = snapshot(web("ns/q"), pod("a", "ns/r"), http_policy("p"), http_policy("q"), policy("r"))
    (second,) = publisher.publish(both)
    assert (second.type_url, publisher.receive(ack(second))) == (AUTHORIZATION, [])
    assert [one.type_url for one in publisher.receive(ack(first))] == [HTTP_POLICY, ADDRESS]


def test_names_asked_for_are_answered_also_when_nothing_bears_them():
    publisher = Publisher(snapshot(pod("a"), pod("b")))
    subscription = ["c//Pod/ns/a", "c//Pod/ns/x"]
    (response,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=subscription))
    assert named([response]) == [(["a"], ["x"])]
    publisher.receive(ack(response))
    (response,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=["c//Pod/ns/a"]))
    assert named([response]) == [(["a"], [])]
    publisher.receive(ack(response))
    assert named(publisher.receive(ask(ADDRESS, resource_names_subscribe=["c//Pod/ns/y"]))) == [([], ["y"])]


def test_on_demand_begins_with_nothing():
    publisher = Publisher(snapshot(pod("a")))
    (response,) = publisher.receive(
        ask(ADDRESS, resource_names_subscribe=["*"], resource_names_unsubscribe=["*"])
    )
    assert named([response]) == [([], [])]
    publisher.receive(ack(response))
    assert publisher.publish(snapshot(pod("b"))) == []
    publisher.receive(ask(ADDRESS, resource_names_subscribe=["c//Pod/ns/b"]))
    assert publisher.receive(ask(ADDRESS, resource_names_unsubscribe=["c//Pod/ns/b"])) == []


IPS = pytest.mark.parametrize("ip", ["10.0.0.1", "fd00::1"])


def at(name, ip, **more):
    return replace(pod(name), addresses=(ip_address(ip),), network="net", **more)


@IPS
def test_whoever_is_at_an_address_is_sent_for_as_long_as_it_is_asked_for(ip):
    name = f"net/{ip}"
    publisher = Publisher(snapshot(at("a", ip), pod("b")))
    publisher.narrow(Only())
    (first,) = publisher.receive(ask(ADDRESS))
    publisher.receive(ack(first))
    (found,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=[name]))
    assert named([first, found]) == [([], []), (["a"], [])]
    assert list(found.resources[0].aliases) == [name]
    publisher.receive(ack(found))
    (moved,) = publisher.publish(take([at("c", ip), at("a", "10.9.9.9")], "", publisher._snapshot))
    assert named([moved]) == [(["c"], ["a"])]
    publisher.receive(ack(moved))
    (gone,) = publisher.receive(ask(ADDRESS, resource_names_unsubscribe=[name]))
    assert named([gone]) == [([], ["c"])]
    publisher.receive(ack(gone))
    assert publisher.publish(take([at("d", ip)], "", publisher._snapshot)) == []


@IPS
def test_that_nobody_is_at_an_address_is_an_answer_and_whoever_comes_is_sent(ip):
    publisher = started()
    (response,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=[f"net/{ip}"]))
    assert (list(response.resources), list(response.removed_resources)) == ([], [f"net/{ip}"])
    publisher.receive(ack(response))
    publisher.narrow(Only(), {})
    (response,) = publisher.publish(take([at("a", ip), pod("b")], "", publisher._snapshot))
    assert named([response]) == [(["a"], [])]


def test_what_is_in_scope_stays_when_it_is_asked_for_no_more():
    publisher = started(at("a", "10.0.0.1"))
    (again,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=["net/10.0.0.1"]))
    assert named([again]) == [(["a"], [])]
    publisher.receive(ack(again))
    assert publisher.receive(ask(ADDRESS, resource_names_unsubscribe=["net/10.0.0.1"])) == []
    assert publisher.settled


def test_a_name_of_a_type_that_is_no_address_is_sent_only_in_scope():
    publisher = Publisher(snapshot(http_policy("p"), http_policy("q")))
    publisher.narrow(Only("ns/p"))
    (response,) = publisher.receive(ask(HTTP_POLICY, resource_names_subscribe=["*", "ns/q"]))
    assert named([response]) == [(["p"], [])]


def test_a_stream_that_begins_with_names_is_sent_what_is_new_of_them_and_told_what_is_gone():
    before = snapshot(at("a", "10.0.0.1"), at("b", "10.0.0.2"), at("c", "10.0.0.3"))
    versions = {name: one.version for name, one in before.resources[ADDRESS].items()}
    publisher = Publisher(
        snapshot(at("a", "10.0.0.1"), at("b", "10.0.0.2", healthy=False), at("d", "10.0.0.4"))
    )
    publisher.narrow(Only())
    names = ["*", *(f"net/10.0.0.{number}" for number in (1, 2, 3, 4))]
    request = ask(ADDRESS, resource_names_subscribe=names, initial_resource_versions=versions)
    (response,) = publisher.receive(request)
    assert [one.name.rpartition("/")[2] for one in response.resources] == ["b", "d"]
    assert {*response.removed_resources} == {"c//Pod/ns/c", "net/10.0.0.3"}


def test_asking_for_one_costs_one_look_whatever_else_there_is():
    large, counted = many(5_000)
    publisher = Publisher(large)
    (response,) = publisher.receive(ask(ADDRESS))
    publisher.receive(ack(response))
    counted.turn()
    counted.most = 0
    publisher.receive(ask(ADDRESS, resource_names_subscribe=["net/10.0.0.1"]))
    counted.turn()
    assert counted.most == 1


def test_routes_still_go_before_a_service_that_comes_while_an_address_is_asked_for():
    publisher = started(web(), pod("a"))
    (response,) = publisher.receive(ask(ADDRESS, resource_names_subscribe=["net/10.0.0.1"]))
    api = Service("api", "ns", "api.ns.svc")
    new = take([web(), pod("a"), api, routes_of(api, web())], "", publisher._snapshot)
    assert [one.type_url for one in publisher.publish(new)] == [ROUTES]
    assert [one.type_url for one in publisher.receive(ack(response))] == [ADDRESS]


def test_a_type_that_is_not_served_ends_the_stream():
    with pytest.raises(PeerError, match="no resources of the type"):
        Publisher(Snapshot()).receive(ask("type.googleapis.com/envoy.config.cluster.v3.Cluster"))


class Counted(dict):
    """Resources that count how often one is looked up since `turn`."""

    def __init__(self, ones):
        super().__init__(ones)
        self.looked, self.most = 0, 0

    def get(self, name, default=None):
        self.looked += 1
        return super().get(name, default)

    def turn(self):
        self.most, self.looked = max(self.most, self.looked), 0


def many(count):
    before = snapshot(*(pod(f"{number}") for number in range(count)))
    counted = Counted(before.resources[ADDRESS])
    return replace(before, resources={**before.resources, ADDRESS: counted}), counted


def turns_of(steps, counted):
    """How many turns others had, and what was sent."""
    turns, sent = 0, []
    for one in steps:
        counted.turn()
        if one is None:
            turns += 1
        else:
            sent.append(one)
    counted.turn()
    return turns, sent


def test_a_large_response_is_made_in_turns_that_each_look_at_a_thousand():
    large, counted = many(20_000)
    publisher = Publisher(large)
    assert list(publisher.take(ask(ADDRESS))) == []
    turns, (response,) = turns_of(publisher.work(), counted)
    assert len(response.resources) == 20_000
    assert turns >= 40  # to compare, and to put in
    assert counted.most <= 1001
    publisher.receive(ack(response))
    assert publisher.settled


def test_whoever_comes_back_with_many_versions_is_read_in_turns():
    large, counted = many(20_000)
    versions = {name: one.version for name, one in large.resources[ADDRESS].items()}
    publisher = Publisher(large)
    turns, _ = turns_of(publisher.take(ask(ADDRESS, initial_resource_versions=versions)), counted)
    assert turns >= 20
    turns, (response,) = turns_of(publisher.work(), counted)
    assert (len(response.resources), counted.most <= 1001, turns >= 20) == (0, True, True)


def test_what_is_gone_is_found_in_turns_too():
    large, counted = many(20_000)
    versions = {f"c//Pod/ns/gone-{number}": "1" for number in range(20_000)}
    publisher = Publisher(large)
    list(publisher.take(ask(ADDRESS, initial_resource_versions=versions)))
    turns, (response,) = turns_of(publisher.work(), counted)
    assert (len(response.resources), len(response.removed_resources)) == (20_000, 20_000)
    assert turns >= 60
    assert counted.most <= 1001


def test_one_change_costs_one_look_whatever_else_there_is():
    large, counted = many(5_000)
    publisher = Publisher(large)
    (response,) = publisher.receive(ask(ADDRESS))
    publisher.receive(ack(response))
    counted.turn()
    counted.most = 0
    changed = replace(
        large, changed={**large.changed, ADDRESS: frozenset(["c//Pod/ns/7"])}, serial=large.serial + 1
    )
    publisher.advance(changed)
    turns_of(publisher.work(), counted)
    assert counted.most == 1


def test_how_far_the_subscriber_is():
    publisher = Publisher(snapshot(pod("a")))
    assert publisher.status == {}
    (first,) = publisher.receive(ask(ADDRESS))
    assert publisher.status[ADDRESS] == TypeStatus(first.nonce, "", "", True)
    publisher.receive(ack(first))
    assert publisher.status[ADDRESS] == TypeStatus(first.nonce, first.nonce, "", True)
    (second,) = publisher.publish(snapshot(pod("b")))
    refusal = ack(second)
    refusal.error_detail.message = "b: no"
    publisher.receive(refusal)
    assert publisher.status[ADDRESS] == TypeStatus(second.nonce, first.nonce, "b: no", True)


class Only:
    """A scope of some names."""

    def __init__(self, *names):
        self.names = names

    def holds(self, _snapshot, _type_url, name):
        return name in self.names


def routes_of(service, *to):
    destinations = tuple(Destination(one.key) for one in to)
    source = RouteSource("HTTPRoute", "ns", "r")
    return Routes(service.key, (Rule("", source, Forward(destinations)),))


def test_what_is_out_of_scope_is_not_sent_and_what_leaves_it_is_removed():
    publisher = Publisher(snapshot(http_policy("p"), http_policy("q")))
    publisher.narrow(Only("ns/p"))
    (first,) = publisher.receive(ask(HTTP_POLICY))
    assert named([first]) == [(["p"], [])]
    publisher.receive(ack(first))
    publisher.narrow(Only("ns/q"), {HTTP_POLICY: {"ns/p", "ns/q"}})
    assert named([one for one in publisher.work() if one]) == [(["q"], ["p"])]


def test_whoever_comes_back_with_what_is_out_of_scope_by_now_learns_it():
    before = snapshot(http_policy("p"), http_policy("q"))
    versions = {name: one.version for name, one in before.resources[HTTP_POLICY].items()}
    publisher = Publisher(before)
    publisher.narrow(Only("ns/p"))
    assert named(publisher.receive(ask(HTTP_POLICY, initial_resource_versions=versions))) == [([], ["q"])]


CART = Service("cart", "ns", "cart.ns.svc")


def test_routes_go_before_their_own_service_and_after_those_that_they_name():
    api = Service("api", "ns", "api.ns.svc")
    publisher = started(web(), pod("a"))
    new = snapshot(web(), pod("a"), api, CART, routes_of(web(), CART), routes_of(api, CART))
    first, second = publisher.publish(new)
    assert (first.type_url, named([first])) == (ROUTES, [(["api.ns.svc"], [])])
    assert (second.type_url, named([second])) == (ADDRESS, [(["api.ns.svc", "cart.ns.svc"], [])])
    (third,) = publisher.receive(ack(first))
    assert (third.type_url, named([third])) == (ROUTES, [(["web.ns.svc"], [])])
    assert publisher.receive(ack(second)) == publisher.receive(ack(third)) == []
    assert publisher.settled


def test_routes_wait_while_the_services_that_they_name_cannot_be_sent():
    publisher = started(web())
    (first,) = publisher.publish(snapshot(web(), pod("a")))
    assert publisher.publish(snapshot(web(), pod("a"), CART, routes_of(web(), CART))) == []
    assert [one.type_url for one in publisher.receive(ack(first))] == [ADDRESS, ROUTES]


def test_what_a_route_named_goes_after_it():
    traffic = ServiceTraffic(CART.key, (ClientTraffic("", UNSAID, ()),))
    publisher = started(web(), CART, traffic, routes_of(web(), CART))
    first, second = publisher.publish(snapshot(web(), routes_of(web(), web())))
    assert (first.type_url, second.type_url) == (ROUTES, ADDRESS)
    assert publisher.receive(ack(first)) == []
    (third,) = publisher.receive(ack(second))
    assert (third.type_url, named([third])) == (TRAFFIC, [([], ["cart.ns.svc"])])
