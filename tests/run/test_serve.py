"""A node proxy from its start to its end: its parts in this process, and whole ones in a laboratory."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.builders import connection, policy, workload
from tests.inbound.parts import Signer
from tests.kernel.lab import wait_until
from tests.mesh.lab import unique
from tests.run.parts import SETTINGS, Redirected, ask, built, lines, opened, served_by, until
from ztunnel.cli.clean import lease_age_seconds
from ztunnel.control.serve import Server
from ztunnel.demo import run
from ztunnel.demo.operate import Laboratory
from ztunnel.errors import ConnectionFailed, Unsupported
from ztunnel.run.build import ControlPlane, Node
from ztunnel.run.pages import Listeners, listen
from ztunnel.run.reporting import Reporting
from ztunnel.run.serve import LEASE_SECONDS, run_node, run_parts
from ztunnel.run.stop import Stop
from ztunnel.xds.pb import discovery_pb2
from ztunnel.xds.resource import ADDRESS, AUTHORIZATION
from ztunnel.xds.snapshot import Snapshot, take


@dataclass
class Running:
    node: Node
    redirection: Redirected
    listeners: Listeners
    stop: Stop
    is_over: bool = False

    @property
    def state(self) -> list[str]:
        return self.node.reporting.readiness.render(trio.current_time())[1].splitlines()

    def figure(self, name: str) -> dict[tuple[str, ...], float]:
        families = {family.name: family for family in self.node.reporting.figures.families()}
        return dict(families[name].samples) if name in families else {}

    def said(self, text: str) -> list[str]:
        return [line for line in lines(self.node) if text in line]


@asynccontextmanager
async def running(plane: ControlPlane, **changes: object) -> AsyncIterator[Running]:
    """All parts run; at the end they are asked to end, and do."""
    with built(plane, **changes) as (node, redirection), opened(await listen(SETTINGS)) as listeners:
        parts = Running(node, redirection, listeners, Stop())

        async def run_them() -> None:
            await run_parts(node, plane, listeners, parts.stop)
            parts.is_over = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_them)
            yield parts
            parts.stop.ask()
            parts.stop.ask()


class Planes:
    """Opens streams, of which the test plays the other end."""

    def __init__(self) -> None:
        self.opened_at: list[float] = []
        self.ended_at: list[float] = []
        self.streams: list[tuple] = []
        self.refuses = 0

    @property
    def plane(self) -> ControlPlane:
        return ControlPlane(self.open, Signer())

    def open(self) -> tuple:
        self.opened_at.append(trio.current_time())
        if self.refuses:
            self.refuses -= 1
            raise trio.WouldBlock
        send, requests = trio.open_memory_channel(10)
        responses, receive = trio.open_memory_channel(10)
        self.streams.append((requests, responses))
        return send, receive

    async def answer(self, url: str, *names: str, nonce: str = "1") -> None:
        response = discovery_pb2.DeltaDiscoveryResponse(type_url=url, nonce=nonce)
        for name in names:
            response.resources.add(name=name, version="1")
        await self.streams[-1][1].send(response)
        await wait_all_tasks_blocked()

    async def end(self) -> None:
        for channel in self.streams[-1]:
            await channel.aclose()
        self.ended_at.append(trio.current_time())
        await wait_all_tasks_blocked()


# --- the world -----------------------------------------------------------------------


async def test_a_node_is_ready_when_the_world_is_known_and_says_so_once(nursery):
    server = Server()
    await nursery.start(server.run)
    server.publish(take([workload("a"), policy("p")], "", Snapshot()))
    async with running(served_by(server)) as parts:
        await until(lambda: parts.state == ["ready"])
        await until(lambda: parts.said("ready"))
        [line] = parts.said("ready")
        assert "pods=0" in line
        assert "workloads=1" in line
        assert "policies=1" in line
    nursery.cancel_scope.cancel()


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
            await trio.sleep(16)
            await planes.end()
        await trio.sleep(16)
        pauses = [later - ended for ended, later in zip(planes.ended_at, planes.opened_at[1:], strict=True)]
        assert pauses[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08], abs=0.005)
        assert pauses[-1] == pytest.approx(15.0, abs=0.1)
        assert parts.figure("istio_xds_connection_terminations_total") == {("Complete",): 14}
        await planes.end()
        assert "control plane: the stream has ended: the control plane has closed it" in parts.state


async def test_an_answer_makes_the_next_pause_short_again(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        for _ in range(8):
            await trio.sleep(16)
            await planes.end()
        await trio.sleep(16)
        await planes.answer(ADDRESS)
        assert not [line for line in parts.state if line.startswith("control plane")]
        await planes.end()
        await trio.sleep(16)
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


# --- the end -------------------------------------------------------------------------


class Live:
    """A connection into a pod, that lives until it ends or is ended."""

    workload_uid = "a"

    def __init__(self, parts: Running) -> None:
        self.connection = connection("10.0.0.1:1", "10.0.0.2:80")
        self.error: ConnectionFailed | None = None
        self._all = parts.node.live
        self._all.register(self)

    def abort(self, error: ConnectionFailed) -> None:
        self.error = error
        self.end()

    def end(self) -> None:
        self._all.unregister(self)


async def ready(planes: Planes, parts: Running) -> None:
    await wait_all_tasks_blocked()
    await planes.answer(AUTHORIZATION)
    await planes.answer(ADDRESS)
    assert parts.state == ["ready"]


async def test_the_lease_is_renewed_until_the_drain_and_not_after_it(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        await trio.sleep(10 * LEASE_SECONDS)
        assert 10 <= len(parts.redirection.renewals) <= 12
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(5)
        assert not parts.is_over
        assert parts.redirection.renewals[-1] == 0
        assert parts.redirection.renewals.count(0) == 1
        assert parts.state[0] == "not ready, pending: draining"
        await trio.sleep(5.5)
        assert parts.is_over
        assert str(flow.error) == "connection closed due to connection drain"


async def test_the_drain_ends_with_the_last_tunnel(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=100.0) as parts:
        await ready(planes, parts)
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(1)
        flow.end()
        await trio.sleep(0.5)
        assert parts.is_over
        assert flow.error is None


async def test_asked_twice_it_ends_without_waiting(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=100.0) as parts:
        await ready(planes, parts)
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(1)
        assert not parts.is_over
        parts.stop.ask()
        await trio.sleep(0.5)
        assert parts.is_over
        assert flow.error is not None


async def test_the_admin_page_drains_without_ending(nursery):
    server = Server()
    await nursery.start(server.run)
    async with running(served_by(server)) as parts:
        await until(lambda: parts.state == ["ready"])
        for _ in range(2):
            assert await ask(parts.listeners.admin, "POST", "/drain") == (200, "draining\n")
        assert parts.state == ["not ready, pending: draining"]
        assert len(parts.said("draining")) == 1
        await until(lambda: parts.redirection.renewals[-1] == 0)
        assert not parts.is_over
        assert (await ask(parts.listeners.admin, "POST", "/quitquitquit"))[0] == 200
        await until(lambda: parts.is_over)
    nursery.cancel_scope.cancel()


async def test_a_part_that_raises_ends_the_node_and_its_lease(autojump_clock):
    planes = Planes()

    def broken(idle_seconds: float) -> None:
        raise KeyError("a bug")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (what is begun in the block raises there)
        async with running(planes.plane) as parts:
            await ready(planes, parts)
            parts.node.tunnels.retire_idle = broken
            await trio.sleep(20)
    assert caught.group_contains(KeyError, match="a bug")
    assert parts.redirection.renewals[-1] == 0


async def test_a_start_that_fails_closes_the_ports(tmp_path, capfd):
    settings = replace(SETTINGS, pins=tmp_path / "no-bpffs", cache_dir=tmp_path / "cache")
    with pytest.raises(ExceptionGroup) as caught:
        await run_node(settings, Planes().plane, Reporting(settings), Stop())
    assert caught.group_contains(Unsupported)
    assert "starting" in capfd.readouterr().out


# --- whole nodes ---------------------------------------------------------------------

POD = """
apiVersion: v1
kind: Namespace
metadata: {name: t, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: t}
spec: {nodeName: node-1}
"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory(unique()) as laboratory:
        laboratory.up(POD)
        yield laboratory


