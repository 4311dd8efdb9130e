"""Calls that leave the mesh: an account for each from the kernel's reports, whatever of them is lost."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace

import pytest

from tests.builders import workload
from tests.flow.driving import Clock, drive
from tests.inbound.parts import Sockets
from tests.outbound.parts import Desk, Here, address_of
from ztunnel.flow.engine import Engine
from ztunnel.kernel.sockets import cookie_of
from ztunnel.model.address import Endpoint, pack16, parse_endpoint
from ztunnel.outbound.observe import POLL_SECONDS, OutsideCalls
from ztunnel.redirect.outside import OutsideCall
from ztunnel.redirect.records import RecordEvent

CLIENT = replace(workload("client").at("127.0.0.9", "fd00::9").on("n1").hbone(), workload_name="client")
PLAIN = workload("plain").at("127.0.0.2").on("n2").plain()
FLOW = parse_endpoint("127.0.0.9:4000"), parse_endpoint("127.0.0.2:8080")
OPENED, ENDED = RecordEvent.OPENED, RecordEvent.ENDED


def call(event: RecordEvent, flow: tuple[Endpoint, Endpoint] = FLOW, **changes: object) -> OutsideCall:
    source, destination = flow
    way = (1).to_bytes(8, "little") + pack16(destination.ip) + destination.port.to_bytes(2, "little")
    now = time.monotonic_ns()
    made = OutsideCall(1, 11, now, now, 0, 0, way, pack16(source.ip), source.port, 0, event, True, True)
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.fixture
def desk(engine: Engine, sockets: Sockets) -> Desk:
    made = Desk(engine, sockets, CLIENT, PLAIN)
    made.pod(CLIENT, 1)
    return made


@pytest.fixture
def outside(desk: Desk) -> OutsideCalls:
    return OutsideCalls(desk.engine, desk.kernel, desk.hold, desk.report, desk.direct.pods)


def tell(desk: Desk, outside: OutsideCalls, *calls: OutsideCall) -> None:
    """The kernel reports."""
    desk.kernel.left.extend(calls)
    outside.pull()


def poll(desk: Desk, outside: OutsideCalls, clock: Clock) -> None:
    """A poll, and the time that it takes."""
    outside.poll()
    clock.move(POLL_SECONDS)
    drive(desk.engine)


def test_a_call_is_accounted_at_its_source_from_its_opening_to_its_end(
    desk: Desk, outside: OutsideCalls
) -> None:
    tell(desk, outside, call(OPENED))
    assert (len(outside), desk.totals(), desk.lines) == (1, (1, 0), [])
    tell(desk, outside, call(ENDED, sent_bytes=10, received_bytes=1000))
    assert (len(outside), desk.totals()) == (0, (1, 1))
    assert (desk.bytes_of("source"), desk.bytes_of("destination")) == ((10, 1000), (0, 0))
    [line] = desk.lines
    assert "\tinfo\t" in line
    for part in (
        "src.addr=127.0.0.9:4000",
        'src.workload="client"',
        "dst.addr=127.0.0.2:8080",
        'dst.workload="plain"',
        'direction="outbound"',
        "bytes_sent=10 bytes_recv=1000",
    ):
        assert part in line, line


def test_an_address_that_nobody_knows_has_no_workload(desk: Desk, outside: OutsideCalls) -> None:
    flow = FLOW[0], parse_endpoint("192.0.2.1:443")
    tell(desk, outside, call(OPENED, flow), call(ENDED, flow))
    [row] = desk.metrics.rows(0.0)
    assert (row.labels.source_workload, row.labels.destination_workload) == ("client", "unknown")
    assert row.labels.connection_security_policy == "unknown"
    assert "dst.workload" not in desk.lines[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"error": errno.ECONNREFUSED}, "connection failed: 127.0.0.2:8080: Connection refused"),
        ({"error": errno.EHOSTUNREACH}, "connection failed: 127.0.0.2:8080: No route to host"),
        ({"error": errno.ETIMEDOUT}, "connection timed out: 127.0.0.2:8080"),
        ({}, "connection failed: 127.0.0.2:8080: not answered before the application gave it up"),
        ({"exact": False}, "connection failed: 127.0.0.2:8080: refused, unreachable or not answered"),
        ({"source_port": 0}, "connection failed: 127.0.0.2:8080: the pod has no route to it"),
    ],
)
def test_a_call_that_fails_is_one_line_with_its_reason(
    desk: Desk, outside: OutsideCalls, changes: dict[str, object], reason: str
) -> None:
    tell(desk, outside, call(ENDED, established=False, **changes))
    [line] = desk.lines
    assert "\terror\t" in line
    assert f'error="{reason}' in line
    assert f"src.addr=127.0.0.9:{changes.get('source_port', 4000)}" in line
    assert desk.totals() == (1, 1)
    [failed] = [row for row in desk.metrics.rows(0.0) if row.failed]
    assert failed.labels.response_flags == "CONNECT"
    assert len(outside) == 0


def test_without_a_report_of_the_opening_the_end_counts_for_both(desk: Desk, outside: OutsideCalls) -> None:
    tell(desk, outside, call(ENDED, sent_bytes=10, received_bytes=20))
    assert (desk.totals(), desk.bytes_of("source"), len(desk.lines)) == ((1, 1), (10, 20), 1)


def test_without_a_report_of_the_end_it_is_closed_when_the_kernel_has_forgotten_it(
    desk: Desk, outside: OutsideCalls, clock: Clock
) -> None:
    tell(desk, outside, call(OPENED))
    desk.kernel.outside = [call(OPENED)]
    for _ in range(3):
        poll(desk, outside, clock)
    desk.kernel.outside = []
    poll(desk, outside, clock)
    assert len(outside) == 1, "its report may be under way"
    desk.kernel.outside = [call(OPENED)]
    poll(desk, outside, clock)
    desk.kernel.outside = []
    poll(desk, outside, clock)
    assert len(outside) == 1
    poll(desk, outside, clock)
    assert (len(outside), desk.totals(), len(desk.lines)) == (0, (1, 1), 1)


def test_lost_reports_are_made_up_for(desk: Desk, outside: OutsideCalls, clock: Clock) -> None:
    desk.kernel.outside = [call(OPENED), call(OPENED, socket=12), call(ENDED, socket=13, established=False)]
    poll(desk, outside, clock)
    assert len(outside) == 0, "nothing was lost"
    desk.kernel.counted = {"outside_lost": 3}
    poll(desk, outside, clock)
    assert len(outside) == 2
    poll(desk, outside, clock)
    assert desk.totals() == (2, 0)


def test_after_a_restart_live_calls_are_taken_up(desk: Desk, outside: OutsideCalls) -> None:
    desk.kernel.left = [call(ENDED, socket=10, sent_bytes=5), call(OPENED)]
    desk.kernel.outside = [call(OPENED), call(OPENED, socket=12)]
    outside.resume()
    assert (len(outside), desk.totals()) == (2, (3, 1))


def test_bytes_of_live_calls_are_read_and_count_once(
    desk: Desk, outside: OutsideCalls, sockets: Sockets, clock: Clock
) -> None:
    client, server = sockets.call(sockets.listen("127.0.0.2"), "127.0.0.9")
    flow = address_of(client), address_of(server)
    live = call(OPENED, flow, socket=cookie_of(client))
    desk.kernel.outside = [live]
    tell(desk, outside, live)
    client.sendall(b"x" * 100)
    server.sendall(b"y" * 200)
    assert (len(server.recv(500)), len(client.recv(500))) == (100, 200)
    poll(desk, outside, clock)
    assert desk.bytes_of("source") == (100, 200)
    tell(desk, outside, live._replace(event=ENDED, sent_bytes=100, received_bytes=200))
    assert desk.bytes_of("source") == (100, 200)


def test_a_pod_that_left_tells_by_its_calls_ends(desk: Desk, outside: OutsideCalls, clock: Clock) -> None:
    tell(desk, outside, call(OPENED))
    desk.kernel.outside = [call(OPENED)]
    del desk.direct.pods[CLIENT.uid]
    for _ in range(3):
        poll(desk, outside, clock)
    assert len(outside) == 1
    tell(desk, outside, call(ENDED, sent_bytes=7))
    assert desk.bytes_of("source") == (7, 0)


def test_a_namespace_that_does_not_answer_is_asked_again(
    desk: Desk, outside: OutsideCalls, clock: Clock
) -> None:
    tell(desk, outside, call(OPENED))
    desk.kernel.outside = [call(OPENED)]
    netns = desk.direct.pods[CLIENT.uid].netns
    assert isinstance(netns, Here)
    netns.gone = True
    for _ in range(3):
        poll(desk, outside, clock)
    assert len(outside) == 1


def test_reports_are_of_the_world_as_it_is_and_of_the_pod_in_the_namespace(
    desk: Desk, outside: OutsideCalls
) -> None:
    tell(desk, outside, call(OPENED))
    desk.publish(replace(CLIENT, workload_name="renamed"))
    tell(desk, outside, call(OPENED, socket=12))
    other = replace(workload("other").at("127.0.0.8").on("n1").hbone(), workload_name="other")
    desk.publish(other)
    del desk.direct.pods[CLIENT.uid]
    desk.pod(other, 1)
    tell(desk, outside, call(OPENED, socket=13))
    names = {row.labels.source_workload for row in desk.metrics.rows(0.0)}
    assert names == {"client", "renamed", "other"}


def test_a_flood_is_read_a_portion_at_a_time(desk: Desk, outside: OutsideCalls) -> None:
    desk.kernel.left = [call(ENDED, socket=number) for number in range(300)]
    assert [outside.pull() for _ in range(4)] == [128, 128, 44, 0]
    assert desk.totals() == (300, 300)


def test_very_many_destinations_are_not_all_remembered(desk: Desk, outside: OutsideCalls) -> None:
    for number in range(2000):
        flow = FLOW[0], Endpoint(FLOW[1].ip, number + 1)
        tell(desk, outside, call(ENDED, flow, socket=number))
    assert len(outside._ways) <= 1024
    assert desk.totals() == (2000, 2000)


def test_what_a_successor_observes_is_closed_here_without_a_line(
    desk: Desk, outside: OutsideCalls, clock: Clock
) -> None:
    desk.kernel.outside_fd = os.eventfd(0, os.EFD_NONBLOCK)
    outside.watch()
    tell(desk, outside, call(OPENED))
    outside.hand_over()
    assert (len(outside), desk.totals(), desk.lines) == (0, (1, 1), [])
    desk.kernel.left.append(call(OPENED, socket=12))
    clock.move(2 * POLL_SECONDS)
    drive(desk.engine)
    assert len(outside) == 0
    outside.watch()
    assert len(outside) == 1
    outside.hand_over()
    os.close(desk.kernel.outside_fd)
