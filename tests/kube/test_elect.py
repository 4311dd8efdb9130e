"""Of several replicas one does the work; another one goes on where it stops, at once where it says
goodbye."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import httpx2
import trio

from tests.kube.fake import FakeServer, answer, status
from ztunnel.kube.elect import Election
from ztunnel.kube.failure import ApiFailure
from ztunnel.kube.lease import DURATION_SECONDS, Candidate
from ztunnel.kube.resource import LEASES


def wall():
    return datetime.fromtimestamp(trio.current_time(), UTC)


class Link:
    """The way to the API server, which one replica can lose."""

    def __init__(self, api):
        self.api, self.away = api, False

    def __getattr__(self, name):
        async def ask(*words):
            if self.away:
                raise ApiFailure("no answer")
            return await getattr(self.api, name)(*words)

        return ask


class Replica:
    def __init__(self, name, api, working):
        self.name, self.api, self.working = name, Link(api), working
        self.scope = trio.CancelScope()
        self.election = Election(self.api, "ns", Candidate("ns", "it", name), wall, Random(name))

    async def run(self):
        with self.scope:
            await self.election.run("it", self.lead)

    async def lead(self):
        assert not self.working
        self.working.append(self.name)
        try:
            await trio.sleep_forever()
        finally:
            self.working.remove(self.name)


@asynccontextmanager
async def replicas(*names):
    server, working = FakeServer(LEASES), []
    async with server.api() as api, trio.open_nursery() as nursery:
        found = [Replica(name, api, working) for name in names]
        for one in found:
            nursery.start_soon(one.run)
        yield server, found, working
        nursery.cancel_scope.cancel()


async def test_one_of_three_leads_and_keeps_it(autojump_clock):
    async with replicas("a", "b", "c") as (_, _found, working):
        await trio.sleep(10)
        first = list(working)
        assert len(first) == 1
        await trio.sleep(300)
        assert working == first


async def test_a_leader_that_ends_properly_is_followed_soon(autojump_clock):
    async with replicas("a", "b") as (_, found, working):
        await trio.sleep(10)
        (first,) = working
        next(one for one in found if one.name == first).scope.cancel()
        await trio.sleep(5)
        assert working
        assert working != [first]


async def test_a_leader_that_is_cut_off_stops_before_another_one_begins(autojump_clock):
    async with replicas("a", "b") as (_, found, working):
        await trio.sleep(10)
        (first,) = working
        cut = next(one for one in found if one.name == first)

        cut.api.away = True
        with trio.fail_after(10.5):
            while working == [first]:  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert working == []
        await trio.sleep(DURATION_SECONDS + 5)
        assert working not in ([first], [])
        assert cut.election.trouble == "no answer"


async def test_nobody_leads_where_leases_are_forbidden_and_the_rule_is_named(autojump_clock):
    async with replicas("a") as (server, found, working):
        server.faults.append(lambda _: answer(403, status(403, "Forbidden", "no")))
        await trio.sleep(60)
        assert working == []
        assert "needs RBAC: get leases.coordination.k8s.io in namespace ns" in found[0].election.trouble


async def test_the_api_server_away_for_a_moment_changes_nothing(autojump_clock):
    async with replicas("a", "b") as (server, _, working):
        await trio.sleep(10)
        first = list(working)

        def away(_request):
            raise httpx2.ConnectError("refused")

        server.faults.append(away)
        await trio.sleep(6)
        server.faults.clear()
        await trio.sleep(30)
        assert working == first