@pytest.fixture
def whole(laboratory: Laboratory) -> Iterator[Laboratory]:
    """The proxy runs, before and after the test."""
    yield laboratory
    if not run.processes(laboratory.names.proxy_cgroup("node-1")):
        laboratory.start_node("node-1")


def gone(laboratory: Laboratory) -> bool:
    return not run.processes(laboratory.names.proxy_cgroup("node-1"))


def ended(laboratory: Laboratory) -> None:
    """The proxy has ended by itself, in order."""
    wait_until(lambda: gone(laboratory))
    log = laboratory.node_log("node-1")
    assert "Traceback" not in log
    assert "ended" in log.splitlines()[-1]
    proxies = [child for child in laboratory._children if "--pins" in child.args]
    assert proxies[-1].wait() == 0
    assert lease_age_seconds(laboratory.names.pins("node-1")) > 2


@pytest.mark.root
def test_a_whole_node_says_that_it_starts_and_is_ready(whole):
    log = [line for line in whole.node_log("node-1").splitlines() if "\tztunnel\t" in line]
    assert "starting" in log[0]
    assert 'node="node-1"' in log[0] or "node=node-1" in log[0]
    wait_until(lambda: "pods=1" in whole.node_log("node-1"))
    dump = json.loads(whole.node_get("node-1", "/config_dump"))
    assert "PRIVATE" not in json.dumps(dump)
    assert dump["certificates"][0]["state"] == "Available"
    assert lease_age_seconds(whole.names.pins("node-1")) < 2


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_whole_node_in_order(whole, number):
    whole.kill_node("node-1", number)
    ended(whole)


@pytest.mark.root
def test_the_admin_page_ends_a_whole_node_in_order(whole):
    whole.node_get("node-1", "/drain", method="POST")
    assert whole.node_get("node-1", "/healthz/ready", 15021).startswith("not ready, pending: draining")
    assert not gone(whole)
    whole.node_get("node-1", "/quitquitquit", method="POST")
    ended(whole)
