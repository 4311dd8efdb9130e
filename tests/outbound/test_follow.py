"""Flows that the kernel made: accounts from records, bytes from sock_diag, an end in every case."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from tests.builders import policy, service, workload
from tests.flow.driving import Bugs, Clock, drive
from tests.inbound.parts import Sockets
from tests.outbound.parts import Desk, Here, address_of, is_reset, record
from tests.turns import calls_of
from ztunnel.errors import Denied
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import cookie_of
from ztunnel.model.address import Endpoint, OriginalDestination, parse_endpoint
from ztunnel.outbound.follow import POLL_SECONDS, Follower
from ztunnel.redirect.layout import Direct
from ztunnel.redirect.records import LiveFlow, RecordEvent, RecordRole

CLIENT = workload("client").at("127.0.0.9").on("n1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
SERVER = workload("server").at("127.0.0.2").on("n1").hbone().serves(WEB)
FLOW = parse_endpoint("127.0.0.9:4000"), parse_endpoint("127.0.0.2:8080")
VIP = OriginalDestination(parse_endpoint("10.96.0.1:80").ip, 80)
OPENED, ENDED, UNANSWERED, DENIED = (
    RecordEvent.OPENED,
    RecordEvent.ENDED,
    RecordEvent.UNANSWERED,
    RecordEvent.DENIED,
)
BY_SERVER = {"role": RecordRole.SERVER, "socket": 22, "cookie": 2}
LONG_AGO = {"time_ns": 1}
NO = policy("no").deny().when(principals=["*"])


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    made = Desk(engine, sockets, CLIENT, SERVER, WEB)
    made.pod(CLIENT, 1)
    made.pod(SERVER, 2)
    return made


@pytest.fixture
def follower(desk: Desk) -> Follower:
    return Follower(desk.direct, desk.hold)


def tell(desk: Desk, follower: Follower, event: RecordEvent, **changes: object) -> None:
    """The kernel reports."""
    desk.kernel.reported.append(record(event, FLOW, **changes))
    follower.pull()


class Pair:
    """A real connection between both pods' addresses."""

    def __init__(self, sockets: Sockets) -> None:
        self.client, self.server = sockets.call(sockets.listen("127.0.0.2"), "127.0.0.9")
        self.flow = address_of(self.client), address_of(self.server)

    def opened(self, desk: Desk, follower: Follower) -> None:
        for role, sock, cookie in ((RecordRole.CLIENT, self.client, 1), (RecordRole.SERVER, self.server, 2)):
            changes = {"role": role, "socket": cookie_of(sock), "cookie": cookie}
            desk.kernel.reported.append(record(OPENED, self.flow, **changes))
        follower.pull()

    def live(self) -> LiveFlow:
        asked = OriginalDestination(self.flow[1].ip, self.flow[1].port)
        return LiveFlow(cookie_of(self.client), 1, RecordRole.CLIENT, True, *self.flow, asked, 1)


@pytest.fixture
def pair(sockets: Sockets) -> Pair:
    return Pair(sockets)


def poll(desk: Desk, follower: Follower, clock: Clock) -> None:
    """A poll, and the time that it takes."""
    follower.poll()
    clock.move(POLL_SECONDS)
    drive(desk.engine)


# --- records -----------------------------------------------------------------------------


def test_a_flow_is_accounted_at_both_ends_until_both_have_ended(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, OPENED, asked=VIP)
    tell(desk, follower, OPENED, **BY_SERVER)
    assert len(follower) == 1
    assert len(desk.live.of(CLIENT.uid)) == len(desk.live.of(SERVER.uid)) == 1
    tell(desk, follower, ENDED, sent_bytes=10)
    assert desk.lines == []
    tell(desk, follower, ENDED, sent_bytes=1000, **BY_SERVER)
    assert len(follower) == 0
    assert len(desk.lines) == 2
    assert all('dst.service="web.default' in line for line in desk.lines)
    assert desk.bytes_of("source") == desk.bytes_of("destination") == (10, 1000)
    assert desk.totals() == (2, 2)
    assert desk.live.of(CLIENT.uid) == frozenset()


