from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kernel.lab import Kernel, endpoint
from ztunnel.kernel import bpf
from ztunnel.kernel.bpf import Map
from ztunnel.redirect.enforce import Addresses, Admissions, Affinities, Slots, TurnedAway, Verdicts
from ztunnel.redirect.layout import AFFINITY, ENDPOINT, NUMBER, SMALL, Deny, Direct, pull_ip, push_endpoint
from ztunnel.redirect.layout import VIP as VIP_STRUCT

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

TO = endpoint("10.77.0.3", 8080)
VIP = endpoint("10.96.0.1", 80)


@pytest.fixture
def maps(kernel: Kernel) -> Iterator[dict[str, Map]]:
    opened = {place.name: Map(bpf.open_pinned(place)) for place in (kernel.settings.pins / "maps").iterdir()}
    yield opened
    for each in opened.values():
        each.close()


def test_an_admission_is_given_and_taken_back(maps) -> None:
    admissions = Admissions(maps["admitted"])
    admissions.admit(TO, VIP)
    assert len(list(maps["admitted"])) == 1
    assert not admissions.has_arrived(TO, VIP)
    admissions.dismiss(TO, VIP)
    admissions.dismiss(TO, VIP)
    assert list(maps["admitted"]) == []
    assert not admissions.has_arrived(TO, VIP)


def test_who_is_turned_away_is_so_until_a_time(maps) -> None:
    begun = time.monotonic_ns()
    TurnedAway(maps["turned_away"]).turn_away(TO.ip, 1.5)
    (until,) = (maps["turned_away"].get(key) for key in maps["turned_away"])
    assert begun + 1_500_000_000 <= NUMBER.unpack(until)[0] <= time.monotonic_ns() + 1_500_000_000


def test_a_lease_is_a_time_that_ends_at_once_when_told(maps) -> None:
    verdicts = Verdicts(maps)
    verdicts.renew_lease(4711)
    assert maps["lease"].get(SMALL.pack(0)) == NUMBER.pack(4711)
    verdicts.end_lease()
    assert maps["lease"].get(SMALL.pack(0)) == NUMBER.pack(0)


def test_verdicts_are_taught_replaced_and_forgotten(maps) -> None:
    verdicts = Verdicts(maps)
    verdicts.teach(1, TO, Direct(2, 3, 4))
    verdicts.teach(1, TO, Deny(5, 3))
    assert len(list(maps["verdicts"])) == 1
    verdicts.forget(1, TO)
    verdicts.forget(1, TO)
    assert list(maps["verdicts"]) == []


def test_generations_only_grow_and_are_never_those_of_another_pod(maps) -> None:
    verdicts = Verdicts(maps)
    assert verdicts.generation(1) == 0
    verdicts.begin(1)
    first = verdicts.generation(1)
    verdicts.begin(1)
    assert verdicts.generation(1) == first > 0
    seen = [first, verdicts.bump(1), verdicts.bump(2), verdicts.bump(1)]
    verdicts.bump_all()
    seen += [verdicts.generation(1), verdicts.generation(2)]
    verdicts.end(1)
    assert verdicts.generation(1) == 0
    seen.append(verdicts.bump(1))
    assert len(set(seen)) == len(seen)
    assert seen[-1] == max(seen) <= time.monotonic_ns()


def chosen(maps) -> Counter[tuple[str, int]]:
    """All slots that there are."""
    values = (ENDPOINT.unpack(maps["slots"].get(key)) for key in maps["slots"])
    return Counter((str(pull_ip(ip)), port) for ip, port in values)


def test_slots_follow_the_weights_and_leave_nothing(maps) -> None:
    slots = Slots(maps)
    slots.serve_vip(VIP, [(TO, 2), (endpoint("fd77::3", 81), 1)])
    assert chosen(maps) == {("10.77.0.3", 8080): 2, ("fd77::3", 81): 1}
    slots.serve_vip(VIP, [(TO, 1)])
    assert chosen(maps) == {("10.77.0.3", 8080): 1}
    slots.serve_vip(VIP, [])
    assert chosen(maps) == {}
    assert list(maps["vips"]) == []
    slots.drop_vip(VIP)


