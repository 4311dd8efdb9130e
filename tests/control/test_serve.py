"""Sessions get the current snapshot and every later one, and none of them can hold up the server."""

import sys
from dataclasses import replace
from ipaddress import ip_address

import pytest
import trio
import trio.testing

from tests.control.scoped import pod, service
from ztunnel.control.serve import Server
from ztunnel.control.waypoints.scopes import LINGER_SECONDS
from ztunnel.model.credential import Credential
from ztunnel.model.http_policy import HttpAction, HttpPolicy
from ztunnel.model.jwt import JwtPolicy, JwtRule
from ztunnel.model.service_traffic import ClientTraffic, ServiceTraffic
from ztunnel.model.traffic import ClientTls, PortTraffic, TlsMode, Traffic
from ztunnel.model.workload import Workload
from ztunnel.xds.pb.discovery_pb2 import DeltaDiscoveryRequest
from ztunnel.xds.resource import ADDRESS, CREDENTIAL, HTTP_POLICY, JWT_POLICY, TYPES, name_of
from ztunnel.xds.snapshot import Snapshot, take
from ztunnel.xds.subscriber import ON_DEMAND, ROLE, WAYPOINT, ask_again, describe_node


def snapshot(*names):
    return take([Workload(f"c//Pod/ns/{name}", name, "ns") for name in names], "", Snapshot())


def named(response):
    return [one.name.rpartition("/")[2] for one in response.resources], len(response.removed_resources)


def ack(response):
    return DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)


@pytest.fixture
async def server(nursery):
    made = Server(snapshot("a"))
    await nursery.start(made.run)
    return made


async def subscribed(server):
    requests, responses = server.open_session()
    await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
    return requests, responses


async def test_a_session_gets_what_there_is_and_what_comes(server):
    requests, responses = await subscribed(server)
    first = await responses.receive()
    assert named(first) == (["a"], 0)
    await requests.send(ack(first))
    await trio.testing.wait_all_tasks_blocked()
    assert server.settled
    server.publish(snapshot("b"))
    assert not server.settled
    assert named(await responses.receive()) == (["b"], 1)


async def test_a_snapshot_published_before_the_session_is_taken_up_counts(nursery):
    server = Server(snapshot("a"))
    _, responses = await subscribed(server)
    server.publish(snapshot("a", "b"))
    await nursery.start(server.run)
    assert named(await responses.receive()) == (["a", "b"], 0)


async def test_a_session_that_does_not_answer_costs_one_response(server):
    _, idle = await subscribed(server)
    requests, responses = await subscribed(server)
    await requests.send(ack(await responses.receive()))
    for n in range(50):
        server.publish(snapshot(f"x{n}"))
        await trio.testing.wait_all_tasks_blocked()
    assert idle.statistics().current_buffer_used == 1
    assert server.sessions == 2


async def test_a_session_that_answers_without_reading_is_ended(server):
    requests, _ = await subscribed(server)
    await trio.testing.wait_all_tasks_blocked()
    for nonce in range(1, 2 * len(TYPES) + 1):
        server.publish(snapshot(f"x{nonce}"))
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS, response_nonce=str(nonce)))
        await trio.testing.wait_all_tasks_blocked()
    assert server.sessions == 0
    with pytest.raises(trio.BrokenResourceError):
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))


async def test_a_request_that_cannot_be_served_ends_its_session_only(server):
    requests, responses = server.open_session()
    await requests.send(DeltaDiscoveryRequest(type_url="other"))
    with pytest.raises(trio.EndOfChannel):
        await responses.receive()
    _, others = await subscribed(server)
    assert named(await others.receive()) == (["a"], 0)


@pytest.mark.parametrize("end", [0, 1])
async def test_closing_either_end_ends_the_session(server, end):
    ends = await subscribed(server)
    answer = ack(await ends[1].receive())
    await ends[0].send(answer)
    await trio.testing.wait_all_tasks_blocked()
    assert server.sessions == 1
    await ends[end].aclose()
    server.publish(snapshot("b"))
    await trio.testing.wait_all_tasks_blocked()
    assert server.sessions == 0


