"""Policies survive the way there and back; one that says what we cannot compare is refused whole."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.policy import (
    Action,
    Match,
    MatchKind,
    Policy,
    PolicyScope,
    ServiceAccountMatch,
    StringMatch,
)
from ztunnel.xds.pb import authorization_pb2 as pb
from ztunnel.xds.policy import parse_policy, render_policy

name = st.text("abz09-", min_size=1, max_size=8)
comparing = [MatchKind.EXACT, MatchKind.PREFIX, MatchKind.SUFFIX]
texts = st.lists(
    st.one_of(
        st.builds(StringMatch, st.sampled_from(comparing), st.text(max_size=8)),
        st.just(StringMatch(MatchKind.PRESENCE)),
    ),
    max_size=2,
).map(tuple)
blocks = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
            lambda it: IPv4Network(it, strict=False)
        ),
        st.tuples(st.integers(2**120, 2**128 - 1), st.integers(0, 128)).map(
            lambda it: IPv6Network(it, strict=False)
        ),
    ),
    max_size=2,
).map(tuple)
accounts = st.lists(st.builds(ServiceAccountMatch, name, name), max_size=2).map(tuple)
ports = st.lists(st.integers(0, 65535), max_size=2).map(tuple)
matches = st.builds(
    Match, texts, texts, texts, texts, accounts, accounts, blocks, blocks, blocks, blocks, ports, ports
)
clauses = st.lists(matches, max_size=2).map(tuple)
rules = st.lists(st.lists(clauses, max_size=2).map(tuple), max_size=2).map(tuple)
policies = st.builds(
    Policy, name, name, st.sampled_from(PolicyScope), st.sampled_from(Action), rules, st.booleans()
)


@given(policies)
def test_a_policy_comes_back_as_it_was(policy):
    assert parse_policy(pb.Authorization.FromString(render_policy(policy).SerializeToString())) == policy


def with_match(**fields):
    clause = pb.Clause(matches=[pb.Match(**fields)])
    return pb.Authorization(name="p", namespace="ns", rules=[pb.Rule(clauses=[clause])])


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (pb.Authorization(namespace="ns"), "needs a name"),
        (pb.Authorization(name="p"), "needs a name"),
        (pb.Authorization(name="p", namespace="ns", action=7), "unknown Action 7"),
        (pb.Authorization(name="p", namespace="ns", scope=7), "unknown PolicyScope 7"),
        (with_match(principals=[pb.StringMatch()]), "kind that is not known"),
        (with_match(source_ips=[pb.Address(address=b"123", length=8)]), "not a range"),
        (with_match(source_ips=[pb.Address(address=b"1234", length=33)]), "not a range"),
        (with_match(destination_ports=[65536]), "at most 65535"),
    ],
)
def test_a_policy_that_cannot_be_compared_is_refused(untrusted, reason):
    with pytest.raises(PeerError, match=reason):
        parse_policy(untrusted)


def test_a_mapped_range_is_the_range_it_maps():
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 1, 2, 3])
    policy = parse_policy(with_match(source_ips=[pb.Address(address=mapped, length=104)]))
    assert policy.rules[0][0][0].source_ips == (IPv4Network("10.0.0.0/8"),)
