"""A proxy that is told to end asks whether its DaemonSet is there: gone is gone, and no answer is none."""

from __future__ import annotations

import pytest
import trio

from tests.run.owners import GOING, THERE, Server, failed
from ztunnel.errors import ConfigError, Fault
from ztunnel.run.owner import ASK_SECONDS, DAEMON_SETS, Fate, Owner


async def seconds_until_gone(owner: Owner) -> float | None:
    """None: it stays."""
    begun = trio.current_time()
    with trio.move_on_after(60):
        await owner.gone()
        return trio.current_time() - begun
    return None


@pytest.mark.parametrize(
    ("answers", "seconds"),
    [
        ([THERE], None),
        ([failed(404)], ASK_SECONDS),
        ([GOING], ASK_SECONDS),
        ([THERE, failed(404), THERE], None),  # it was replaced
        ([THERE, THERE, GOING], 2 * ASK_SECONDS),
        ([THERE, failed(403)], ASK_SECONDS),  # it was allowed: the role has been deleted
        ([THERE, failed(401)], ASK_SECONDS),
        ([THERE, failed(403), THERE, failed(403), THERE], None),
        ([failed(403)], None),  # it never was
        ([failed(0)], None),
        ([failed(500)], None),
        ([THERE, failed(429), failed(404)], 2 * ASK_SECONDS),
        ([ConfigError(Fault("token", 0, "", "gone"))], None),
    ],
)
async def test_who_is_gone(autojump_clock, answers: list[object], seconds: float | None) -> None:
    server = Server(*answers)
    owner = server.owner()
    await owner.try_out()
    assert await seconds_until_gone(owner) == (
        seconds if seconds is None else pytest.approx(seconds, abs=0.1)
    )


async def test_the_one_object_is_asked_for() -> None:
    server = Server(THERE)
    await server.owner().try_out()
    [request] = server.asked
    assert (request.verb, request.resource, request.namespace, request.name) == (
        "get",
        DAEMON_SETS,
        "ztunnel-system",
        "ztunnel",
    )
    assert server.log.lines == []


async def test_what_will_not_work_is_said_at_once() -> None:
    server = Server(failed(403))
    await server.owner().try_out()
    [line] = server.log.about("cannot tell an uninstall from an upgrade")
    assert "answered 403" in line


async def test_without_an_owner_nobody_is_asked(autojump_clock) -> None:
    server = Server(failed(404))
    owner = server.owner("")
    assert not owner
    await owner.try_out()
    assert await seconds_until_gone(owner) is None
    assert server.asked == []


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (THERE, Fate.STAYS),
        (GOING, Fate.GONE),
        (failed(404), Fate.GONE),
        (failed(403), Fate.FORBIDDEN),
        (failed(401), Fate.FORBIDDEN),
        (failed(500), Fate.SILENT),
        (failed(0), Fate.SILENT),
        (ConfigError(Fault("token", 0, "", "gone")), Fate.SILENT),
    ],
)
async def test_what_one_answer_means(answer: object, fate: Fate) -> None:
    assert await Server(answer).owner().look() is fate


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (THERE, Fate.STAYS),
        (GOING, Fate.GONE),  # its DaemonSets stay until the last pod has ended
        (failed(404), Fate.GONE),
        (failed(403), Fate.STAYS),
        (failed(500), Fate.STAYS),
    ],
)
async def test_what_becomes_of_the_namespace_becomes_of_the_daemon_set(answer: object, fate: Fate) -> None:
    server = Server(THERE)
    server.namespace = answer
    assert await server.owner().look() is fate


async def test_where_the_namespace_may_not_be_read_that_is_said() -> None:
    server = Server(THERE)
    server.namespace = failed(403)
    await server.owner().try_out()
    assert server.log.about("cannot tell an uninstall from an upgrade")


def selecting(**labels: str) -> dict[str, object]:
    return {**THERE, "spec": {"template": {"spec": {"nodeSelector": labels}}}}


@pytest.mark.parametrize(
    ("daemon_set", "node", "fate"),
    [
        (selecting(pool="a"), None, Fate.STAYS),
        (selecting(pool="b"), None, Fate.GONE),
        (selecting(pool="b"), failed(403), Fate.STAYS),  # a chart of before: pods stay captured
        (selecting(pool="b"), failed(404), Fate.STAYS),  # the machine is taken away
        (selecting(pool="b"), failed(500), Fate.STAYS),
        (selecting(pool="b"), ConfigError(Fault("token", 0, "", "gone")), Fate.STAYS),
    ],
)
async def test_a_node_that_is_not_selected_any_more_is_left(
    daemon_set: object, node: object, fate: Fate
) -> None:
    server = Server(daemon_set)
    if node is not None:
        server.node = node
    owner = server.owner()
    assert await owner.look() is fate
    assert ("selects this node no more" in owner.reason) is (fate is Fate.GONE)


async def test_a_node_that_is_selected_again_at_once_is_kept(autojump_clock) -> None:
    other = selecting(pool="b")
    assert await seconds_until_gone(Server(selecting(pool="a"), other, selecting(pool="a")).owner()) is None
    assert await seconds_until_gone(Server(other).owner()) == pytest.approx(ASK_SECONDS, abs=0.1)


async def test_where_nodes_may_not_be_read_that_is_said() -> None:
    server = Server(THERE)
    server.node = failed(403)
    await server.owner().try_out()
    [line] = server.log.about("cannot tell whether the DaemonSet selects this node")
    assert "answered 403" in line
