"""Which policies count for a tunnel, and what a refusal is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.builders import world_of
from tests.waypoint.mesh import CALLER, ME, SERVERS, SERVICE, WP
from ztunnel.errors import Flag
from ztunnel.l7.policy.authorization import Authorizations
from ztunnel.l7.policy.rule import Decision
from ztunnel.l7.request import Request
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.model.service import AppProtocol, Service
from ztunnel.state.delta import apply
from ztunnel.waypoint.chain import chain_of
from ztunnel.waypoint.rules.guard import Guard, denied, refusal


def policy(name: str, action: HttpAction, *terms: Term) -> HttpPolicy:
    return HttpPolicy(name, "shop", action, (((terms,),),) if terms else ((),))


def text(attribute: Attribute, value: str, *argument: str) -> Term:
    return Term(attribute, (TextMatch(TextKind.EXACT, value),), (), argument)


class Guarded:
    """A guard of web:80, and the world that it sees."""

    def __init__(
        self, *policies: HttpPolicy, service: tuple[str, ...] = (), own: tuple[str, ...] = ()
    ) -> None:
        wp = Service("wp", "shop", WP.hostname, guards=own)
        self.world = world_of(ME, CALLER, *SERVERS, replace(SERVICE, guards=service), wp, *policies)
        self.guard = self.of("10.1.0.1:80")

    def of(self, authority: str, hops: int = 0) -> Guard:
        chain = chain_of(self.world, ME, parse_endpoint(authority))
        calls = Connection(Endpoint(CALLER.addresses[0], 1), chain.destination, CALLER.identity)
        return Guard(Authorizations(), ME.uid, chain, calls, hops)

    def asks(self, *fields: tuple[bytes, bytes]) -> Decision:
        return self.guard.judge(self.world, Request(b"GET", b"web", b"/", list(fields)))


DENY = policy("p", HttpAction.DENY)


@pytest.mark.parametrize(
    ("names", "allowed"),
    [
        ({}, True),
        ({"service": ("shop/p",)}, False),
        ({"own": ("shop/p",)}, False),
        ({"service": ("shop/lost",)}, False),
    ],
)
def test_policies_of_what_is_called_and_of_the_waypoint_count(names: dict, allowed: bool) -> None:
    it = Guarded(DENY, **names)
    assert it.asks().allowed is allowed
    assert it.guard.judge_connection(it.world).allowed is allowed


def test_those_of_another_service_do_not() -> None:
    it = Guarded(DENY, policy("q", HttpAction.DENY), service=("shop/q",))
    assert it.asks().policy == "shop/q"


def test_who_calls_is_who_has_proved_it() -> None:
    identity = CALLER.identity.principal
    it = Guarded(policy("p", HttpAction.ALLOW, text(Attribute.PRINCIPAL, identity)), service=("shop/p",))
    assert it.asks().allowed
    other = CALLER.identity.principal.replace("caller", "other")
    it = Guarded(policy("p", HttpAction.ALLOW, text(Attribute.PRINCIPAL, other)), service=("shop/p",))
    claim = f"By=x;URI=spiffe://{other}".encode()
    assert not it.asks((b"x-forwarded-client-cert", claim), (b"forwarded", b"for=10.0.0.9")).allowed


def test_so_many_proxies_are_believed_as_the_waypoint_is_told() -> None:
    rule = Term(Attribute.REMOTE_IP, (ip_network("192.0.2.1"),))
    it = Guarded(policy("p", HttpAction.ALLOW, rule), service=("shop/p",))
    chain = [(b"x-forwarded-for", b"192.0.2.1, 198.51.100.1")]
    for hops, allowed in ((0, False), (1, True), (2, False)):
        request = Request(b"GET", b"web", b"/", list(chain))
        assert it.of("10.1.0.1:80", hops).judge(it.world, request).allowed is allowed


def test_the_port_is_the_services_as_it_was_called() -> None:
    for port, allowed in ((80, True), (8080, False)):
        rule = policy("p", HttpAction.ALLOW, Term(Attribute.DESTINATION_PORT, (port,)))
        assert Guarded(rule, service=("shop/p",)).asks().allowed is allowed


def test_the_name_in_tls_is_not_known_but_where_there_is_none() -> None:
    for protocol, allowed in ((AppProtocol.TCP, True), (AppProtocol.TLS, False), (None, False)):
        it = Guarded(policy("p", HttpAction.DENY, text(Attribute.SNI, "web")), service=("shop/p",))
        protocols = ((80, protocol),) if protocol else ()
        it.world, _ = apply(it.world, [replace(SERVICE, guards=("shop/p",), protocols=protocols)])
        assert it.of("10.1.0.1:80").judge_connection(it.world).allowed is allowed


def test_a_change_is_one_only_where_other_policies_count() -> None:
    it = Guarded(DENY, service=("shop/p",))
    assert not it.guard.changed(it.world)
    it.asks()
    assert not it.guard.changed(it.world)
    it.world, _ = apply(it.world, [policy("unrelated", HttpAction.DENY)])
    assert not it.guard.changed(it.world)
    it.world, _ = apply(it.world, [policy("p", HttpAction.ALLOW)])
    assert it.guard.changed(it.world)
    assert it.asks().allowed
    it.world, _ = apply(it.world, [replace(SERVICE, guards=("shop/p", "shop/unrelated"))])
    assert it.guard.changed(it.world)
    assert not it.asks().allowed


@pytest.mark.parametrize(
    ("decision", "flag", "text", "policy"),
    [
        (Decision(False, "a/b", 1, "details"), "-", "explicitly denied by: a/b", "a/b"),
        (Decision(False, details="details"), "-", "allow policies exist, but none allowed", "none allowed"),
        (Decision(False, "a/b", 0, "details", "CUSTOM"), "UAEX", "CUSTOM", "a/b"),
        (Decision(False, "a/b", -1, "details", "not received"), "-", "not received", "a/b"),
    ],
)
def test_a_refusal_says_who_refuses(decision: Decision, flag: str, text: str, policy: str) -> None:
    reply = refusal(decision)
    assert (reply.status, reply.flag, reply.details) == (403, flag, "details")
    assert reply.body == "RBAC: access denied"
    error = denied(decision)
    assert str(error) == f"connection closed due to policy rejection: {text}"
    assert (error.policy, error.details, error.flag) == (policy, "details", Flag.DENY)
    assert "policy change" in str(denied(decision, "policy change"))
