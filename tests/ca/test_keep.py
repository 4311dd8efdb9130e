"""The authority of a control plane in Kubernetes: made once, followed, never lost for a mistake."""

from __future__ import annotations

import base64
import re
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random

import httpx2
import pytest
import trio
import trio.testing

from tests.ca.test_stored import secret
from tests.control.api_server import Store
from tests.identity.builders import ALICE, NOW, new_key, pem_of
from tests.identity.sets import one_step
from tests.kube.fake import answer, status
from ztunnel.ca.keep import KeptAuthority
from ztunnel.identity import csr
from ztunnel.kube.resource import SECRETS

HOME = "ztunnel-system"


@pytest.fixture
def clock():
    """Jumps only when the threads that read certificates have had the time to."""
    return trio.testing.MockClock(autojump_threshold=0.05)


class Time:
    def __init__(self):
        self.now = NOW


class Plane:
    """A control plane as far as its authority goes."""

    def __init__(self, api, number):
        self.said, self.time = [], Time()
        where = HOME, "cluster.local"
        self.kept = KeptAuthority(api, where, lambda: self.time.now, Random(number), self.observe)

    def observe(self):
        self.said.append([str(fault) for fault in self.kept.faults])

    @property
    def current(self):
        return self.kept.authority.current

    def signs(self):
        return self.kept.authority.sign(csr.create(ALICE).csr_pem, ALICE, 60, NOW)[-1]


@asynccontextmanager
async def planes(store, count=1):
    async with store.api() as api, trio.open_nursery() as nursery:
        made = [Plane(api, number) for number in range(count)]
        for each in made:
            nursery.start_soon(each.kept.run)
        yield made
        nursery.cancel_scope.cancel()


async def until(holds, step=0.1):
    """Each step takes the time of the clock's threshold."""
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - the clock jumps
            await trio.sleep(step)


async def test_the_first_control_plane_makes_a_root_and_the_next_has_the_same(clock):
    store = Store()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        first = one.signs()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        assert one.signs() == first
    assert store.writes == [("POST", HOME, "ztunnel-ca-secret")]


async def test_control_planes_that_start_at_once_agree(clock):
    store = Store()
    async with planes(store, 5) as all_of_them:
        await until(lambda: all(one.current for one in all_of_them))
        assert len({one.signs() for one in all_of_them}) == 1
    assert len(store.writes) == 1


async def test_a_plug_in_ca_wins_and_no_root_is_made(clock):
    store, found = Store(), one_step()
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        assert one.signs() == found.root.pem
    assert store.writes == []


async def test_it_is_taken_over_while_it_runs_and_so_is_another(clock):
    store, first, second = Store(), one_step(), one_step()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        for found in (first, second):
            store.put(SECRETS, forced(secret(found.files())))
            await until(lambda: one.signs() == found.root.pem)  # noqa: B023
        assert one.said == [[], [], []]


def forced(value):
    return value | {"metadata": value["metadata"] | {"annotations": {"ztunnel.io/replace-root": "true"}}}


def trusted_by(store, roots):
    store.put_map(HOME, "ztunnel-ca-root-cert", {"root-cert.pem": roots})


async def test_a_root_that_nobody_trusts_yet_does_not_take_over(clock):
    store, found = Store(), one_step()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        before = one.signs()
        store.put(SECRETS, secret(found.files()))
        await until(lambda: one.kept.faults)
        assert (
            "Secret ztunnel-system/cacerts: its root is none that the mesh trusts so far" in one.said[-1][0]
        )
        assert one.signs() == before
        # First trusted, then it signs: nothing is cut.
        own = store.secret(HOME, "ztunnel-ca-secret")
        both = base64.b64encode((before + found.root.pem).encode()).decode()
        store.remove(SECRETS, "cacerts", HOME)
        store.put(SECRETS, own | {"data": own["data"] | {"root-cert.pem": both}})
        await until(lambda: one.signs() == before + found.root.pem)
        store.put(SECRETS, secret(found.files(root_cert=found.root.pem + before)))
        await until(lambda: one.signs() == found.root.pem + before)
        assert one.kept.faults == ()
        store.put(SECRETS, secret(found.files()))
        await until(lambda: one.signs() == found.root.pem)


async def test_a_control_plane_that_starts_chooses_as_those_that_run(clock):
    """A replica that is restarted meanwhile must not sign with a root that nobody trusts yet."""
    store, found = Store(), one_step()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        before = one.signs()
    trusted_by(store, before)
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        assert one.signs() == before
        assert one.kept.faults
        store.put(SECRETS, forced(secret(found.files())))
        await until(lambda: one.signs() == found.root.pem)


async def test_a_plug_in_ca_that_is_wrong_leaves_the_root_that_the_mesh_trusts_at_a_start(clock):
    store, found = Store(), one_step()
    async with planes(store) as [one]:
        await until(lambda: one.current)
        before = one.signs()
    trusted_by(store, before)
    store.put(SECRETS, secret(found.files(root_cert="x")))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        assert one.signs() == before
        assert "not a text of PEM" in one.said[-1][0]


