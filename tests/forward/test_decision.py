"""What may be forwarded: inwards by the pod's policies, outwards nothing."""

from __future__ import annotations

import pytest

from tests.builders import policy, service, strict, workload, world_of
from ztunnel.errors import ConnectionFailed, Denied, Flag, NoDestination, NotCarried
from ztunnel.forward.decision import journey_of, judge_forwarded
from ztunnel.model.address import parse_endpoint
from ztunnel.redirect.passages import Forwarded
from ztunnel.telemetry.labels import Reporter

CLIENT = workload("client").at("10.0.0.1", "fd00::1").hbone()
POD = workload("pod").at("10.0.1.1", "fd00::2").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)


def inwards(called: str = "10.0.1.1:9090", opener: str = "10.0.0.1:40000") -> Forwarded:
    ends = parse_endpoint(opener), parse_endpoint(called)
    return Forwarded(1, 2, *ends, ends[0], parse_endpoint("172.31.0.2:8080"), 0, 0, True, True, False)


def outwards(called: str) -> Forwarded:
    ends = parse_endpoint("172.31.0.2:40000"), parse_endpoint(called)
    return Forwarded(1, 2, *ends, *ends, 0, 0, True, False, False)


@pytest.mark.parametrize("called", ["10.0.1.1:9090", "172.31.0.2:8080", "[fd00::2]:9090"])
def test_without_policies_what_comes_in_may_pass(called) -> None:
    judge_forwarded(world_of(CLIENT, POD), POD, inwards(called))


def test_policy_sees_the_port_and_the_address_that_were_called_and_no_identity() -> None:
    ports = policy("p").when(destination_ports=[9090])
    judge_forwarded(world_of(POD, ports), POD, inwards())
    with pytest.raises(Denied):  # the port behind it is not the one that was called
        judge_forwarded(world_of(POD, policy("p").when(destination_ports=[8080])), POD, inwards())
    with pytest.raises(Denied):
        judge_forwarded(world_of(POD, CLIENT, policy("p").when(principals=["*"])), POD, inwards())
    with pytest.raises(Denied):
        judge_forwarded(world_of(POD, policy("p").deny().when(source_ips=["10.0.0.0/8"])), POD, inwards())


def test_strict_refuses_it() -> None:
    with pytest.raises(Denied):
        judge_forwarded(world_of(CLIENT, strict()), POD.selected_by(strict()), inwards())


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_our_own_ports_are_not_forwarded(port) -> None:
    with pytest.raises(NoDestination):
        judge_forwarded(world_of(POD), POD, inwards(f"10.0.1.1:{port}"))


def test_where_all_ports_are_translated_the_log_says_which_one_to_leave_out() -> None:
    """As KubeVirt's masquerade does without a list of ports: nobody could reach the pod by a tunnel."""
    with pytest.raises(NoDestination, match="leave port 15008 out of the translation"):
        judge_forwarded(world_of(CLIENT, POD), POD, inwards("10.0.1.1:15008"))


@pytest.mark.parametrize("called", ["10.0.0.1:80", "10.96.0.1:80", "8.8.8.8:53", "[fd00::1]:80"])
def test_outwards_nothing_is_opened_and_the_reason_names_the_way_out(called) -> None:
    with pytest.raises(NotCarried, match=r"ztunnel\.io/forwarding") as refused:
        judge_forwarded(world_of(CLIENT, POD, WEB), POD, outwards(called))
    assert isinstance(refused.value, ConnectionFailed)
    assert refused.value.flag is Flag.CONNECT


def test_a_line_says_who_called_whom() -> None:
    world = world_of(CLIENT, POD, WEB)
    journey = journey_of(world, POD, inwards())
    assert (journey.reporter, journey.destination) == (Reporter.DESTINATION, parse_endpoint("10.0.1.1:9090"))
    assert (journey.source_workload, journey.destination_workload) == (CLIENT, POD)
    journey = journey_of(world, POD, outwards("10.96.0.1:80"))
    assert (journey.reporter, journey.source_workload, journey.service) == (Reporter.SOURCE, POD, WEB)
    journey = journey_of(world, POD, outwards("10.0.0.1:80"))
    assert journey.destination_workload == CLIENT
    assert journey_of(world, None, outwards("10.96.0.1:80")).service is None
