"""Secrets are watched while they are wanted, each by its name, and so many at most."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import trio

from tests.kube.fake import FakeServer, answer, status
from tests.waiting import until
from ztunnel.control.source.watch_secrets import SecretWatch
from ztunnel.kube.informer import Removal, Upsert
from ztunnel.kube.resource import SECRETS

S, T = ("shop", "s"), ("edge", "t")


class Watched:
    def __init__(self, watch: SecretWatch, there: dict, told: list) -> None:
        self.watch, self.there, self.told = watch, there, told

    async def until(self, condition) -> None:
        await until(condition, 1000, 0.01)


@asynccontextmanager
async def watching(server: FakeServer, most: int = 9) -> AsyncIterator[Watched]:
    there: dict = {}
    told: list = []

    def take(_served, changes) -> None:
        for change in changes:
            if isinstance(change, Upsert):
                there[change.name] = change.value
            elif isinstance(change, Removal):
                there.pop(change.name, None)

    async with server.api() as api, trio.open_nursery() as nursery:
        watch = SecretWatch(api, Random(1), take, lambda: told.append(watch.pending), most)
        nursery.start_soon(watch.run)
        yield Watched(watch, there, told)
        nursery.cancel_scope.cancel()


def secret(name: str, namespace: str) -> dict:
    return {"metadata": {"name": name, "namespace": namespace}, "data": {}}


async def test_what_is_wanted_is_there_while_it_is_and_pending_until_it_is_known(autojump_clock) -> None:
    server = FakeServer(SECRETS)
    server.put(SECRETS, secret("s", "shop"))
    server.put(SECRETS, secret("u", "shop"))
    async with watching(server) as it:
        assert not it.watch.pending
        it.watch.want(frozenset({S, T}))
        assert it.watch.pending
        await it.until(lambda: not it.watch.pending)
        assert it.there.keys() == {S}
        assert False in it.told
        server.put(SECRETS, secret("t", "edge"))
        await it.until(lambda: it.there.keys() == {S, T})
        it.watch.want(frozenset({T}))
        await it.until(lambda: it.there.keys() == {T})
        await it.until(lambda: len(server.watches) == 1)
        it.watch.want(frozenset())
        await it.until(lambda: not it.there and not server.watches)


async def test_what_may_not_be_read_is_not_waited_for_and_says_why_until_it_may(autojump_clock) -> None:
    server = FakeServer(SECRETS)
    server.put(SECRETS, secret("s", "shop"))
    forbidden = answer(403, status(403, "Forbidden", "no"))
    server.faults.append(lambda request: forbidden if "/shop/" in request.url.path else None)
    async with watching(server) as it:
        it.watch.want(frozenset({S, T}))
        await it.until(lambda: it.watch.trouble(S))
        await it.until(lambda: not it.watch.pending)
        assert it.watch.take_changed()
        assert not it.watch.take_changed()
        (text,) = it.watch.troubles()
        assert text.startswith("Secret shop/s cannot be read: not allowed to list secrets")
        assert text.endswith("see waypoint.credentialNamespaces of the chart")
        server.faults.clear()
        await it.until(lambda: it.there.keys() == {S})
        assert (it.watch.troubles(), it.watch.take_changed()) == ((), True)


async def test_beyond_a_number_none_is_read_and_nobody_waits(autojump_clock) -> None:
    server = FakeServer(SECRETS)
    names = frozenset(("shop", f"s{number:02}") for number in range(12))
    async with watching(server) as it:
        it.watch.want(names)
        await it.until(lambda: not it.watch.pending)
        await it.until(lambda: len(server.watches) == 9)
        assert it.watch.troubles()[0] == "Secret shop/s09 is not read: there are more than 9"
        assert len(it.watch.troubles()) == 3