async def test_what_a_mesh_before_this_one_trusted_does_not_keep_a_new_one_from_its_root(clock):
    store = Store()
    trusted_by(store, one_step().root.pem)
    async with planes(store) as [one]:
        await until(lambda: one.current)
        await until(lambda: not one.kept.faults, step=5)


@pytest.mark.parametrize("text", ["", "hello"])
async def test_a_record_that_makes_no_sense_is_none(clock, text):
    store, found = Store(), one_step()
    trusted_by(store, text)
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        assert one.signs() == found.root.pem
        assert one.kept.faults == ()


async def test_a_change_that_is_wrong_is_said_and_the_one_before_signs_on(clock):
    store, found = Store(), one_step()
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        store.put(SECRETS, secret(found.files(ca_key=pem_of(new_key()))))
        await until(lambda: one.kept.faults)
        assert "Secret ztunnel-system/cacerts: ca-key.pem: not the key" in one.said[-1][0]
        assert one.signs() == found.root.pem
        store.put(SECRETS, secret(found.files()))
        await until(lambda: not one.kept.faults)


async def test_a_plug_in_ca_that_is_wrong_at_the_start_is_not_replaced_by_a_root_of_our_own(clock):
    store, found = Store(), one_step()
    store.put(SECRETS, secret(found.files(root_cert="x")))
    async with planes(store) as [one]:
        await until(lambda: one.kept.faults)
        await trio.sleep(30)
        assert one.current is None
        assert store.writes == []
        store.put(SECRETS, secret(found.files()))
        await until(lambda: one.current)


async def test_a_plug_in_ca_that_becomes_valid_by_itself_is_taken_over(clock):
    store, found = Store(), one_step()
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        one.time.now = NOW - timedelta(days=20_000)
        await until(lambda: one.kept.faults)
        assert "is not valid before" in one.said[-1][0]
        one.time.now = NOW
        await until(lambda: one.current, step=5)
        assert not one.kept.faults


async def test_one_that_has_expired_is_replaced_by_one_that_has_not(clock):
    store, found, old = Store(), one_step(), one_step(end=NOW + timedelta(days=1))
    store.put(SECRETS, secret(old.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        one.time.now = NOW + timedelta(days=2)
        store.put(SECRETS, secret(found.files()))
        await until(lambda: one.signs() == found.root.pem)


async def test_a_plug_in_ca_that_is_deleted_signs_on_and_that_is_said(clock):
    store, found = Store(), one_step()
    store.put(SECRETS, secret(found.files()))
    async with planes(store) as [one]:
        await until(lambda: one.current)
        store.remove(SECRETS, "cacerts", HOME)
        await until(lambda: one.kept.faults)
        assert "cacerts: deleted; it signs on until this process ends" in one.said[-1][0]
        assert one.signs() == found.root.pem
    assert store.writes == []


async def test_the_secret_of_our_own_root_is_put_back_when_it_is_deleted(clock, caplog):
    store = Store()
    async with planes(store, 2) as both:
        await until(lambda: all(one.current for one in both))
        roots = both[0].signs()
        before = store.secret(HOME, "ztunnel-ca-secret")["data"]
        store.remove(SECRETS, "ztunnel-ca-secret", HOME)
        await until(lambda: store.secret(HOME, "ztunnel-ca-secret"))
        assert store.secret(HOME, "ztunnel-ca-secret")["data"]["root-cert.pem"] == before["root-cert.pem"]
        await trio.sleep(10)
        assert [one.signs() for one in both] == [roots, roots]
    assert [record.getMessage() for record in caplog.records] == [
        "Secret ztunnel-system/ztunnel-ca-secret was deleted, and is put back"
    ]


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (answer(403, status(403, "Forbidden", "no")), "needs RBAC: .* secrets in namespace ztunnel-system"),
        (answer(500, status(500, "InternalError", "etcd")), "answers 500"),
        (httpx2.ConnectError("refused"), "no answer from the API server"),
    ],
)
async def test_an_api_server_that_refuses_is_said_and_asked_again(clock, fails, message):
    store = Store()
    broken = [True]

    def fault(_):
        if broken and isinstance(fails, Exception):
            raise fails
        return fails if broken else None

    store.faults.append(fault)
    async with planes(store) as [one]:
        await until(lambda: one.kept.faults)
        assert re.search(message, one.said[-1][0]), one.said
        broken.clear()
        await until(lambda: one.current)
        await until(lambda: not one.kept.faults)


async def test_a_secret_that_may_not_be_made_is_said(clock):
    store = Store()
    refuse = [True]

    def fault(request):
        forbidden = answer(403, status(403, "Forbidden", "no"))
        return forbidden if refuse and request.method == "POST" else None

    store.faults.append(fault)
    async with planes(store) as [one]:
        await until(lambda: one.kept.faults)
        assert "ztunnel-ca-secret: cannot be made: not allowed to create secrets" in one.said[-1][0]
        refuse.clear()
        await until(lambda: one.current and not one.kept.faults)
