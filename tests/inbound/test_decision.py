"""Inbound decisions: what is admitted to the application, and how the rest is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import BuiltWorkload, identity, policy, service, strict, workload, world_of
from ztunnel.errors import Denied, NoDestination, PeerError
from ztunnel.inbound.decision import Arrival, InboundAdmitted, judge_plain, judge_tunnel
from ztunnel.model.address import parse_endpoint
from ztunnel.model.policy import Policy
from ztunnel.model.service import Service
from ztunnel.model.workload import Workload

CLIENT = workload("client").at("10.0.0.1").hbone()
WEB = service("web").at("10.96.0.1").port(80, 8080)
SERVER = workload("server").at("10.0.1.1", "fd00::1").hbone().serves(WEB)
PEER = parse_endpoint("10.0.0.1:40000")
ME = identity("default/client")


def arrive(
    authority: str,
    *items: Workload | Service | Policy,
    local: BuiltWorkload = SERVER,
    at: str = "10.0.1.1:15008",
    hint: str = "",
) -> InboundAdmitted:
    """Judge a tunnel to `local` in a world of both ends and these."""
    arrival = Arrival(authority, parse_endpoint(at), PEER, ME, hint)
    return judge_tunnel(world_of(CLIENT, local, *items), local, arrival)


def test_a_tunnel_to_the_pods_own_address_is_admitted_with_evidence() -> None:
    found = arrive("10.0.1.1:8080", policy("p").when(destination_ports=[8080]))
    assert found.app == parse_endpoint("10.0.1.1:8080")
    assert found.source == CLIENT
    assert found.service is None
    assert found.admitted.by == "default/p"
    assert found.admitted.connection.source == PEER
    assert found.admitted.connection.identity == ME


def test_ipv6_is_called_in_brackets() -> None:
    assert arrive("[fd00::1]:80", at="[fd00::1]:15008").app == parse_endpoint("[fd00::1]:80")


@pytest.mark.parametrize(
    ("authority", "reply", "text"),
    [
        ("", 400, "invalid authority"),
        ("10.0.1.1", 400, "invalid authority"),
        ("10.0.1.1:0", 400, "invalid authority"),
        ("10.0.1.1:65536", 400, "invalid authority"),
        ("10.0.1.1:٣", 400, "invalid authority"),
        ("10.0.1.999:80", 400, "invalid authority"),
        ("fd00::1:80", 400, "invalid authority"),
        ("[fe80::1%eth0]:80", 400, "invalid authority"),
        ("[10.0.1.1]:80", 400, "invalid authority"),
        ("user@host:80", 400, "invalid authority"),
        ("web.default.svc.cluster.local:0", 400, "invalid authority"),
        ("web.default.svc.cluster.local:65536", 400, "invalid authority"),
        ("10.0.9.9:80", 400, "ip mismatch: 10.0.1.1 != 10.0.9.9"),
        ("127.0.0.1:80", 400, "ip mismatch: 10.0.1.1 != 127.0.0.1"),
        ("10.96.0.1:80", 400, "ip mismatch: 10.0.1.1 != 10.96.0.1"),
        ("[fd00::1]:80", 400, "ip mismatch: 10.0.1.1 != fd00::1"),
        ("10.0.1.1:15001", 503, "attempted recursive call to ourselves"),
        ("10.0.1.1:15006", 503, "attempted recursive call to ourselves"),
        ("10.0.1.1:15008", 503, "attempted recursive call to ourselves"),
        ("unheard.of:80", 503, "no service unheard.of is served by default/server"),
        ("api.default.svc.cluster.local:80", 503, "no service api.default.svc.cluster.local is served"),
        ("web.default.svc.cluster.local:81", 503, "default/server does not serve port 81"),
    ],
)
def test_an_authority_that_leads_nowhere_is_answered(authority: str, reply: int, text: str) -> None:
    with pytest.raises(PeerError, match=text) as caught:
        arrive(authority, WEB, service("api").port(80))
    assert caught.value.reply == reply


@given(st.text(max_size=40))
def test_any_authority_is_admitted_to_the_pod_itself_or_answered(authority: str) -> None:
    reply = 200
    try:
        assert arrive(authority, WEB).app.ip == parse_endpoint("10.0.1.1:1").ip
    except PeerError as refused:
        reply = refused.reply
    assert reply in (200, 400, 503)


def test_a_service_is_called_by_name_at_the_port_that_the_pod_serves_it_on() -> None:
    found = arrive("WEB.default.svc.cluster.local:80", WEB, policy("p").when(destination_ports=[8080]))
    assert found.app == parse_endpoint("10.0.1.1:8080")
    assert found.service == WEB
    moved = SERVER.serves(WEB, (80, 9090))
    assert arrive("web.default.svc.cluster.local:80", WEB, local=moved).app == parse_endpoint("10.0.1.1:9090")


def test_of_two_services_of_one_name_the_one_in_the_pods_namespace_is_meant() -> None:
    mine = Service("web", "default", "web.example.org", ports=WEB.ports)
    theirs = Service("web", "a-first", "web.example.org", ports=WEB.ports)
    local = SERVER.serves(theirs).serves(mine)
    assert arrive("web.example.org:80", theirs, mine, local=local).service == mine


def test_a_name_that_leads_to_one_of_our_listeners_is_refused() -> None:
    with pytest.raises(PeerError, match="recursive") as caught:
        arrive("web.default.svc.cluster.local:80", WEB, local=SERVER.serves(WEB, (80, 15006)))
    assert caught.value.reply == 503


def test_policy_judges_the_port_of_the_application() -> None:
    with pytest.raises(Denied, match="none allowed"):
        arrive("web.default.svc.cluster.local:80", WEB, policy("p").when(destination_ports=[80]))


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("web.default.svc.cluster.local", WEB),
        ("api.default.svc.cluster.local", None),
        ("unheard.of", None),
        ("", None),
    ],
)
def test_a_hint_counts_only_for_a_service_that_the_pod_serves(hint: str, expected: Service | None) -> None:
    assert arrive("10.0.1.1:8080", WEB, service("api"), hint=hint).service == expected


def test_the_source_is_unknown_where_another_identity_was_proved_than_the_address_suggests() -> None:
    arrival = Arrival("10.0.1.1:80", parse_endpoint("10.0.1.1:15008"), PEER, identity("default/gate"))
    assert judge_tunnel(world_of(CLIENT, SERVER), SERVER, arrival).source is None


def test_plaintext_is_admitted_without_any_identity() -> None:
    app = parse_endpoint("10.0.1.1:8080")
    found = judge_plain(world_of(CLIENT, SERVER), SERVER, PEER, app)
    assert (found.app, found.source, found.service) == (app, CLIENT, None)
    assert found.admitted.connection.identity is None


@pytest.mark.parametrize(
    ("local", "rule"),
    [
        (SERVER.selected_by(strict()), strict()),
        (SERVER, policy("p").when(principals=["*"])),
        (SERVER, policy("p").when(namespaces=["default"])),
        (SERVER, policy("p").deny().when(not_namespaces=["default"])),
        (SERVER, policy("p")),
    ],
)
def test_plaintext_is_refused_wherever_policy_wants_an_identity(local: BuiltWorkload, rule: Policy) -> None:
    with pytest.raises(Denied):
        judge_plain(world_of(CLIENT, local, rule), local, PEER, parse_endpoint("10.0.1.1:8080"))


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_plaintext_to_our_own_listeners_is_refused(port: int) -> None:
    with pytest.raises(NoDestination, match="attempted recursive call to ourselves"):
        judge_plain(world_of(SERVER), SERVER, PEER, parse_endpoint(f"10.0.1.1:{port}"))
