"""What a rate limit service is asked, and what its answers mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.reply import render as rendered
from ztunnel.model.rate_limit import GlobalLimit, RateLimitPolicy
from ztunnel.waypoint.rules.limit_service import Answer, parse, refusal, render
from ztunnel.xds.pb import limit_service_pb2 as pb

LIMIT = GlobalLimit("rls", 8081, "shop", (), hits=3)
POLICY = RateLimitPolicy("p", "shop", service=LIMIT)
CODE = pb.RateLimitResponse.Code
UNIT = pb.RateLimitResponse.RateLimit.Unit


def test_what_is_asked() -> None:
    found = pb.RateLimitRequest.FromString(
        render(LIMIT, [[("PATH", "/a"), ("user", "x")], [("k", "\udcff")]])
    )
    assert (found.domain, found.hits_addend) == ("shop", 3)
    told = [[(entry.key, entry.value) for entry in one.entries] for one in found.descriptors]
    assert told == [[("PATH", "/a"), ("user", "x")], [("k", "\ufffd")]]


@pytest.mark.parametrize(("code", "limited"), [("OK", False), ("OVER_LIMIT", True), ("UNKNOWN", False)])
def test_what_is_answered(code: str, limited: bool) -> None:
    found = parse(pb.RateLimitResponse(overall_code=CODE.Value(code), raw_body=b"no").SerializeToString())
    assert found == Answer(limited, (), (), (), b"no")


@given(st.binary(max_size=64))
def test_garbage_is_no_answer(untrusted: bytes) -> None:
    found = parse(untrusted)
    assert found is None or isinstance(found, Answer)
    assert parse(b"\x08") is None


def header(key: str, value: str = "", raw: bytes = b"") -> pb.HeaderValue:
    return pb.HeaderValue(key=key, value=value, raw_value=raw)


def test_fields_that_would_make_another_message_are_not_added() -> None:
    bad = [
        header("content-length", "0"), header("Transfer-Encoding", "chunked"), header("connection", "x"),
        header(":status", "200"), header("a b", "c"), header("a", "b\r\nc: d"), header("host", "x"),
        header("x-forwarded-client-cert", "x"), header("", "x"),
    ]  # fmt: skip
    good = [header("X-A", "1"), header("x-b", raw=b"\xff")]
    found = parse(
        pb.RateLimitResponse(
            response_headers_to_add=[*bad, *good], request_headers_to_add=[*good, *bad]
        ).SerializeToString()
    )
    assert found is not None
    assert found.response == found.request == ((b"x-a", b"1"), (b"x-b", b"\xff"))
    many = [header(f"x-{number}", "1") for number in range(100)]
    found = parse(pb.RateLimitResponse(response_headers_to_add=many).SerializeToString())
    assert found is not None
    assert len(found.response) == 32


def test_limits_are_told_as_envoy_tells_them() -> None:
    limits = [
        pb.RateLimitResponse.RateLimit(requests_per_unit=10, unit=UNIT.MINUTE, name='per "user"'),
        pb.RateLimitResponse.RateLimit(requests_per_unit=1000, unit=UNIT.HOUR),
        pb.RateLimitResponse.RateLimit(requests_per_unit=5, unit=UNIT.UNKNOWN, name="\u00fc"),
    ]
    statuses = [
        pb.RateLimitResponse.DescriptorStatus(code=CODE.OK, current_limit=limit, limit_remaining=left)
        for limit, left in zip(limits, (2, 500, 4), strict=True)
    ]
    statuses[0].duration_until_reset.seconds = 42
    statuses.append(pb.RateLimitResponse.DescriptorStatus(code=CODE.OK))
    found = parse(pb.RateLimitResponse(statuses=statuses).SerializeToString())
    assert found is not None
    assert found.told == (
        (b"x-ratelimit-limit", b'10, 10;w=60;name="per user", 1000;w=3600'),
        (b"x-ratelimit-remaining", b"2"),
        (b"x-ratelimit-reset", b"42"),
    )


def test_a_refusal_has_the_body_of_the_service_and_else_none() -> None:
    fields, body = rendered(refusal(POLICY, Answer(True, (), (), (), b"slow down")), grpc=False)
    assert body == b"slow down"
    assert (b":status", b"429") in fields
    assert (b"x-envoy-ratelimited", b"true") in fields
    reply = refusal(POLICY, Answer(True, (), (), (), b""))
    assert (reply.flag, reply.details) == ("RL", "request_rate_limited")
    assert rendered(reply, grpc=False)[1] == b""
    assert (b"grpc-status", b"14") in rendered(reply, grpc=True)[0]
    exhausted = refusal(replace(POLICY, exhausted=True), Answer(True, (), (), (), b""))
    assert (b"grpc-status", b"8") in rendered(exhausted, grpc=True)[0]
