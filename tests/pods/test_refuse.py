"""Pods that are wanted in the mesh and are not in it: nothing leaves or reaches them."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator

import pytest

from tests.kernel.lab import Kernel, local_of
from tests.pods.parts import NAMED, Scratch, place_of, port_taken
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import parse_ip
from ztunnel.pods.kubelet import Place
from ztunnel.pods.refuse import Holders, Refusals

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

HOME = [parse_ip("10.77.0.2"), parse_ip("fd77::2")]
OWN, OTHERS = ["10.77.0.2", "fd77::2"], ["10.77.0.3", "fd77::3"]


def settle(refusals: Refusals, pending: Collection[str] = (), enrolled: Collection[int] = ()) -> None:
    for uid in refusals.over(pending):
        refusals.let_go(uid, enrolled)


@pytest.fixture
def refusals(kernel: Kernel) -> Iterator[Refusals]:
    refusals = Refusals(kernel.redirection, NAMED)
    yield refusals
    settle(refusals)
    assert kernel.redirection.enrolled() == {}


def refused(kernel: Kernel, netns: NetworkNamespace, host: str, port: int) -> bool:
    with kernel.socket(netns, host) as sock:
        try:
            sock.connect((host, port))
        except ConnectionRefusedError:
            return True
    return False


@pytest.mark.parametrize("port", [8080, 15008, 15001])
def test_nothing_leaves_and_nothing_comes_in_but_the_pod_reaches_itself(kernel, refusals, port) -> None:
    place, lab = place_of(kernel.lab, "a"), kernel.lab
    app, there = kernel.listen(lab.a, port), kernel.listen(lab.b, 0)
    away = there.getsockname()[1]
    assert not refused(kernel, lab.b, OWN[0], port)
    kernel.accept(app)
    assert refusals.refuse("u", place, HOME, []) == lab.a.cookie
    assert "u" in refusals
    for own, other in zip(OWN, OTHERS, strict=True):
        assert refused(kernel, lab.a, other, away)
        assert refused(kernel, lab.b, own, port)
    for host in ("127.0.0.1", "::1", *OWN):
        with kernel.connect(lab.a, host, port) as own_call:
            assert kernel.accept(app)[1] == local_of(own_call)
    assert kernel.count("connect_pending") == 2
    assert kernel.count("inbound_pending") == 2
    settle(refusals)
    assert "u" not in refusals
    for own, other in zip(OWN, OTHERS, strict=True):
        assert not refused(kernel, lab.a, other, away)
        assert not refused(kernel, lab.b, own, port)


def test_datagrams_are_not_covered(kernel, refusals) -> None:
    refusals.refuse("u", place_of(kernel.lab, "a"), HOME, [])
    there = kernel.socket(kernel.lab.b, kind=socket.SOCK_DGRAM)
    there.bind(("10.77.0.3", 0))
    client = kernel.socket(kernel.lab.a, kind=socket.SOCK_DGRAM)
    client.sendto(b"datagram", there.getsockname())
    assert there.recv(99) == b"datagram"


def test_a_namespace_is_refused_before_it_has_addresses(kernel, refusals) -> None:
    """What it gets later is covered all the same."""
    with Scratch() as scratch:
        refusals.refuse("s", scratch.place, HOME, [])
        scratch.address("add", "10.9.0.1/24")
        scratch.address("add", "fd09::1/64")
        with scratch.open() as netns:
            for host in ("10.9.0.9", "fd09::9"):
                assert refused(kernel, netns, host, 80)
        assert kernel.count("connect_pending") == 2
        refusals.refuse("s", scratch.place, [parse_ip("10.9.0.1")], [])
        (pod,) = kernel.redirection.enrolled().values()
        assert {str(ip) for ip in pod.addresses} == {"10.9.0.1", "fd09::1"}
        settle(refusals)


def test_a_namespace_that_is_somebody_elses_is_spared(kernel, refusals) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert refusals.refuse("u", place_of(kernel.lab, "b"), HOME, [kernel.lab.b.cookie]) is None
    assert "u" not in refusals
    assert kernel.redirection.enrolled() == {}
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_addresses_of_others_stay_theirs(kernel, refusals) -> None:
    other = kernel.enroll("b")
    with Scratch("10.77.0.3/32") as scratch:
        refusals.refuse("s", scratch.place, HOME, [other.cookie])
        assert kernel.redirection.enrolled()[other.cookie].addresses == frozenset(other.addresses)
        settle(refusals)
    kernel.redirection.withdraw(other)


def test_another_namespace_at_the_same_path_is_refused_in_its_place(kernel, refusals) -> None:
    with Scratch("10.9.0.1/24") as scratch:
        first = refusals.refuse("s", scratch.place, HOME, [])
        scratch.delete()
        settle(refusals, ["s"])
        assert "s" not in refusals
        scratch.add()
        second = refusals.refuse("s", scratch.place, HOME, [])
        assert second not in (None, first)
        assert set(kernel.redirection.enrolled()) == {second}
        settle(refusals)


def test_one_that_was_enrolled_stays_captured_and_one_of_a_process_that_ended_stays_refused(
    kernel, refusals
) -> None:
    place = place_of(kernel.lab, "a")
    refusals.refuse("u", place, HOME, [])
    pod = kernel.enroll("a")
    settle(refusals, enrolled=[pod.cookie])
    assert set(kernel.redirection.enrolled()) == {pod.cookie}
    refusals.refuse("u", place, HOME, [])
    refusals.close()
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.a, OTHERS[0], 80)
    assert kernel.count("connect_pending") == 1
    kernel.redirection.withdraw(pod)


def test_what_is_not_there_cannot_be_refused(refusals) -> None:
    with pytest.raises(FileNotFoundError):
        refusals.refuse("u", Place("/run/netns/no-such", 7), HOME, [])


async def test_the_holder_of_a_port_is_looked_for_once_in_a_while(kernel, autojump_clock) -> None:
    holders = Holders()
    with port_taken(kernel.lab.names["a"]) as pid:
        who = await holders.find(place_of(kernel.lab, "a").path, 15008)
        assert f"(pid {pid})" in who
    assert await holders.find(place_of(kernel.lab, "a").path, 15008) == who
    autojump_clock.jump(10)
    assert await holders.find(place_of(kernel.lab, "a").path, 15008) == ""
