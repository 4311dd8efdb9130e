"""A node that serves, steps back for a successor, and goes on or is replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.run.running import Live, Planes, ready, running
from ztunnel.errors import Unsupported
from ztunnel.pods.watch import LOOK_AGAIN_SECONDS
from ztunnel.run.serve import LEASE_SECONDS
from ztunnel.run.succession import Succession
from ztunnel.state.change import Change


async def test_while_it_steps_back_the_lease_is_its_own_and_the_reports_are_not(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await ready(planes, parts)
        succession, held = Succession(parts.node, parts.listeners), parts.redirection.held
        since = held.since
        offer = await succession.step_back()
        assert (offer.since_ns, offer.pages) == (since, parts.listeners.filenos())
        assert parts.node.waiting.since_ns == 0
        before = len(parts.redirection.renewals)
        await trio.sleep(4 * LEASE_SECONDS)
        assert len(parts.redirection.renewals) >= before + 3
        succession.step_up()
        assert held.since > since
        assert not succession.over.is_set()
        await succession.step_back()  # as often as it takes
        succession.step_up()
        assert parts.state == ["ready"]


async def test_once_a_successor_serves_it_only_drains(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        succession = Succession(parts.node, parts.listeners)
        await succession.step_back()
        succession.hand_over(pages=True)
        await wait_all_tasks_blocked()
        assert (succession.given, succession.over.is_set()) == (True, True)
        assert parts.state[0] == "not ready, pending: replaced by a successor"
        assert parts.listeners.handed_over.is_set()
        succession.refuse_new()
        assert not parts.said("draining")
        flow = Live(parts)
        await trio.sleep(20)
        assert flow.error is None
        flow.end()


async def test_it_drains_on_when_the_task_that_has_handed_over_ends(autojump_clock):
    """As it does when the successor ends first."""
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        succession = Succession(parts.node, parts.listeners)

        async def replaced() -> None:
            await succession.step_back()
            succession.hand_over(pages=False)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(replaced)
        flow = Live(parts)
        await trio.sleep(2 * LOOK_AGAIN_SECONDS)
        assert flow.error is None
        flow.end()


async def test_programs_of_another_version_end_it_with_that_reason_alone(autojump_clock, tmp_path):
    """And not with the lock that it held for a successor."""
    planes, version = Planes(), tmp_path / "version"
    version.symlink_to("ours")
    async with running(planes.plane) as parts:
        await ready(planes, parts)
        node = replace(parts.node, machine=parts.node.machine._replace(pins=tmp_path))
        succession = Succession(node, parts.listeners)

        async def not_replaced() -> None:
            await succession.step_back()
            version.unlink()
            version.symlink_to("another")
            await trio.sleep(2 * LOOK_AGAIN_SECONDS)
            with pytest.raises(Unsupported, match="start again"):
                succession.step_up()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(not_replaced)
        await trio.sleep(2 * LOOK_AGAIN_SECONDS)


async def test_what_the_world_changes_is_not_told_the_kernel_any_more(autojump_clock):
    planes = Planes()
    async with running(planes.plane) as parts:
        await ready(planes, parts)
        direct, kernel = parts.node.direct, parts.redirection
        direct.begin_anew()
        before = dict(kernel.generations)
        assert before
        succession = Succession(parts.node, parts.listeners)
        await succession.step_back()
        succession.hand_over(pages=False)
        assert not parts.listeners.handed_over.is_set()
        parts.node.hold.publish(parts.node.hold.world, Change(everywhere=True))
        assert kernel.generations == before
