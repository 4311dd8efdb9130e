"""What is asked for as it is met: once, for as long as it is met, and within bounds."""

from ipaddress import ip_address

import pytest

from ztunnel.xds.on_demand import IDLE_SECONDS, MOST, WAIT_SECONDS, OnDemand
from ztunnel.xds.pb.discovery_pb2 import Resource

BOTH = pytest.mark.parametrize("ip", [ip_address("10.0.0.1"), ip_address("fd00::1")])
OTHER = ip_address("10.0.0.2")


def serving(network="n"):
    """With a stream to a control plane of ours; how often `wake` was called."""
    it, calls = OnDemand(network), []
    it.wake = lambda: calls.append(1)
    it.connect()
    it.served()
    return it, calls


def taken(it):
    request = it.take()
    if request is None:
        return None
    return list(request.resource_names_subscribe), list(request.resource_names_unsubscribe)


def answer(it, ip, *, somebody=True):
    name = f"n/{ip}"
    if somebody:
        it.received([Resource(name="uid", aliases=[name])], [])
    else:
        it.received([], [name])


@BOTH
@pytest.mark.parametrize("somebody", [True, False])
def test_an_address_is_asked_for_once_and_waited_for_until_it_is_answered(ip, somebody):
    it, calls = serving()
    assert it.awaits(ip, 1.0)
    assert (taken(it), len(calls)) == (([f"n/{ip}"], []), 1)
    assert it.awaits(ip, 1.5)
    assert taken(it) is None
    answer(it, ip, somebody=somebody)
    assert not it.awaits(ip, 1.6)
    assert (len(it), len(calls), it.unanswered) == (1, 1, 0)


@BOTH
def test_an_answer_that_does_not_come_is_waited_for_a_second_by_whoever_comes_first(ip):
    it, _ = serving()
    assert it.awaits(ip, 1.0)
    assert not it.awaits(ip, 1.0 + WAIT_SECONDS)
    assert not it.awaits(ip, 1.1)
    assert it.unanswered == 1
    answer(it, ip)
    assert it.unanswered == 1


def test_nobody_waits_without_a_control_plane_that_answers_and_the_next_stream_asks_for_all():
    it, calls = serving()
    it.awaits(OTHER, 0.0)
    it.disconnect()
    assert not it.awaits(OTHER, 0.1)
    assert not it.awaits(ip_address("10.0.0.9"), 0.1)
    assert it.take() is None
    assert it.connect() == ["n/10.0.0.2"]
    assert not it.awaits(OTHER, 0.2)  # it may be another control plane, which sends everything
    it.served()
    assert it.awaits(OTHER, 0.3)
    assert (taken(it), len(calls)) == (None, 1)


def test_what_is_met_no_more_is_asked_for_no_more():
    it, calls = serving()
    it.awaits(OTHER, 0.0)
    it.awaits(ip_address("10.0.0.3"), 0.0)
    taken(it)
    answer(it, OTHER)
    it.meet(OTHER, 10.0)
    it.expire(IDLE_SECONDS - 0.1)
    assert taken(it) is None
    it.expire(IDLE_SECONDS)
    assert taken(it) == ([], ["n/10.0.0.3"])
    it.expire(IDLE_SECONDS + 10.0)
    assert (taken(it), len(it)) == (([], ["n/10.0.0.2"]), 0)
    assert len(calls) == 4


def test_what_is_met_again_before_it_was_said_is_not_forgotten():
    it, _ = serving()
    it.awaits(OTHER, 0.0)
    taken(it)
    it.expire(IDLE_SECONDS)
    it.awaits(OTHER, IDLE_SECONDS)
    assert taken(it) == (["n/10.0.0.2"], [])
    it.awaits(ip_address("10.0.0.4"), IDLE_SECONDS)
    it.expire(3 * IDLE_SECONDS)
    assert taken(it) == ([], ["n/10.0.0.2"])  # of the other nobody has heard


def test_whoever_makes_up_addresses_is_bounded_in_number_and_rate():
    it, _ = serving()
    asked = sum(it.awaits(ip_address(f"10.1.{n >> 8}.{n & 255}"), 0.0) for n in range(3000))
    assert (asked, it.unanswered) == (1000, 2000)
    for second in range(1, 9):
        for n in range(1000):
            it.awaits(ip_address(f"10.{second + 1}.{n >> 8}.{n & 255}"), float(second))
    assert len(it) == MOST
    names, gone = taken(it)
    assert (len(names), gone) == (MOST, [])  # what came and went in between was never asked for


def test_what_was_met_last_stays():
    it, _ = serving()
    it.awaits(OTHER, 0.0)
    answer(it, OTHER)
    for n in range(MOST):
        it.meet(OTHER, float(n))
        it.awaits(ip_address(f"10.1.{n >> 8}.{n & 255}"), float(n))
    assert "n/10.0.0.2" in it.connect()
