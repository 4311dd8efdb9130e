"""Names of endpoints become addresses, and nobody's name becomes somebody else's address."""

from dataclasses import replace
from ipaddress import ip_address
from socket import gaierror

import pytest
import trio

from tests.builders import service, workload
from ztunnel.run.resolve import REFRESH_SECONDS, RETRY_SECONDS, Names, ask_system
from ztunnel.state.delta import apply
from ztunnel.state.hold import Hold

API = service("api").at("198.51.100.7")
NAMED = replace(
    workload("api").at().serves(API, 80), uid="c/networking.istio.io/ServiceEntry/default/api/api.example",
    hostname="api.example", host_network=True,
)  # fmt: skip


class Case:
    def __init__(self, nursery):
        self.hold, self.told, self.asked = Hold(), [], []
        self.answers = {"api.example": ["192.0.2.1", "2001:db8::1", "192.0.2.1", "fe80::1%eth0"]}
        self.names = Names(self.hold, self.told.append, self.ask)
        nursery.start_soon(self.names.run)

    async def ask(self, name):
        self.asked.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await trio.sleep_forever()
        return answer

    async def apply(self, *upserts, removals=()):
        upserts = [self.names.complete(one) for one in upserts]
        self.hold.publish(*apply(self.hold.world, upserts, removals))
        await trio.testing.wait_all_tasks_blocked()

    @property
    def addresses(self):
        return [str(ip) for ip in self.hold.world.workload(NAMED.uid).addresses]


@pytest.fixture
def case(nursery):
    return Case(nursery)


BOTH = ["192.0.2.1", "2001:db8::1"]


async def test_a_name_of_a_service_that_can_be_called_is_resolved(case, autojump_clock):
    await case.apply(API, NAMED)
    assert case.addresses == BOTH
    assert case.told == []


async def test_it_is_asked_again_and_what_it_means_then_counts(case, autojump_clock):
    await case.apply(API, NAMED)
    case.answers["api.example"] = ["192.0.2.2"]
    await trio.sleep(REFRESH_SECONDS - 1)
    assert case.asked == ["api.example"]
    await trio.sleep(2)
    assert case.addresses == ["192.0.2.2"]


async def test_what_comes_again_has_its_addresses_at_once(case, autojump_clock):
    await case.apply(API, NAMED)
    seen = []
    case.hold.subscribe(lambda _before, world, _change: seen.append(world.workload(NAMED.uid).addresses))
    await case.apply(replace(NAMED, canonical_revision="v2"))
    assert [len(addresses) for addresses in seen] == [2]


async def test_what_came_past_it_is_put_right(case, autojump_clock):
    await case.apply(API, NAMED)
    case.hold.publish(*apply(case.hold.world, [replace(NAMED, canonical_revision="v2")]))
    await trio.testing.wait_all_tasks_blocked()
    assert case.addresses == BOTH


@pytest.mark.parametrize(
    ("answer", "said"),
    [(gaierror(-2, "Name or service not known"), "Name or service not known"), (None, "does not answer")],
)
async def test_without_an_answer_the_last_one_counts_and_it_is_asked_again_soon(
    case, answer, said, autojump_clock
):
    await case.apply(API, NAMED)
    case.answers["api.example"] = answer
    await trio.sleep(REFRESH_SECONDS + 11)
    assert case.addresses == BOTH
    assert said in case.told[-1]
    case.answers["api.example"] = ["192.0.2.9"]
    await trio.sleep(RETRY_SECONDS + 11)
    assert case.addresses == ["192.0.2.9"]
    assert case.told[-1] == ""


async def test_a_pods_or_services_address_is_not_called_by_a_name(case, autojump_clock):
    pod, inside = workload("victim").hbone().on("n1").at("10.0.0.9"), service("web").at("10.96.0.1")
    case.answers["api.example"] = ["10.0.0.9", "10.96.0.1", "127.0.0.1", "169.254.169.254"]
    await case.apply(pod, inside, API, NAMED)
    assert case.addresses == []
    assert "somebody else's" in case.told[-1]
    case.answers["api.example"] += ["192.0.2.7"]
    await trio.sleep(RETRY_SECONDS + 1)
    assert case.addresses == ["192.0.2.7"]


async def test_its_own_virtual_address_may_be_what_a_name_means(case, autojump_clock):
    case.answers["api.example"] = ["198.51.100.7"]
    await case.apply(replace(API, external=API.addresses), NAMED)
    assert case.addresses == ["198.51.100.7"]


async def test_nobody_is_asked_about_what_nobody_can_call(case, autojump_clock):
    await case.apply(replace(API, addresses=()), NAMED)
    assert case.asked == []
    await case.apply(API)
    assert case.addresses == BOTH


async def test_a_name_that_is_gone_is_forgotten(case, autojump_clock):
    await case.apply(API, NAMED)
    await case.apply(removals=[NAMED.uid])
    await trio.sleep(10 * REFRESH_SECONDS)
    assert case.asked == ["api.example"]
    assert case.names.complete(NAMED) is NAMED


async def test_many_names_are_asked_a_few_at_a_time(case, autojump_clock):
    case.answers = {f"n{number}.example": None for number in range(30)}
    several = [replace(NAMED, uid=f"{NAMED.uid}{name}", hostname=name) for name in case.answers]
    await case.apply(API, *several)
    assert len(case.asked) == 8


async def test_the_systems_resolver_is_asked():
    assert "127.0.0.1" in await ask_system("localhost")
    assert ip_address((await ask_system("192.0.2.1"))[0]) == ip_address("192.0.2.1")
