"""A proxy that is told to end asks whether its DaemonSet is there: gone is gone, and no answer is none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from tests.run.givers import Lines
from ztunnel.errors import ConfigError, Fault
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.run.owner import ASK_SECONDS, DAEMON_SETS, Owner
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels

THERE = {"metadata": {"name": "ztunnel"}}
GOING = {"metadata": {"name": "ztunnel", "deletionTimestamp": "2026-01-02T03:04:05Z"}}


def failed(code: int) -> ApiFailure:
    return ApiFailure(f"answered {code}", code)


class Server:
    """Answers each question with the next answer, and the last one again and again."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []
        self.log = Lines()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Server]:
        if isinstance(self.answers[0], ConfigError):
            raise self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        yield self

    async def ask(self, request: Request) -> object:
        await trio.lowlevel.checkpoint()
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def owner(self, name: str = "ztunnel-system/ztunnel") -> Owner:
        log = Log(self.log, Levels(), time.time_ns)  # type: ignore[arg-type]
        return Owner(name, log, self.open)  # type: ignore[arg-type]


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
        ([failed(404)], 0),
        ([GOING], 0),
        ([THERE, THERE, GOING], ASK_SECONDS),
        ([THERE, failed(403)], ASK_SECONDS),  # it was allowed: the role has been deleted
        ([THERE, failed(401)], ASK_SECONDS),
        ([THERE, failed(403), THERE, failed(403), THERE], None),
        ([failed(403)], None),  # it never was
        ([failed(0)], None),
        ([failed(500)], None),
        ([THERE, failed(429), failed(404)], ASK_SECONDS),
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


async def test_the_one_object_is_asked_for_and_its_metadata_alone() -> None:
    server = Server(THERE)
    await server.owner().try_out()
    [request] = server.asked
    assert (request.verb, request.resource, request.namespace, request.name) == (
        "get",
        DAEMON_SETS,
        "ztunnel-system",
        "ztunnel",
    )
    assert DAEMON_SETS.metadata_only
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
