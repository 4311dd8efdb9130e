"""Rate limits survive the way there and back."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.errors import PeerError
from ztunnel.model.http_policy import Attribute, Term, TextKind, TextMatch
from ztunnel.model.rate_limit import (
    Descriptor,
    Entry,
    GlobalLimit,
    Limit,
    LimitKey,
    LocalRule,
    RateLimitPolicy,
)
from ztunnel.xds.pb import http_policy_pb2
from ztunnel.xds.pb import rate_limit_pb2 as pb
from ztunnel.xds.rate_limit import parse_rate_limit, render_rate_limit
from ztunnel.xds.resource import RATE_LIMIT, parse, render

name = st.text("abz09-", min_size=1, max_size=8)
text = st.text(max_size=8)
count = st.integers(0, 2**32 - 1)
seconds = st.floats(0.001, 1e6)
texts = [kind for kind in TextKind if kind not in (TextKind.REGEX, TextKind.PRESENCE)]
match = st.builds(TextMatch, st.sampled_from(texts), text) | st.sampled_from(
    [TextMatch(TextKind.REGEX, "a(b|c)+"), TextMatch(TextKind.PRESENCE)]
)
blocks = st.sampled_from([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])


def many(one: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(one, max_size=2).map(tuple)


terms = st.builds(
    Term, st.sampled_from([Attribute.PATH, Attribute.NAMESPACE]), many(match), many(match)
) | st.builds(Term, st.just(Attribute.SOURCE_IP), many(blocks), many(blocks))
keys = st.builds(LimitKey, st.just(Attribute.HEADER), st.tuples(name)) | st.just(LimitKey(Attribute.PATH))
rules = st.builds(
    LocalRule, text, st.builds(Limit, count, seconds, count), many(terms), many(keys), st.booleans()
)
entries = st.builds(Entry, text, text, st.none() | keys)
services = st.builds(
    GlobalLimit,
    name,
    st.integers(1, 65535),
    text,
    many(st.builds(Descriptor, many(entries), many(terms))),
    seconds,
    st.booleans(),
    count,
)
policies = st.builds(
    RateLimitPolicy, name, name, many(text), many(rules), st.none() | services, st.booleans(), st.booleans()
)


@given(policies)
def test_what_is_rendered_is_parsed(policy: RateLimitPolicy) -> None:
    assert parse_rate_limit(render_rate_limit(policy)) == policy
    assert parse(RATE_LIMIT, render(policy, ""), "") == policy


GOOD = RateLimitPolicy(
    "p", "shop", rules=(LocalRule("r", Limit(1, 1.0)),), service=GlobalLimit("h", 1, "d", ())
)
BAD_TERM = http_policy_pb2.Term(attribute="paths", values=[http_policy_pb2.Value(regex="a(")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it.ClearField("name"), "needs a name"),
        (lambda it: it.ClearField("namespace"), "needs a name"),
        (lambda it: it.rules[0].ClearField("limit"), "no limit"),
        (lambda it: setattr(it.rules[0].limit, "seconds", float("nan")), "no limit"),
        (lambda it: it.rules[0].keys.add(attribute="request.headers"), "of which name"),
        (lambda it: it.rules[0].keys.add(attribute="x"), "'x'"),
        (lambda it: it.rules[0].terms.append(BAD_TERM), "not a regular expression"),
        (lambda it: it.rules[0].terms.add(attribute="x"), "not known here"),
        (lambda it: it.service.ClearField("host"), "no service"),
        (lambda it: setattr(it.service, "port", 70000), "no service"),
        (lambda it: setattr(it.service, "timeout_seconds", -1.0), "no timeout"),
    ],
)
def test_what_makes_no_sense_is_refused(change, said: str) -> None:
    message = pb.RateLimitPolicy()
    message.CopyFrom(render_rate_limit(GOOD))
    assert parse_rate_limit(message) == GOOD
    change(message)
    with pytest.raises(PeerError, match=said):
        parse_rate_limit(message)