def test_a_restarted_proxy_uses_no_table_that_is_in_use(maps) -> None:
    Slots(maps).serve_vip(VIP, [(TO, 1)])
    other = endpoint("10.96.0.2", 80)
    Slots(maps).serve_vip(other, [(TO, 1)])
    Slots(maps).drop_vip(other)
    assert chosen(maps) == {("10.77.0.3", 8080): 1}


def test_what_a_predecessor_left_is_dropped_with_all_its_slots(maps) -> None:
    Slots(maps).serve_vip(VIP, [(TO, 2), (endpoint("fd77::3", 81), 1)])
    Slots(maps).serve_vip(endpoint("10.96.0.2", 80), [(TO, 1)])
    slots = Slots(maps)
    slots.drop_vips()
    assert chosen(maps) == {}
    assert list(maps["vips"]) == []
    slots.serve_vip(VIP, [(TO, 1)])
    assert chosen(maps) == {("10.77.0.3", 8080): 1}


def test_a_table_for_which_there_is_no_room_leaves_the_old_one(maps) -> None:
    small = Map(bpf.map_create("zt_slots", bpf.MapSpec(1, 8, 20, 4, 0)))
    try:
        slots = Slots({"vips": maps["vips"], "slots": small})
        slots.serve_vip(VIP, [(TO, 1)])
        with pytest.raises(OSError, match="Argument list too long"):
            slots.serve_vip(VIP, [(endpoint("10.77.0.3", port), 1) for port in range(1, 9)])
        assert chosen({"slots": small}) == {("10.77.0.3", 8080): 1}
    finally:
        small.close()


def test_a_client_keeps_its_endpoint_of_a_vip_for_a_time(maps) -> None:
    affinities, slots = Affinities(maps), Slots(maps)
    assert affinities.kept(1, VIP, 10, 0) is None
    affinities.keep(1, VIP, TO, 5_000_000_000)
    assert affinities.kept(1, VIP, 10, 14_999_999_999) == TO
    assert affinities.kept(1, VIP, 10, 15_000_000_000) is None
    assert affinities.kept(2, VIP, 10, 5_000_000_000) is None
    assert affinities.kept(1, endpoint("10.96.0.1", 81), 10, 5_000_000_000) is None
    slots.serve_vip(VIP, [(TO, 1)], 10)
    assert VIP_STRUCT.unpack(maps["vips"].get(push_endpoint(VIP)))[1:] == (1, 10)
    other = endpoint("fd77::3", 81)
    affinities.keep(1, VIP, other, 5_000_000_000)
    assert affinities.kept(1, VIP, 10, 5_000_000_000) == other
    [value] = [maps["affinities"].get(key) for key in maps["affinities"]]
    assert AFFINITY.unpack(value)[2] == VIP_STRUCT.unpack(maps["vips"].get(push_endpoint(VIP)))[0]


def test_addresses_are_told_taken_back_and_forgotten(maps) -> None:
    addresses = Addresses(maps)
    assert addresses.limit == 262144
    addresses.known(True)
    assert maps["mesh_known"].get(SMALL.pack(0)) == SMALL.pack(1)
    v4, v6 = TO.ip, endpoint("fd77::3", 0).ip
    addresses.tell([v4, v6])
    addresses.tell([v4], [v6, VIP.ip])
    assert list(map(pull_ip, maps["mesh_addresses"])) == [v4]
    again = Addresses(maps)  # a successor: what is there may be out of date
    again.forget()
    assert list(maps["mesh_addresses"]) == []
    assert maps["mesh_known"].get(SMALL.pack(0)) == SMALL.pack(0)
