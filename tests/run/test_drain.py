"""What lives gets its time when a node ends, and nothing new begins."""

from __future__ import annotations

import trio

from tests.run.parts import ask, served_by, until
from tests.run.running import Live, Planes, ready, running
from ztunnel.control.serve import Server
from ztunnel.run.drain import leave_if_uninstalled


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


async def test_where_nobody_has_taken_over_new_ones_are_served_but_for_the_last_second(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(8)
        assert parts.said("serving on")
        assert not parts.said("draining")
        assert parts.redirection.renewals[-1] > 0
        late = Live(parts)
        await trio.sleep(1.5)
        assert parts.said("draining")
        assert flow.error is late.error is None
        await trio.sleep(1)
        assert parts.is_over
        assert flow.error is not None


async def test_who_came_later_is_not_waited_for_but_has_a_moment(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=100.0) as parts:
        await ready(planes, parts)
        flow = Live(parts)
        parts.stop.ask()
        await trio.sleep(1)
        late = Live(parts)
        flow.end()
        await trio.sleep(0.2)
        assert parts.said("draining")
        late.end()
        await trio.sleep(0.5)
        assert parts.is_over
        assert late.error is None


class Deleted:
    """A DaemonSet that is gone."""

    reason = "uninstalled"

    async def gone(self) -> None:
        await trio.sleep(1)


async def test_where_nobody_comes_after_it_its_pods_are_let_go(autojump_clock):
    planes = Planes()
    async with running(planes.plane, termination_deadline_seconds=10.0) as parts:
        await ready(planes, parts)
        assert not parts.stop.leaves
        await leave_if_uninstalled(parts.node, parts.stop, Deleted())  # type: ignore[arg-type]
        assert parts.stop.leaves
        assert parts.node.pods.left_out.ends
        assert parts.said("uninstalled")
