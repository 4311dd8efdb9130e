"""What a subscriber asks, takes over and answers; and that it ends with what the publisher has."""

from base64 import b64decode
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.policy import Action, Policy, PolicyScope
from ztunnel.model.service import Service, ServiceName, Waypoint
from ztunnel.model.workload import TunnelProtocol, Workload
from ztunnel.xds.on_demand import OnDemand
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryResponse, Resource
from ztunnel.xds.publisher import Publisher
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_TYPES, NODE_TYPES, TYPES, name_of, render
from ztunnel.xds.snapshot import Snapshot, take
from ztunnel.xds.subscriber import Subscriber, describe_node

NODE = describe_node("ztunnel~1.1.1.1~z.istio-system~istio-system.svc.cluster.local", {"NODE_NAME": "n1"})


def pod(name, healthy=True):
    return Workload(f"c//Pod/ns/{name}", name, "ns", healthy=healthy)


def broken(name):
    it = Resource(name=name, version="v")
    it.resource.type_url = ADDRESS
    return it


def response(*resources, removed=(), type_url=ADDRESS, nonce="7"):
    return DeltaDiscoveryResponse(
        type_url=type_url, nonce=nonce, resources=resources, removed_resources=removed
    )


def test_a_first_stream_asks_for_everything_policies_first():
    requests = Subscriber(NODE, "").connect()
    assert [one.type_url for one in requests] == [AUTHORIZATION, ADDRESS]
    assert all(one.node.metadata["NODE_NAME"] == "n1" for one in requests)
    assert not any(one.resource_names_subscribe or one.initial_resource_versions for one in requests)


def test_who_is_asked_for_on_demand_is_asked_for_beside_everything_on_each_stream():
    on_demand = OnDemand("n")
    subscriber = Subscriber(NODE, "n", TYPES, on_demand)
    assert not any(one.resource_names_subscribe for one in subscriber.connect())
    ip = ip_address("fd00::1")
    assert not on_demand.awaits(ip, 0.0)  # it is not known yet whose the other end is
    subscriber.receive(response(type_url=HTTP_TYPES[0]))
    assert on_demand.awaits(ip, 0.0)
    again = {one.type_url: list(one.resource_names_subscribe) for one in subscriber.connect()}
    assert again == {url: ["*", "n/fd00::1"] if url == ADDRESS else [] for url in TYPES}
    subscriber.receive(response(type_url=HTTP_TYPES[0]))
    assert on_demand.awaits(ip, 0.1)
    update = subscriber.receive(response(removed=["n/fd00::1"]))
    assert (update.removals, on_demand.awaits(ip, 0.2)) == ((), False)


def test_a_response_is_taken_over_and_answered_with_its_nonce():
    subscriber = Subscriber(NODE, "")
    update = subscriber.receive(response(render(pod("a"), "")))
    assert update.upserts == (pod("a"),)
    assert update.answer.response_nonce == "7"
    assert not update.answer.HasField("error_detail")
    assert not update.answer.HasField("node")


def test_a_bad_resource_is_refused_and_the_good_ones_count():
    subscriber = Subscriber(NODE, "")
    update = subscriber.receive(response(render(pod("a"), ""), broken("bad"), broken("worse")))
    assert update.upserts == (pod("a"),)
    reason = "is neither a workload nor a service"
    assert update.answer.error_detail.message == f"bad: {reason}; worse: {reason}"
    assert update.answer.error_detail.code == 0
    assert subscriber.rejected == update.rejected
    assert subscriber.accepted(ADDRESS).keys() == {pod("a").uid}


def test_of_very_many_bad_resources_the_answer_names_some():
    update = Subscriber(NODE, "").receive(response(*(broken(str(n)) for n in range(5000))))
    assert update.answer.error_detail.message.endswith("; and 4980 more")


def test_what_is_refused_leaves_the_version_before_in_force():
    subscriber = Subscriber(NODE, "")
    subscriber.receive(response(render(pod("a"), "")))
    subscriber.receive(response(broken(pod("a").uid)))
    assert subscriber.connect()[1].initial_resource_versions == {pod("a").uid: render(pod("a"), "").version}
    subscriber.receive(response(render(pod("a", healthy=False), "")))
    assert subscriber.rejected == ()


def test_removals_of_what_is_not_there_change_nothing():
    subscriber = Subscriber(NODE, "")
    subscriber.receive(response(render(pod("a"), ""), broken("bad")))
    update = subscriber.receive(response(removed=["x", "bad", pod("a").uid, pod("a").uid]))
    assert update.removals == (pod("a").uid,)
    assert subscriber.rejected == ()


def test_what_is_both_sent_and_removed_is_there():
    update = Subscriber(NODE, "").receive(response(render(pod("a"), ""), removed=[pod("a").uid]))
    assert (len(update.upserts), update.removals) == (1, ())


def test_it_is_complete_when_each_type_has_come_once():
    subscriber = Subscriber(NODE, "")
    subscriber.receive(response())
    assert not subscriber.complete
    subscriber.receive(response(type_url=AUTHORIZATION))
    assert subscriber.complete


