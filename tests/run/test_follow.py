"""The world is subscribed to again and again, and it is said what is waited for and what cannot be used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.builders import BuiltWorkload, workload
from tests.inbound.parts import Signer
from tests.run.parts import SETTINGS, until
from tests.run.running import Planes, ready, running
from ztunnel.control.serve import Server
from ztunnel.errors import PeerError
from ztunnel.rpc.status import PeerLeft
from ztunnel.run.follow import ControlPlane, Knowledge, follow
from ztunnel.run.reporting import Reporting
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION, HTTP_TYPES, JWT_POLICY, TYPES
from ztunnel.xds.snapshot import Snapshot, take


async def test_until_then_readiness_says_what_it_waits_for(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await wait_all_tasks_blocked()
        first = "not ready, pending: state manager, pods"
        assert parts.state == [first, "state manager: waits for Authorization, Address"]
        await planes.answer(AUTHORIZATION)
        assert parts.state == [first, "state manager: waits for Address"]
        assert not parts.redirection.renewals
        await planes.answer(ADDRESS)
        assert parts.state == ["ready"]
        assert parts.redirection.renewals


async def test_messages_are_counted_with_their_size(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await wait_all_tasks_blocked()
        await planes.answer(ADDRESS, nonce="x" * 1000)
        assert parts.figure("istio_xds_message_total") == {(ADDRESS,): 1}
        assert 1000 < parts.figure("istio_xds_message_bytes_total")[ADDRESS,] < 1200


async def test_what_cannot_be_used_is_logged_and_shown_but_not_without_end(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await wait_all_tasks_blocked()
        await planes.answer(ADDRESS, *(f"r{n}" for n in range(50)))
        assert len(parts.said("resource rejected")) == 20
        [shown] = [line for line in parts.state if line.startswith("resources rejected: ")]
        assert "r0" in shown
        assert shown.endswith("and 30 more")


async def test_a_stream_that_ends_is_opened_again_and_the_pauses_grow(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        for _ in range(14):
            await trio.sleep(19)
            await planes.end()
        await trio.sleep(19)
        pauses = [later - ended for ended, later in zip(planes.ended_at, planes.opened_at[1:], strict=True)]
        assert pauses[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08], rel=0.25)
        assert pauses[-1] == pytest.approx(15.0, rel=0.21)
        assert parts.figure("istio_xds_connection_terminations_total") == {("Complete",): 14}
        await planes.end()
        assert "control plane: the stream has ended: the control plane has closed it" in parts.state


async def test_an_answer_makes_the_next_pause_short_again(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        for _ in range(8):
            await trio.sleep(19)
            await planes.end()
        await trio.sleep(16)
        await planes.answer(ADDRESS)
        assert not [line for line in parts.state if line.startswith("control plane")]
        await planes.end()
        await trio.sleep(16)
        assert planes.opened_at[-1] - planes.ended_at[-1] < 0.05


async def test_a_control_plane_that_takes_leave_is_no_trouble(autojump_clock):
    """istiod ends every stream after half an hour (grpc-go: MaxConnectionAge)."""
    planes = Planes()
    async with running(planes.plane) as parts:
        await ready(planes, parts)
        planes.failure = PeerLeft("the peer has left (GOAWAY NO_ERROR max_age)")
        await planes.end()
        assert parts.state == ["ready"]
        [said] = parts.said("xDS stream ended")
        assert "info" in said
        assert "max_age" in said
        assert parts.figure("istio_xds_connection_terminations_total") == {("Reconnect",): 1}
        await until(lambda: len(planes.streams) == 2)
        assert planes.opened_at[-1] - planes.ended_at[-1] < 0.05


async def test_a_control_plane_that_misbehaves_or_is_too_busy_is_asked_again(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await wait_all_tasks_blocked()
        planes.refuses = 2
        await planes.answer("type.googleapis.com/other")
        await until(lambda: len(planes.streams) == 2)
        assert parts.figure("istio_xds_connection_terminations_total") == {("Error",): 3}
        assert "was not asked for" in parts.said("xDS stream ended")[0]
        assert "too many streams wait for the control plane" in parts.said("xDS stream ended")[1]


async def test_a_waypoint_of_an_istiod_is_served_and_says_what_it_does_not_get(autojump_clock):
    planes, reporting = Planes(), Reporting(SETTINGS)
    knowledge = Knowledge(SETTINGS, planes.plane, TYPES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, SETTINGS, reporting, knowledge)
        await wait_all_tasks_blocked()
        requests, _ = planes.streams[-1]
        asked = [requests.receive_nowait().type_url for _ in TYPES]
        assert asked == [*HTTP_TYPES, AUTHORIZATION, ADDRESS]
        for url in (AUTHORIZATION, ADDRESS):
            assert not knowledge.received.is_set()
            await planes.answer(url)
        assert knowledge.received.is_set()
        [said] = [line for line in _details(reporting) if line.startswith("HTTP rules: ")]
        assert "the control plane does not serve " in said
        assert "ztunnel.http.AuthorizationPolicy, " in said
        for url in HTTP_TYPES:
            await planes.answer(url)
        assert not [line for line in _details(reporting) if line.startswith("HTTP rules: ")]
        nursery.cancel_scope.cancel()


def _details(reporting: Reporting) -> list[str]:
    return reporting.readiness.render(trio.current_time())[1].splitlines()


@asynccontextmanager
async def knowing(certificates: object, *pods: BuiltWorkload) -> AsyncIterator[Knowledge]:
    """What a proxy knows before it touches the kernel, of these pods."""
    server = Server()
    knowledge = Knowledge(SETTINGS, ControlPlane(server.session, certificates))  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        server.publish(take(list(pods), "", Snapshot()))
        nursery.start_soon(follow, SETTINGS, Reporting(SETTINGS), knowledge)
        yield knowledge
        nursery.cancel_scope.cancel()


HERE = workload("here").on("n1").hbone()
THERE = workload("there").on("n2").hbone()
PLAIN = workload("plain").on("n1").plain()


async def test_all_is_prepared_once_there_is_a_certificate_of_each_pod_of_the_node() -> None:
    async with knowing(Signer(), HERE, THERE, PLAIN) as knowledge:
        await knowledge.prepare()
        assert knowledge.received.is_set()
        certificates = knowledge.certificates
        assert [each.identity for each in certificates.expiring()] == [HERE.identity]
        assert certificates.current(HERE.identity) is not None
        await knowledge.prepare()
        knowledge.prepared()
        assert certificates.expiring() == ()


class NoSigner:
    async def create(self, csr_pem: str, identity: object, ttl_seconds: float) -> list[str]:
        await trio.lowlevel.checkpoint()
        raise PeerError("the authority signs nothing")


async def test_a_certificate_that_cannot_be_had_keeps_nobody_waiting() -> None:
    async with knowing(NoSigner(), HERE) as knowledge:
        with trio.fail_after(2):
            await knowledge.prepare()
        assert knowledge.certificates.current(HERE.identity) is None
        knowledge.prepared()


async def test_the_control_plane_is_asked_for_newer_ones_where_there_is_one(autojump_clock):
    planes = Planes()
    knowledge = Knowledge(SETTINGS, planes.plane, TYPES)
    knowledge.ask(JWT_POLICY, ["shop/p"])  # nobody is there yet
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, SETTINGS, Reporting(SETTINGS), knowledge)
        await wait_all_tasks_blocked()
        requests, _ = planes.streams[-1]
        for _ in TYPES:
            requests.receive_nowait()
        knowledge.ask(JWT_POLICY, ())
        knowledge.ask(JWT_POLICY, ["shop/p"])
        asked = requests.receive_nowait()
        assert (asked.type_url, list(asked.resource_names_subscribe)) == (JWT_POLICY, ["shop/p"])
        await planes.end()
        knowledge.ask(JWT_POLICY, ["shop/p"])
        nursery.cancel_scope.cancel()
