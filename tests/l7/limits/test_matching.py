"""Which requests a limit is for, and what they are told apart by."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ztunnel.l7.limits.matching import Terms, value_of
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.request import Request
from ztunnel.model.address import Endpoint
from ztunnel.model.connection import Connection
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.identity import SpiffeId
from ztunnel.model.rate_limit import LimitKey

ALICE = SpiffeId("cluster.local", "shop", "alice")


def calls(ip: str = "10.0.0.2", identity: SpiffeId | None = ALICE) -> Connection:
    return Connection(Endpoint(ip_address(ip), 1), Endpoint(ip_address("10.1.0.1"), 80), identity)


def asks(
    path: str = "/a?b", method: str = "GET", claims: dict[str, Any] | None = None, **fields: str
) -> Attributes:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    request = Request(method.encode(), b"web", path.encode(), named)
    request.claims = claims or {}
    return Attributes(request, ip_address("10.0.0.2"))


def text(attribute: Attribute, value: str, *argument: str, kind: TextKind = TextKind.EXACT) -> Term:
    return Term(attribute, (TextMatch(kind, value),), (), argument)


HEADER, PATH, METHOD, CLAIM = Attribute.HEADER, Attribute.PATH, Attribute.METHOD, Attribute.CLAIM


@pytest.mark.parametrize(
    ("terms", "holds"),
    [
        ((), True),
        ((text(HEADER, "x", "x-user"),), True),
        ((text(HEADER, "y", "x-user"),), False),
        ((text(HEADER, "x|y", "x-user", kind=TextKind.REGEX),), True),
        ((text(HEADER, "y+", "x-user", kind=TextKind.REGEX),), False),
        ((text(HEADER, "x", "x-other"),), False),
        ((Term(HEADER, (), (TextMatch(TextKind.EXACT, "x"),), ("x-user",)),), False),
        ((Term(HEADER, (), (TextMatch(TextKind.PRESENCE),), ("x-other",)),), True),
        ((text(PATH, "/a"), text(METHOD, "GET")), True),
        ((text(PATH, "/a"), text(METHOD, "POST")), False),
        ((text(PATH, "/", kind=TextKind.PREFIX),), True),
        ((text(Attribute.PRINCIPAL, "cluster.local/ns/shop/sa/alice"),), True),
        ((text(Attribute.NAMESPACE, "shop"), text(PATH, "/a")), True),
        ((text(Attribute.NAMESPACE, "other"), text(PATH, "/a")), False),
        ((Term(Attribute.SOURCE_IP, (ip_network("10.0.0.0/8"),)),), True),
        ((Term(Attribute.SOURCE_IP, (ip_network("fd00::/8"),)),), False),
        ((Term(Attribute.SOURCE_IP, (), (ip_network("10.0.0.0/8"),)),), False),
        ((text(CLAIM, "admin", "role"),), True),
        ((text(CLAIM, "guest", "role"),), False),
    ],
)
def test_all_terms_have_to_hold(terms: tuple[Term, ...], holds: bool) -> None:
    asked = asks(x_user="x", claims={"role": ["user", "admin"]})
    assert Terms(terms).hold(asked, calls()) is holds


def test_v6_is_an_address_as_well() -> None:
    term = Terms([Term(Attribute.SOURCE_IP, (ip_network("fd00::/8"),))])
    assert term.hold(asks(), calls("fd00::1"))
    assert value_of(LimitKey(Attribute.SOURCE_IP), asks(), calls("fd00::1")) == "fd00::1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (LimitKey(HEADER, ("x-user",)), "x"),
        (LimitKey(HEADER, ("x-empty",)), ""),
        (LimitKey(HEADER, ("x-other",)), None),
        (LimitKey(CLAIM, ("role",)), "user,admin"),
        (LimitKey(CLAIM, ("realm", "id")), "7"),
        (LimitKey(CLAIM, ("sub",)), None),
        (LimitKey(PATH), "/a"),
        (LimitKey(METHOD), "GET"),
        (LimitKey(Attribute.SOURCE_IP), "10.0.0.2"),
        (LimitKey(Attribute.PRINCIPAL), "cluster.local/ns/shop/sa/alice"),
        (LimitKey(Attribute.NAMESPACE), "shop"),
    ],
)
def test_what_a_request_is_told_apart_by(key: LimitKey, value: str | None) -> None:
    asked = asks(x_user="x", x_empty="", claims={"role": ["user", "admin"], "realm": {"id": "7"}})
    assert value_of(key, asked, calls()) == value


def test_who_has_proved_nothing_has_no_principal() -> None:
    for attribute in (Attribute.PRINCIPAL, Attribute.NAMESPACE):
        assert value_of(LimitKey(attribute), asks(), calls(identity=None)) is None