async def test_what_subscribers_refuse_is_known(server):
    requests, responses = await subscribed(server)
    refusal = ack(await responses.receive())
    refusal.error_detail.message = "a: no"
    await requests.send(refusal)
    await trio.testing.wait_all_tasks_blocked()
    assert server.rejections == ("a: no",)


async def test_how_long_a_change_took_is_told_with_its_acknowledgement(server, autojump_clock):
    told = []
    server.acknowledged = told.append
    requests, responses = await subscribed(server)
    await requests.send(ack(await responses.receive()))
    known_at = trio.current_time()
    await trio.sleep(1)
    server.publish(
        replace(take(snapshot("b").origins[ADDRESS].values(), "", server.snapshot), changed_at=known_at)
    )
    answer = ack(await responses.receive())
    await trio.sleep(2)
    await requests.send(answer)
    await trio.testing.wait_all_tasks_blocked()
    assert told == [3]
    server.publish(take(snapshot("c").origins[ADDRESS].values(), "", server.snapshot))
    refusal = ack(await responses.receive())
    refusal.error_detail.message = "no"
    await requests.send(refusal)
    await trio.testing.wait_all_tasks_blocked()
    assert told == [3], "a refusal is no acknowledgement"


async def test_nothing_of_a_response_or_request_is_held_while_the_next_is_waited_for(server):
    requests, responses = server.open_session()
    request = DeltaDiscoveryRequest(type_url=ADDRESS, initial_resource_versions={"x": "1"})
    await requests.send(request)
    first = await responses.receive()
    answer = ack(first)
    await requests.send(answer)
    await trio.testing.wait_all_tasks_blocked()
    assert (sys.getrefcount(request), sys.getrefcount(first), sys.getrefcount(answer)) == (2, 2, 2)


async def test_very_many_sessions_at_once_are_refused():
    server = Server()
    for _ in range(64):
        server.open_session()
    with pytest.raises(trio.WouldBlock):
        server.open_session()


async def test_cancelling_closes_every_session():
    server = Server()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        _, responses = await subscribed(server)
        await responses.receive()
        nursery.cancel_scope.cancel()
    with pytest.raises(trio.EndOfChannel):
        await responses.receive()


async def test_how_far_each_subscriber_is(server, autojump_clock):
    await trio.sleep(1)
    requests, responses = server.open_session("somebody")
    await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
    first = await responses.receive()
    (one,) = server.subscribers
    assert (one.caller, one.sent_at.keys()) == ("somebody", {ADDRESS})
    assert (one.types[ADDRESS].sent, one.types[ADDRESS].acknowledged) == (first.nonce, "")
    await requests.send(ack(first))
    await trio.testing.wait_all_tasks_blocked()
    (one,) = server.subscribers
    assert one.types[ADDRESS].acknowledged == first.nonce
    requests.close()
    await trio.testing.wait_all_tasks_blocked()
    assert server.subscribers == []


async def test_others_have_their_turns_while_a_large_response_is_made(server):
    server.publish(snapshot(*map(str, range(10_000))))
    turns, done = 0, trio.Event()

    async def tick():
        nonlocal turns
        while not done.is_set():
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as ticking:
        requests, responses = server.open_session()
        await trio.testing.wait_all_tasks_blocked()
        ticking.start_soon(tick)
        await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
        response = await responses.receive()
        done.set()
    assert len(response.resources) == 10_000
    assert turns >= 20
    assert not server.settled
    await requests.send(ack(response))
    await trio.testing.wait_all_tasks_blocked()
    assert server.settled


