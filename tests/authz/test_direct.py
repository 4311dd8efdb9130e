"""Direct connections: the same-node modes, STRICT, and the verdict with the kernel's word."""

from __future__ import annotations

import pytest

from tests.builders import (
    BuiltWorkload,
    connection,
    identity,
    policy,
    strict,
    workload,
    world_of,
)
from ztunnel.authz.direct import (
    allows_direct,
    connection_between,
    judge_direct,
    judge_live_direct,
    requires_tls,
)
from ztunnel.errors import Denied
from ztunnel.model.address import parse_endpoint
from ztunnel.model.policy import Policy
from ztunnel.model.workload import SameNode

AUTO, DIRECT, MTLS = SameNode.AUTO, SameNode.DIRECT, SameNode.MTLS
CLIENT = workload("client").at("10.0.0.1", "fd00::1").hbone()
SERVER = workload("server").at("10.0.1.1").hbone()
TARGET = parse_endpoint("10.0.1.1:8080")
CALL = connection("10.0.0.1:0", "10.0.1.1:8080", "default/client")
PER_PORT = (
    policy("converted_peer_authentication_web")
    .deny()
    .selecting()
    .when(not_principals=["*"], not_destination_ports=[9090])
)


@pytest.mark.parametrize(
    ("policies", "listed", "expected"),
    [
        ([strict()], [strict()], True),
        ([strict()], [], False),
        ([], [strict()], True),
        ([], ["default/late"], False),
        ([PER_PORT], [PER_PORT], True),
        ([strict().dry()], [strict()], False),
        ([policy("other").deny().when(not_principals=["*"])], [], False),
    ],
)
def test_strict_is_where_a_converted_peer_authentication_would_refuse_plaintext(
    policies: list[Policy], listed: list[Policy | str], expected: bool
) -> None:
    server = SERVER.selected_by(*listed)
    assert requires_tls(world_of(server, *policies), server, CALL) is expected


def test_a_port_that_is_permissive_does_not_require_tls() -> None:
    server = SERVER.selected_by(PER_PORT)
    call = connection("10.0.0.1:0", "10.0.1.1:9090", "default/client")
    assert not requires_tls(world_of(server, PER_PORT), server, call)


@pytest.mark.parametrize("covered", [False, True])
@pytest.mark.parametrize("mesh_wide", SameNode)
@pytest.mark.parametrize("at_source", SameNode)
@pytest.mark.parametrize("at_destination", SameNode)
def test_mtls_anywhere_wins_direct_at_the_destination_waives_strict_auto_heeds_it(
    covered: bool, mesh_wide: SameNode, at_source: SameNode, at_destination: SameNode
) -> None:
    server = SERVER.same_node_mode(at_destination).selected_by(*([strict()] if covered else []))
    client = CLIENT.same_node_mode(at_source)
    allowed = allows_direct(world_of(server, client, strict()), client, server, CALL, mesh_wide)
    if MTLS in (mesh_wide, at_source, at_destination):
        assert not allowed
    else:
        assert allowed is (DIRECT in (mesh_wide, at_destination) or not covered)


def test_a_connection_comes_from_the_sources_own_address_of_that_family() -> None:
    assert connection_between(CLIENT, TARGET) == CALL
    six = connection_between(CLIENT, parse_endpoint("[fd00::9]:80"), 77)
    assert six == connection("[fd00::1]:77", "[fd00::9]:80", "default/client")
    assert connection_between(CLIENT.at("fd00::1"), TARGET).source.ip.version == 6
    assert connection_between(CLIENT.at(), TARGET).source.ip == TARGET.ip


def test_the_sources_identity_counts_as_proved() -> None:
    rule = policy("p").when(principals=["cluster.local/ns/default/sa/client"])
    peer = parse_endpoint("10.0.0.1:4000")
    evidence = judge_direct(world_of(rule), CLIENT, SERVER, peer, TARGET)
    assert evidence.by == rule.key
    assert evidence.connection == connection("10.0.0.1:4000", "10.0.1.1:8080", "default/client")
    with pytest.raises(Denied, match="none allowed"):
        judge_direct(world_of(rule), CLIENT.account("other"), SERVER, peer, TARGET)


@pytest.mark.parametrize(
    ("client", "server", "policies", "refusal"),
    [
        (CLIENT, SERVER, [], ""),
        (CLIENT, SERVER, [policy("p")], "none allowed"),
        (CLIENT, SERVER.selected_by(strict()), [strict()], "has to be mutual TLS"),
        (CLIENT.same_node_mode(MTLS), SERVER, [], "has to be mutual TLS"),
        (CLIENT.account("other"), SERVER, [], "another identity"),
        (CLIENT.at("10.0.0.9"), SERVER, [], ""),
    ],
)
def test_a_live_direct_connection_ends_where_it_would_not_be_direct_now(
    client: BuiltWorkload, server: BuiltWorkload, policies: list[Policy], refusal: str
) -> None:
    world = world_of(client, server, *policies)
    judge_again = judge_live_direct(AUTO)
    if not refusal:
        assert judge_again(world, server, CALL).connection.identity == identity("default/client")
        return
    with pytest.raises(Denied, match=refusal):
        judge_again(world, server, CALL)