def test_istiod_never_answers_for_types_of_ours_and_its_world_is_complete_all_the_same():
    subscriber = Subscriber(NODE, "", TYPES)
    assert [one.type_url for one in subscriber.connect()] == [*HTTP_TYPES, AUTHORIZATION, ADDRESS]
    subscriber.receive(response())
    subscriber.receive(response(type_url=AUTHORIZATION))
    assert subscriber.complete
    assert subscriber.unanswered == HTTP_TYPES
    for url in HTTP_TYPES:
        subscriber.receive(response(type_url=url))
    assert subscriber.unanswered == ()


def test_a_type_that_was_not_asked_for_ends_the_stream():
    with pytest.raises(PeerError, match="not asked for"):
        Subscriber(NODE, "").receive(response(type_url="type.googleapis.com/other"))


names = st.sampled_from("abcdef")
pods = st.dictionaries(names, st.booleans(), max_size=6).map(
    lambda it: [pod(name, healthy) for name, healthy in it.items()]
)
policies = st.dictionaries(names, st.sampled_from(Action), max_size=6).map(
    lambda it: [Policy(name, "ns", PolicyScope.NAMESPACE, action) for name, action in it.items()]
)
http_policies = st.dictionaries(names, st.sampled_from(HttpAction), max_size=6).map(
    lambda it: [HttpPolicy(name, "ns", action) for name, action in it.items()]
)
contents = st.tuples(pods, policies, http_policies).map(lambda it: [*it[0], *it[1], *it[2]])
# Each step: a snapshot, how many messages are carried before the next, whether the stream breaks after it.
steps = st.lists(st.tuples(contents, st.integers(0, 4), st.booleans()), max_size=8)


class Wire:
    """A publisher and a subscriber, and the messages between them."""

    def __init__(self, snapshot, subscriber):
        self.subscriber = subscriber
        self.state = {}
        self.restart(snapshot)

    def restart(self, snapshot):
        self.publisher = Publisher(snapshot)
        self.requests = self.subscriber.connect()
        self.responses = []

    def carry(self, messages):
        while messages and (self.requests or self.responses):
            messages -= 1
            if self.requests:
                self.responses += self.publisher.receive(self.requests.pop(0))
                continue
            update = self.subscriber.receive(self.responses.pop(0))
            for name in update.removals:
                del self.state[update.type_url, name]
            self.state |= {(update.type_url, name_of(one)): one for one in update.upserts}
            self.requests.append(update.answer)


@settings(deadline=None)
@given(steps, st.sampled_from([NODE_TYPES, TYPES]))
def test_any_sequence_of_snapshots_leaves_the_subscriber_with_the_last(sequence, types):
    """Of the types that it asks for: a node proxy is sent nothing that is for waypoints."""
    snapshot = Snapshot()
    wire = Wire(snapshot, Subscriber(NODE, "", types))
    for resources, messages, breaks in sequence:
        snapshot = take(resources, "", snapshot)
        wire.responses += wire.publisher.publish(snapshot)
        assert len(wire.responses) <= len(TYPES)
        wire.carry(messages)
        if breaks:
            wire.restart(snapshot)
    wire.carry(1000)
    expected = {(url, name): one for url in types for name, one in snapshot.origins[url].items()}
    assert wire.state == expected
    assert wire.publisher.settled
    for url in types:
        assert wire.subscriber.accepted(url) == {
            name: one.version for name, one in snapshot.resources[url].items()
        }


def test_what_a_real_istiod_sends_is_taken_whole():
    """Pods with STRICT, a policy and a service behind a waypoint, and a ServiceEntry, as they came."""
    _, *parts = Path(__file__).with_name("istiod-1.31.txt").read_text().split("\n\n")
    subscriber, found = Subscriber(NODE, ""), {}
    for part in parts:
        update = subscriber.receive(DeltaDiscoveryResponse.FromString(b64decode("".join(part.split()))))
        assert update.rejected == ()
        assert not update.answer.HasField("error_detail")
        found |= {name_of(one): one for one in update.upserts}
    assert subscriber.complete
    strict, policy = "istio-system/istio_converted_static_strict", found["shop4/only-c"]
    assert found[strict].action is Action.DENY
    assert (policy.action, policy.scope) == (Action.ALLOW, PolicyScope.WORKLOAD_SELECTOR)
    pod = found["Kubernetes//Pod/shop4/a"]
    assert isinstance(pod, Workload)
    assert (pod.node, pod.protocol, pod.service_account) == ("kn1", TunnelProtocol.HBONE, "a")
    assert [str(ip) for ip in pod.addresses] == ["10.244.1.37", "fd00:244:1::25"]
    assert pod.authorization_policies == ("shop4/only-c", strict)
    assert found["Kubernetes//Pod/kube-system/coredns-6c475ddd67-wcc59"].protocol is TunnelProtocol.NONE
    web = found["shop4/b.shop4.svc.cluster.local"]
    assert isinstance(web, Service)
    assert web.waypoint == Waypoint(ServiceName("shop4", "wp.shop4.svc.cluster.local"), None, 15008)
    assert web.canonical
    assert not web.private
    assert [str(ip) for ip in found["shop4/ext.example"].addresses] == ["192.0.2.7"], "ranges are left out"
