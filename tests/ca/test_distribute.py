"""The roots come into every namespace, stay there, and follow the authority."""

from __future__ import annotations

from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
import trio.testing

from tests.ca.test_authority_report import Log
from tests.control.api_server import Store
from tests.identity.builders import NOW
from tests.identity.sets import one_step
from tests.kube.fake import answer, status
from ztunnel.ca.distribute import RootDistribution
from ztunnel.ca.root_maps import KEY, OWN, SHARED, RootMaps
from ztunnel.identity.authority import read_authority
from ztunnel.identity.plugged_in import assemble
from ztunnel.identity.standing import StandingAuthority
from ztunnel.kube.resource import CONFIG_MAPS
from ztunnel.telemetry.figures import Figures

HOME = "ztunnel-system"


def authority():
    return read_authority(assemble(one_step().files(), str), "cluster.local", NOW)


@pytest.fixture
def store():
    made = Store()
    for name in (HOME, "istio-system", "shop", "kube-system"):
        made.put_namespace(name)
    return made


class Running:
    def __init__(self, api, number):
        self.log = Log()
        self.standing = StandingAuthority(authority())
        self.roots = self.standing.current.roots_pem
        maps = RootMaps(HOME, "istio-system")
        self.distribution = RootDistribution(api, maps, self.standing, Random(number), self.log)

    def figures(self):
        figures = Figures()
        self.distribution.register(figures)
        return {one.name: one.samples[0][1] for one in figures.families()}


@asynccontextmanager
async def running(store, count=1):
    async with store.api() as api, trio.open_nursery() as nursery:
        made = [Running(api, number) for number in range(count)]
        for each in made[1:]:
            each.standing.current = made[0].standing.current
        for each in made:
            nursery.start_soon(each.distribution.run)
        yield made
        nursery.cancel_scope.cancel()


async def until(holds):
    with trio.fail_after(120):
        while not holds():  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(0.1)


def everywhere(store, roots, name=SHARED, namespaces=(HOME, "istio-system", "shop")):
    return all(store.map(namespace, name) == {KEY: roots} for namespace in namespaces)


async def test_every_namespace_gets_the_roots_and_the_clusters_own_do_not(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        assert store.map(HOME, OWN) == {KEY: one.roots}
        assert store.map("kube-system", SHARED) is None
        await trio.sleep(60)
        assert len(store.writes) == 4
        assert one.figures() == {"ztunnel_root_maps_written_total": 4, "ztunnel_root_maps_missing": 0}
        assert one.log.lines == []


async def test_a_new_namespace_a_deleted_one_and_a_changed_one_are_put_right(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        store.put_namespace("new")
        await until(lambda: store.map("new", SHARED))
        store.remove(CONFIG_MAPS, SHARED, "shop")
        await until(lambda: store.map("shop", SHARED))
        store.put_map("new", SHARED, {KEY: "another", "mine": "stays"})
        await until(lambda: store.map("new", SHARED) == {KEY: one.roots, "mine": "stays"})


async def test_a_watch_that_the_api_server_has_forgotten_loses_no_namespace(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        for number in range(3):
            store.end_watches(status(410, "Expired", "too old resource version"))
            store.put_namespace(f"meanwhile-{number}")
            store.compact()
        await until(lambda: all(store.map(f"meanwhile-{number}", SHARED) for number in range(3)))


async def test_new_roots_are_brought_everywhere(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        other = authority()
        one.standing.take(other)
        await until(lambda: everywhere(store, other.roots_pem))


async def test_several_control_planes_do_not_disturb_each_other(store, autojump_clock):
    async with running(store, 3) as all_of_them:
        await until(lambda: everywhere(store, all_of_them[0].roots))
        await trio.sleep(120)
        assert len(store.writes) == 4
        assert [line for one in all_of_them for line in one.log.lines] == []


async def test_an_istiod_s_config_maps_are_left_alone(store, autojump_clock):
    for namespace in ("istio-system", "shop", HOME):
        store.put_map(namespace, SHARED, {KEY: "istiod's"}, "pilot-discovery")
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots, OWN))
        assert everywhere(store, "istiod's")
        [(level, _, fields)] = one.log.lines
        assert (level, fields) == ("info", {"name": OWN, "beside_istiod": True})


async def test_an_istiod_that_comes_later_gets_its_name_back(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        for namespace in ("shop", HOME, "istio-system"):  # it overwrites what it finds
            store.put_map(namespace, SHARED, {KEY: "istiod's"}, "pilot-discovery")
        await until(lambda: everywhere(store, one.roots, OWN))
        store.put_map("shop", SHARED, {KEY: "istiod's"}, "pilot-discovery")
        await trio.sleep(30)
        assert store.map("shop", SHARED) == {KEY: "istiod's"}


async def test_somebody_who_always_writes_something_else_wins_for_a_while_and_is_named(store, autojump_clock):
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots))
        for _ in range(8):
            store.put_map("shop", SHARED, {KEY: "theirs"})
            await trio.sleep(3)
        assert store.map("shop", SHARED) == {KEY: "theirs"}
        assert [(level, fields["namespace"]) for level, _, fields in one.log.lines] == [("error", "shop")]
        await trio.sleep(700)
        assert store.map("shop", SHARED) == {KEY: one.roots}


async def test_a_namespace_that_is_going_is_no_trouble(store, autojump_clock):
    said = "unable to create new content in namespace shop because it is being terminated"

    def fault(request):
        mine = request.method == "POST" and "/shop/" in request.url.path
        return answer(403, status(403, "Forbidden", said)) if mine else None

    store.faults.append(fault)
    async with running(store) as [one]:
        await until(lambda: everywhere(store, one.roots, namespaces=(HOME, "istio-system")))
        await trio.sleep(30)
        assert one.log.lines == []


async def test_a_refusal_is_said_once_for_each_namespace_and_tried_again(store, autojump_clock):
    refuse = [True]

    def fault(request):
        write = refuse and request.method == "POST"
        return answer(403, status(403, "Forbidden", "no")) if write else None

    store.faults.append(fault)
    async with running(store) as [one]:
        await trio.sleep(30)
        assert {fields["namespace"] for _, _, fields in one.log.lines} == {HOME, "istio-system", "shop"}
        assert len(one.log.lines) == 4
        assert "needs RBAC: create configmaps" in one.log.lines[0][2]["error"]
        assert one.figures()["ztunnel_root_maps_missing"] == 4
        refuse.clear()
        await until(lambda: everywhere(store, one.roots))