def test_a_flow_is_reported_by_the_world_in_which_it_began(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, OPENED)
    desk.publish(replace(SERVER, workload_name="renamed"))
    tell(desk, follower, OPENED, socket=12)
    names = {row.labels.destination_workload: row.opened for row in desk.metrics.rows(0.0)}
    assert names.pop("renamed") == 1
    assert len(names) == 1


def test_a_record_of_a_flow_that_is_not_followed_changes_nothing(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, ENDED, sent_bytes=10)
    assert desk.lines == []
    assert desk.totals() == (0, 0)


def test_ports_that_are_used_anew_are_another_flow(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, OPENED)
    tell(desk, follower, ENDED, sent_bytes=5)
    tell(desk, follower, OPENED, socket=12)
    assert len(desk.lines) == 2
    assert len(follower) == 1
    tell(desk, follower, ENDED, sent_bytes=99, socket=11)
    tell(desk, follower, ENDED, sent_bytes=7, socket=12)
    tell(desk, follower, ENDED, **BY_SERVER)
    assert desk.bytes_of("source") == (12, 0)
    assert desk.totals() == (4, 4)


@pytest.mark.parametrize("gone", [CLIENT.uid, SERVER.uid])
def test_a_flow_of_a_workload_that_left_is_accounted_all_the_same(
    desk: Desk, follower: Follower, gone: str
) -> None:
    desk.publish(removed=[gone])
    tell(desk, follower, OPENED)
    assert desk.live.of("") == frozenset()
    tell(desk, follower, ENDED)
    tell(desk, follower, ENDED, **BY_SERVER)
    assert desk.totals() == (2, 2)


def test_a_syn_that_was_refused_is_reported_and_voids_its_verdict(desk: Desk, follower: Follower) -> None:
    desk.kernel.verdicts[1, FLOW[1]] = Direct(2, 1, 1)
    tell(desk, follower, ENDED, established=False)
    assert desk.kernel.verdicts == {}
    assert "connection failed: 127.0.0.2:8080" in desk.lines[0]
    assert not desk.direct._takes_detour(1, FLOW[1])


def test_a_syn_that_stays_unanswered_takes_the_next_call_another_way(desk: Desk, follower: Follower) -> None:
    desk.kernel.verdicts[1, FLOW[1]] = Direct(2, 1, 1)
    tell(desk, follower, UNANSWERED, established=False)
    assert desk.kernel.verdicts == {}
    assert desk.direct._takes_detour(1, FLOW[1])
    assert desk.lines == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (0, "allow policies exist, but none allowed"),
        (1, "explicitly denied by: default/no"),
        (9, "by a policy of before the restart"),
    ],
)
def test_a_refusal_of_the_kernel_names_its_policy_at_both_ends(
    desk: Desk, follower: Follower, number: int, reason: str
) -> None:
    assert desk.direct._number("default/no") == 1
    for _ in range(2):
        tell(desk, follower, DENIED, established=False, source=Endpoint(VIP.ip, 0), policy=number)
    assert len(desk.lines) == 4
    assert all(f"policy rejection: {reason}" in line for line in desk.lines)
    assert all("src.addr=127.0.0.9:0" in line for line in desk.lines)
    assert desk.totals() == (4, 4)


def test_a_refusal_of_a_pod_that_left_is_nobodys(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, DENIED, established=False, cookie=77)
    assert desk.lines == []


# --- policy ------------------------------------------------------------------------------


def test_a_flow_whose_verdict_was_voided_while_it_opened_is_judged_again(
    desk: Desk, follower: Follower
) -> None:
    desk.publish(NO)
    tell(desk, follower, OPENED)
    (flow,) = desk.live.of(CLIENT.uid)
    assert flow.condemned is None  # type: ignore[attr-defined]
    tell(desk, follower, OPENED, **BY_SERVER, **LONG_AGO)
    assert isinstance(flow.condemned, Denied)  # type: ignore[attr-defined]


