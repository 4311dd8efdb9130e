"""An API server that says of a DaemonSet what it is told to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.run.givers import Lines
from ztunnel.errors import ConfigError
from ztunnel.kube.failure import ApiFailure, Request
from ztunnel.kube.resource import NAMESPACES, NODES
from ztunnel.run.owner import Owner
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
        self.namespace: object = THERE
        """What is said of the namespace, each time."""
        self.node: object = {"metadata": {"name": "n1", "labels": {"pool": "a"}}}
        """And of the node."""
        self.log = Lines()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Server]:
        if isinstance(self.answers[0], ConfigError):
            raise self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        yield self

    async def ask(self, request: Request) -> object:
        await trio.lowlevel.checkpoint()
        if request.resource is NAMESPACES:
            assert request.name == "ztunnel-system"
            if isinstance(self.namespace, Exception):
                raise self.namespace
            return self.namespace
        if request.resource is NODES:
            assert request.name == "n1"
            if isinstance(self.node, Exception):
                raise self.node
            return self.node
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def owner(self, name: str = "ztunnel-system/ztunnel") -> Owner:
        log = Log(self.log, Levels(), time.time_ns)  # type: ignore[arg-type]
        return Owner(name, "n1", log, self.open)  # type: ignore[arg-type] (what it opens is ours)
