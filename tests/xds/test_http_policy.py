"""Policies of waypoints survive the way there and back; one that says what cannot be compared is refused."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import Attribute, HttpAction, HttpPolicy, Term, TextKind, TextMatch
from ztunnel.xds.http_policy import parse_http_policy, render_http_policy
from ztunnel.xds.pb import http_policy_pb2 as pb

IPS = (Attribute.SOURCE_IP, Attribute.REMOTE_IP, Attribute.DESTINATION_IP)
NAMED = (Attribute.HEADER, Attribute.CLAIM)
name = st.text("abz09-", min_size=1, max_size=8)
texts = st.one_of(
    st.builds(
        TextMatch,
        st.sampled_from([it for it in TextKind if it not in (TextKind.PRESENCE, TextKind.REGEX)]),
        st.text(max_size=8),
    ),
    st.just(TextMatch(TextKind.PRESENCE)),
)
blocks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda it: IPv4Network(it, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda it: IPv6Network(it, strict=False)),
)


def values_of(attribute):
    if attribute in IPS:
        return blocks
    return st.integers(0, 65535) if attribute is Attribute.DESTINATION_PORT else texts


def terms_of(attribute):
    some = st.lists(values_of(attribute), max_size=3).map(tuple)
    argument = st.lists(name, min_size=1, max_size=2).map(tuple) if attribute in NAMED else st.just(())
    return st.builds(Term, st.just(attribute), some, some, argument)


terms = st.sampled_from(Attribute).flatmap(terms_of)
matches = st.lists(terms, max_size=3).map(tuple)
clauses = st.lists(matches, max_size=2).map(tuple)
rules = st.lists(st.lists(clauses, max_size=2).map(tuple), max_size=2).map(tuple)
policies = st.builds(
    HttpPolicy, name, name, st.sampled_from(HttpAction), rules, st.booleans(), st.text(max_size=5)
)


@given(policies)
def test_a_policy_comes_back_as_it_was(policy):
    octets = render_http_policy(policy).SerializeToString()
    assert parse_http_policy(pb.AuthorizationPolicy.FromString(octets)) == policy


def with_term(**fields):
    clause = pb.Clause(matches=[pb.Match(terms=[pb.Term(**fields)])])
    return pb.AuthorizationPolicy(name="p", namespace="ns", rules=[pb.Rule(clauses=[clause])])


def value(**fields):
    return [pb.Value(**fields)]


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (pb.AuthorizationPolicy(namespace="ns"), "needs a name"),
        (pb.AuthorizationPolicy(name="p"), "needs a name"),
        (pb.AuthorizationPolicy(name="p", namespace="ns", action=7), "unknown action 7"),
        (with_term(attribute="source.mood"), "not known here: 'source.mood'"),
        (with_term(attribute="request.headers"), "of which name"),
        (with_term(attribute="request.auth.claims"), "of which name"),
        (with_term(attribute="paths", values=value()), "paths: a comparison"),
        (with_term(attribute="paths", not_values=value(port=1)), "paths: a comparison"),
        (with_term(attribute="destination.port", values=value(exact="80")), "not a port"),
        (with_term(attribute="destination.port", values=value(port=65536)), "not a port"),
        (with_term(attribute="source.ip", values=value(exact="1.1.1.1")), "not a range"),
        (with_term(attribute="remote.ip", values=value(block=pb.Block(address=b"abc"))), "3 bytes"),
        (with_term(attribute="remote.ip", values=value(block=pb.Block(address=bytes(4), length=33))), "33"),
    ],
)
def test_what_cannot_be_compared_refuses_the_policy(untrusted, reason):
    with pytest.raises(PeerError, match=reason):
        parse_http_policy(untrusted)
