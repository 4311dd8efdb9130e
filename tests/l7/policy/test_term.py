"""Terms that hold of a connection or of a request; every attribute is in test_authorization.py."""

from ipaddress import ip_address

import pytest

from tests.builders import connection
from ztunnel.l7.policy.attributes import Attributes
from ztunnel.l7.policy.term import CompiledTerm
from ztunnel.l7.request import Request
from ztunnel.model.http_policy import CONNECTION_ATTRIBUTES, Attribute, HttpAction, Term, TextKind, TextMatch


@pytest.mark.parametrize("attribute", list(Attribute))
def test_a_term_without_values_holds(attribute):
    term = CompiledTerm(Term(attribute, argument=("a",)), HttpAction.ALLOW)
    assert term.of_connection is (attribute in CONNECTION_ATTRIBUTES)
    if term.of_connection:
        assert term.holds_of_connection(connection("10.0.0.1:1", "10.0.0.2:80"), "")
    else:
        assert term.holds_of_request(Attributes(Request(b"GET", b"h", b"/", []), ip_address("fd00::1")))


@pytest.mark.parametrize(
    ("host", "bare"),
    [
        (b"web:80", "web"),
        (b"web", "web"),
        (b"web.", "web"),
        (b"[fd00::1]:80", "[fd00::1]"),
        (b"[fd00::1]", "[fd00::1]"),
        (b"web:x", "web:x"),
    ],
)
def test_what_refuses_by_a_name_takes_it_without_its_port(host, bare):
    term = Term(Attribute.HOST, (TextMatch(TextKind.EXACT, bare),))
    request = Attributes(Request(b"GET", host, b"/", []), ip_address("fd00::1"))
    assert CompiledTerm(term, HttpAction.DENY).holds_of_request(request)
    assert CompiledTerm(term, HttpAction.ALLOW).holds_of_request(request) is (host.decode() == bare)
