"""RequestAuthentications survive the way there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.jwt import ClaimHeader, JwtPolicy, JwtRule, TokenHeader
from ztunnel.xds.jwt_policy import parse_jwt_policy, render_jwt_policy
from ztunnel.xds.pb import jwt_policy_pb2 as pb
from ztunnel.xds.resource import JWT_POLICY, parse, render

name = st.text("abz09-", min_size=1, max_size=8)
texts = st.text(max_size=8)
many = st.lists(texts, max_size=3).map(tuple)
rules = st.builds(
    JwtRule,
    issuer=texts,
    audiences=many,
    keys=texts,
    keys_url=texts,
    headers=st.lists(st.builds(TokenHeader, name, texts), max_size=2).map(tuple),
    params=many,
    cookies=many,
    payload_header=st.just("") | name,
    claim_headers=st.lists(st.builds(ClaimHeader, name, texts), max_size=2).map(tuple),
    forward=st.booleans(),
    space_delimited=many,
)
policies = st.builds(JwtPolicy, name, name, st.lists(rules, max_size=3).map(tuple))


@given(policies)
def test_what_is_rendered_is_parsed(policy: JwtPolicy) -> None:
    assert parse_jwt_policy(render_jwt_policy(policy)) == policy
    assert parse(JWT_POLICY, render(policy, ""), "") == policy


@pytest.mark.parametrize(
    "message",
    [
        pb.RequestAuthentication(),
        pb.RequestAuthentication(name="a"),
        pb.RequestAuthentication(namespace="a"),
        pb.RequestAuthentication(name="a", namespace="b", rules=[pb.JwtRule(headers=[pb.TokenHeader()])]),
        pb.RequestAuthentication(
            name="a", namespace="b", rules=[pb.JwtRule(claim_headers=[pb.ClaimHeader()])]
        ),
    ],
)
def test_what_names_nothing_is_refused(message: pb.RequestAuthentication) -> None:
    with pytest.raises(PeerError):
        parse_jwt_policy(message)


def test_names_of_headers_have_one_case() -> None:
    rule = pb.JwtRule(
        headers=[pb.TokenHeader(name="X-A")],
        payload_header="X-B",
        claim_headers=[pb.ClaimHeader(header="X-C", claim="Sub")],
    )
    (found,) = parse_jwt_policy(pb.RequestAuthentication(name="a", namespace="b", rules=[rule])).rules
    assert (found.headers[0].name, found.payload_header) == ("x-a", "x-b")
    assert found.claim_headers == (ClaimHeader("x-c", "Sub"),)