async def test_what_is_published_while_a_response_is_made_comes_after_it(server):
    server.publish(snapshot(*map(str, range(3_000))))
    requests, responses = server.open_session()
    await trio.testing.wait_all_tasks_blocked()
    await requests.send(DeltaDiscoveryRequest(type_url=ADDRESS))
    for _ in range(4):
        await trio.lowlevel.checkpoint()
    server.publish(snapshot("1"))
    server.publish(snapshot("1", "new"))
    assert not server.settled
    first = await responses.receive()
    assert len(first.resources) == 3_000
    await requests.send(ack(first))
    assert named(await responses.receive()) == (["new"], 2_999)


async def test_a_wish_for_newer_keys_is_told_and_what_there_is_is_sent_again(nursery):
    policy = JwtPolicy("p", "shop", (JwtRule("i"),))
    server = Server(take([policy, Workload("c//Pod/ns/a", "a", "ns")], "", Snapshot()))
    asked = []
    server.asked = lambda names: asked.extend(names)
    await nursery.start(server.run)
    requests, responses = server.open_session()
    await requests.send(DeltaDiscoveryRequest(type_url=JWT_POLICY))
    first = await responses.receive()
    await requests.send(ack(first))
    await trio.testing.wait_all_tasks_blocked()
    assert asked == []
    await requests.send(ask_again(JWT_POLICY, ["shop/p", "shop/q"]))
    again = await responses.receive()
    assert asked == ["shop/p", "shop/q"]
    assert list(again.resources) == list(first.resources)
    await requests.send(ack(again))
    await requests.send(ask_again(ADDRESS, ["x"]))
    await responses.receive()
    assert asked == ["shop/p", "shop/q"]
    server.publish(take([JwtPolicy("n", "shop", (JwtRule("i"),))], "", server.snapshot))
    new = await responses.receive()
    assert [one.name for one in new.resources] == ["shop/n"]  # it goes on to get everything


def waypoint_request(type_url, name="w-1", **more):
    said = {ROLE: WAYPOINT, "NAME": name, "NAMESPACE": "shop", "CLUSTER_ID": "c", **more}
    return DeltaDiscoveryRequest(node=describe_node("n", said), type_url=type_url)


W = service("w")
LOOSE, WEB = service("web", guards=("shop/guard",)), service("web", at=W, guards=("shop/guard",))
GUARDED = (W, pod("w-1", W), HttpPolicy("guard", "shop", HttpAction.DENY))


async def test_a_waypoint_is_sent_what_it_serves_as_that_changes(nursery, autojump_clock):
    server = Server(take([*GUARDED, LOOSE], "", Snapshot()))
    await nursery.start(server.run)
    requests, responses = server.open_session()
    for type_url in (HTTP_POLICY, ADDRESS):
        await requests.send(waypoint_request(type_url))
        await requests.send(ack(response := await responses.receive()))
        assert (response.type_url, len(response.resources)) == (type_url, 3 if type_url == ADDRESS else 0)
    server.publish(take([*GUARDED, WEB], "", server.snapshot))
    first, second = await responses.receive(), await responses.receive()
    assert (first.type_url, named(first)) == (HTTP_POLICY, (["guard"], 0))
    assert (second.type_url, named(second)) == (ADDRESS, (["web.shop.svc"], 0))
    for one in (first, second):
        await requests.send(ack(one))
    server.publish(take([*GUARDED, LOOSE], "", server.snapshot))
    detached_at = trio.current_time()
    await requests.send(ack(response := await responses.receive()))
    assert response.type_url == ADDRESS
    gone = await responses.receive()
    assert (gone.type_url, named(gone)) == (HTTP_POLICY, ([], 1))
    assert trio.current_time() - detached_at == pytest.approx(LINGER_SECONDS)


async def test_whoever_is_no_waypoint_is_sent_all(server):
    server.publish(take(GUARDED, "", server.snapshot))
    requests, responses = server.open_session()
    await requests.send(DeltaDiscoveryRequest(type_url=HTTP_POLICY))
    assert named(await responses.receive()) == (["guard"], 0)