@pytest.mark.root
def test_a_policy_destroys_the_flows_that_it_refuses(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    pair.opened(desk, follower)
    pair.client.sendall(b"12345")
    desk.publish(NO)
    with pytest.raises(ConnectionAbortedError):
        pair.client.recv(1)
    assert pair.server.recv(5) in (b"12345", b"")
    assert desk.live.of(CLIENT.uid) == frozenset()
    ends = ((RecordRole.CLIENT, pair.client, 5), (RecordRole.SERVER, pair.server, 0))
    for role, sock, sent in ends:
        changes = {"role": role, "socket": cookie_of(sock), "sent_bytes": sent}
        desk.kernel.reported.append(record(ENDED, pair.flow, **changes))
    follower.pull()
    assert len(desk.lines) == 2
    assert all("connection closed due to policy change" in line for line in desk.lines)
    assert desk.bytes_of("destination") == (5, 0)


@pytest.mark.root
def test_what_could_not_be_destroyed_is_tried_again(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    pair.opened(desk, follower)
    here = desk.direct.pods[CLIENT.uid].netns
    there = desk.direct.pods[SERVER.uid].netns
    here.gone = there.gone = True  # type: ignore[attr-defined]
    desk.publish(NO)
    assert len(desk.live.of(CLIENT.uid)) == 1
    here.gone = False  # type: ignore[attr-defined]
    poll(desk, follower, clock)
    assert is_reset(pair.server)
    for _ in range(2):
        poll(desk, follower, clock)
    assert len(follower) == 0
    assert all("policy change" in line for line in desk.lines)


# --- after a restart ---------------------------------------------------------------------


def test_flows_that_lived_on_are_taken_up_with_what_they_asked_for(
    desk: Desk, follower: Follower, pair: Pair
) -> None:
    live = pair.live()
    server = LiveFlow(cookie_of(pair.server), 2, RecordRole.SERVER, True, *pair.flow, live.asked, 1)
    young = LiveFlow(5, 1, RecordRole.CLIENT, False, *FLOW, VIP, 1)
    desk.kernel.flows = [live, server, young]
    desk.kernel.reported.append(record(OPENED, pair.flow, socket=live.socket, asked=VIP))
    follower.resume()
    assert len(follower) == 1
    assert {row.labels.destination_service_name for row in desk.metrics.rows(0.0)} == {"web"}


@pytest.mark.root
def test_flows_that_lived_on_are_judged_by_the_world_as_it_is_now(
    desk: Desk, follower: Follower, pair: Pair
) -> None:
    desk.kernel.flows = [pair.live()]
    desk.publish(NO)
    follower.resume()
    assert is_reset(pair.server)


def test_flows_whose_records_were_lost_are_found(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    desk.kernel.flows = [pair.live()]
    poll(desk, follower, clock)
    assert len(follower) == 0
    desk.kernel.counted = {"record_lost": 3}
    poll(desk, follower, clock)
    assert len(follower) == 1
    desk.kernel.flows = []
    poll(desk, follower, clock)
    assert len(follower) == 1


# --- bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [None, CLIENT.uid])
def test_bytes_are_read_from_either_end_while_a_flow_lives(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock, missing: str | None
) -> None:
    desk.direct.pods.pop(missing or "", None)
    pair.opened(desk, follower)
    pair.client.sendall(b"a" * 100)
    pair.server.sendall(b"b" * 2000)
    assert len(pair.server.recv(4096)) == 100
    assert len(pair.client.recv(4096)) == 2000
    poll(desk, follower, clock)
    assert desk.bytes_of("source") == desk.bytes_of("destination") == (100, 2000)
    pair.client.shutdown(socket.SHUT_WR)
    poll(desk, follower, clock)
    assert desk.bytes_of("source") == (100, 2000)
    desk.kernel.reported.append(record(ENDED, pair.flow, socket=cookie_of(pair.client), sent_bytes=100))
    poll(desk, follower, clock)
    assert desk.bytes_of("source") == (100, 2000)
    assert len(follower) == 1


def test_no_round_of_the_engine_is_longer_for_the_number_of_flows(
    desk: Desk, follower: Follower, sockets: Sockets, clock: Clock
) -> None:
    pairs = [Pair(sockets) for _ in range(200)]
    for each in pairs:
        each.opened(desk, follower)
        each.client.sendall(b"a")
    follower.poll()
    clock.move(POLL_SECONDS)
    rounds = []
    while desk.engine.has_calls or desk.engine.next_timer <= clock():
        rounds.append(calls_of(desk.engine.round))
    assert desk.bytes_of("source") == (len(pairs), 0)
    assert len(follower) == len(pairs)
    # A packet of the kernel's has some ninety of the four hundred sockets.
    assert sum(rounds) > 3 * max(rounds)


def test_the_servers_half_close_counts_no_byte(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    pair.opened(desk, follower)
    pair.server.shutdown(socket.SHUT_WR)
    poll(desk, follower, clock)
    assert desk.bytes_of("source") == (0, 0)


def test_a_flow_whose_end_was_lost_is_closed_by_the_second_poll_that_misses_it(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    pair.opened(desk, follower)
    poll(desk, follower, clock)
    pair.server.close()
    pair.client.close()
    poll(desk, follower, clock)
    assert len(follower) == 1
    poll(desk, follower, clock)
    assert len(follower) == 0
    assert len(desk.lines) == 2
    assert desk.totals() == (2, 2)


def test_a_flow_of_two_pods_that_left_is_closed_too(desk: Desk, follower: Follower, clock: Clock) -> None:
    tell(desk, follower, OPENED)
    desk.direct.pods.clear()
    for _ in range(2):
        poll(desk, follower, clock)
    assert len(follower) == 0


def test_a_namespace_that_does_not_answer_tells_nothing(
    desk: Desk, follower: Follower, pair: Pair, clock: Clock
) -> None:
    pair.opened(desk, follower)
    for network in desk.direct.pods.values():
        network.netns.gone = True  # type: ignore[attr-defined]
    for _ in range(3):
        poll(desk, follower, clock)
    assert len(follower) == 1


def test_a_pod_that_leaves_between_a_polls_steps_is_passed_over(
    desk: Desk, follower: Follower, clock: Clock
) -> None:
    tell(desk, follower, OPENED)
    follower.poll()
    desk.direct.pods.clear()
    drive(desk.engine)
    assert len(follower) == 1


def test_a_flow_that_ends_between_a_polls_steps_is_passed_over(desk: Desk, follower: Follower) -> None:
    tell(desk, follower, OPENED)
    follower.poll()
    tell(desk, follower, ENDED)
    tell(desk, follower, ENDED, **BY_SERVER)
    drive(desk.engine)
    assert desk.totals() == (2, 2)


# --- in the engine -----------------------------------------------------------------------


class Ring:
    """What the ring buffer's descriptor is to the engine: readable while there are records."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def quiet(self) -> None:
        os.eventfd_read(self.fd)


def test_records_are_read_as_they_come_and_bytes_every_fifteen_seconds(
    desk: Desk, follower: Follower, clock: Clock, bugs: Bugs
) -> None:
    ring = Ring()
    desk.kernel.records_fd = ring.fd
    follower.watch()
    desk.kernel.reported.append(record(OPENED, FLOW))
    ring.ring()
    desk.engine.round()
    assert len(follower) == 1
    ring.quiet()
    for _ in range(3):
        clock.move(POLL_SECONDS + 0.1)
        drive(desk.engine)
    assert len(follower) == 0
    desk.kernel.reported.append(object())  # type: ignore[arg-type]
    ring.ring()
    desk.engine.round()
    assert len(bugs) == 1
    drive(desk.engine)
    assert len(bugs) == 1
    bugs.clear()
    desk.kernel.reported.append(record(OPENED, FLOW, socket=13))
    clock.move(1.1)
    desk.engine.round()
    desk.engine.round()
    assert len(follower) == 1
    desk.engine.unwatch(ring.fd)
    os.close(ring.fd)


def test_here_is_where_this_process_is() -> None:
    with Here().socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        assert not made.getblocking()


def test_what_a_successor_follows_is_closed_here_without_a_line(
    desk: Desk, follower: Follower, clock: Clock
) -> None:
    desk.kernel.records_fd = os.eventfd(0, os.EFD_NONBLOCK)
    follower.watch()
    tell(desk, follower, OPENED)
    follower.hand_over()
    assert (len(follower), desk.lines, desk.totals()) == (0, [], (2, 2))
    assert desk.live.of(CLIENT.uid) == frozenset()
    desk.kernel.reported.append(record(OPENED, FLOW, socket=12))
    clock.move(2 * POLL_SECONDS)
    drive(desk.engine)
    assert len(follower) == 0
    follower.hand_over()
    follower.watch()  # it has not taken over
    assert len(follower) == 1
    follower.hand_over()
    os.close(desk.kernel.records_fd)