async def test_a_waypoint_that_leaves_is_followed_no_more(nursery):
    server = Server(take([*GUARDED, WEB], "", Snapshot()))
    await nursery.start(server.run)
    requests, responses = server.open_session()
    await requests.send(waypoint_request(HTTP_POLICY))
    assert named(await responses.receive()) == (["guard"], 0)
    assert server.scopes.scope("c//Pod/shop/w-1").services
    await requests.aclose()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(KeyError):
        server.scopes.scope("c//Pod/shop/w-1")


@pytest.mark.parametrize("ip", ["10.0.0.7", "fd00::7"])
async def test_a_waypoint_is_sent_the_addresses_of_what_it_serves_and_others_when_it_asks(nursery, ip):
    waypoint = service("w")
    web = service("web", at=waypoint)
    served = [waypoint, web, pod("w-1", waypoint), pod("web-1", web)]
    others = [pod("client", addresses=(ip_address(ip),)), service("other"), pod("other-1", service("other"))]
    server = Server(take([*served, *others], "", Snapshot()))
    await nursery.start(server.run)
    requests, responses = server.open_session()
    await requests.send(waypoint_request(ADDRESS, **{ON_DEMAND: True}))
    first = await responses.receive()
    assert {one.name for one in first.resources} == {name_of(one) for one in served}
    await requests.send(ack(first))
    await requests.send(ask_again(ADDRESS, [f"/{ip}"]))
    found = await responses.receive()
    assert named(found) == (["client"], 0)
    await requests.send(ack(found))
    server.publish(take([*served, *others, pod("web-2", web), pod("other-2")], "", server.snapshot))
    assert named(await responses.receive()) == (["web-2"], 0)


async def test_a_waypoint_that_does_not_ask_is_sent_all_addresses(nursery):
    server = Server(take([service("w"), pod("w-1", service("w")), pod("client")], "", Snapshot()))
    await nursery.start(server.run)
    requests, responses = server.open_session()
    await requests.send(waypoint_request(ADDRESS))
    first = await responses.receive()
    assert len(first.resources) == 3
    await requests.send(ack(first))
    server.publish(
        take([service("w", at=service("w")), pod("w-1", service("w")), pod("b")], "", server.snapshot)
    )
    assert len((await responses.receive()).resources) == 2


SECRET = Credential("s", "shop", "C", "K", "R")


@pytest.mark.parametrize(
    ("account", "request_of", "sent"),
    [
        ("", waypoint_request, ["s"]),  # in this process
        ("shop/default", waypoint_request, ["s"]),
        ("shop/other", waypoint_request, []),
        ("other/default", waypoint_request, []),
        ("shop/default", lambda url: waypoint_request(url, "x-1"), []),
        ("shop/default", lambda url: DeltaDiscoveryRequest(type_url=url), []),
        ("", lambda url: DeltaDiscoveryRequest(type_url=url), []),
        (
            "shop/default",
            lambda url: DeltaDiscoveryRequest(type_url=url, resource_names_subscribe=["shop/s"]),
            [],
        ),
    ],
)
async def test_secrets_are_for_a_waypoint_that_has_proved_to_be_one_alone(nursery, account, request_of, sent):
    web = service("web", at=service("w"))
    needs = Traffic(tls=ClientTls(TlsMode.MUTUAL, credential="s"))
    policies = ServiceTraffic(web.key, (ClientTraffic("", PortTraffic(needs)),))
    pods = [pod("w-1", service("w")), pod("x-1", service("x"))]
    server = Server(take([service("w"), web, *pods, policies, SECRET], "", Snapshot()))
    await nursery.start(server.run)
    requests, responses = server.open_session("who", account)
    await requests.send(request_of(CREDENTIAL))
    first = await responses.receive()
    assert named(first)[0] == sent
    await requests.send(ack(first))
    rotated = replace(SECRET, certificate="C2")
    server.publish(take([service("w"), web, *pods, policies, rotated], "", server.snapshot))
    await trio.testing.wait_all_tasks_blocked()
    if sent:
        assert named(await responses.receive()) == (["s"], 0)
    else:
        with pytest.raises(trio.WouldBlock):
            responses.receive_nowait()
