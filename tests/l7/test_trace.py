"""Where a request is in a trace: read from W3C's headers and B3's, written into those that it came with."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.trace import Context, enter

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
W3C = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
MULTI = [(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", PARENT.encode())]


def entered(*fields: tuple[bytes, bytes], sampling: float = 0.0) -> tuple[Context, dict[bytes, bytes]]:
    found = list(fields)
    context = enter(found, sampling, Random(1))
    assert len({name for name, _ in found}) == len(found)
    return context, dict(found)


@pytest.mark.parametrize(
    ("fields", "sampled"),
    [
        ([W3C], True),
        ([(b"traceparent", W3C[1][:-1] + b"0")], False),
        ([(b"traceparent", f"01-{TRACE}-{PARENT}-03-later".encode())], True),
        ([(b"b3", f"{TRACE}-{PARENT}-1".encode())], True),
        ([(b"b3", f"{TRACE}-{PARENT}-0-{PARENT}".encode())], False),
        ([(b"b3", f"{TRACE}-{PARENT}-d".encode())], True),
        ([*MULTI, (b"x-b3-sampled", b"1")], True),
        ([*MULTI, (b"x-b3-sampled", b"0")], False),
        ([*MULTI, (b"x-b3-flags", b"1")], True),
        ([W3C, *MULTI, (b"x-b3-sampled", b"0")], True),
    ],
)
def test_a_span_is_below_its_callers_and_reported_as_that_has_decided(fields, sampled: bool) -> None:
    context, said = entered(*fields, (b"x", b"y"))
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, PARENT, sampled)
    assert context.span_id not in (PARENT, "0" * 16)
    flag = "1" if sampled else "0"
    assert said[b"traceparent"] == f"00-{TRACE}-{context.span_id}-0{flag}".encode()
    assert said[b"x"] == b"y"
    names = {name for name, _ in fields}
    assert (b"b3" in said) == (b"b3" in names)
    if b"b3" in said:
        assert said[b"b3"] == f"{TRACE}-{context.span_id}-{flag}-{PARENT}".encode()
    assert (b"x-b3-traceid" in said) == (b"x-b3-traceid" in names)
    if b"x-b3-traceid" in said:
        b3 = said[b"x-b3-spanid"], said[b"x-b3-parentspanid"], said[b"x-b3-sampled"]
        assert b3 == (context.span_id.encode(), PARENT.encode(), flag.encode())


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [(b"traceparent", b"")],
        [(b"traceparent", W3C[1].upper())],
        [(b"traceparent", b"ff" + W3C[1][2:])],
        [(b"traceparent", W3C[1] + b"-more")],
        [(b"traceparent", f"00-{'0' * 32}-{PARENT}-01".encode())],
        [(b"traceparent", f"00-{TRACE}-{'0' * 16}-01".encode())],
        [W3C, (b"traceparent", W3C[1].replace(b"4b", b"4c"))],
        [(b"b3", b"x")],
        [(b"b3", f"{TRACE}-{'0' * 16}".encode())],
        MULTI[:1],
        [MULTI[0], (b"x-b3-spanid", b"z" * 16)],
    ],
)
def test_what_is_malformed_begins_a_new_trace(fields) -> None:
    for sampling in (0.0, 1.0):
        context, said = entered(*fields, (b"tracestate", b"a=b"), sampling=sampling)
        assert context.trace_id != TRACE
        assert (context.parent_id, context.sampled) == ("", sampling == 1.0)
        assert b"tracestate" not in said


def test_the_state_of_a_trace_goes_with_it() -> None:
    assert entered(W3C, (b"tracestate", b"a=b"))[1][b"tracestate"] == b"a=b"


@pytest.mark.parametrize(("value", "sampled"), [(b"0", False), (b"1", True), (b"d", True)])
def test_a_decision_alone_counts_too(value: bytes, sampled: bool) -> None:
    for share in (0.0, 1.0):
        context, _ = entered((b"b3", value), sampling=share)
        assert (context.sampled, context.parent_id) == (sampled, "")
        if value != b"d":
            assert entered((b"x-b3-sampled", value), sampling=share)[0].sampled is sampled


def test_ids_of_64_bits_are_read() -> None:
    context, said = entered((b"b3", b"00f067aa0ba902b7-00f067aa0ba902b8"))
    assert context.trace_id == "0" * 16 + "00f067aa0ba902b7"
    assert said[b"traceparent"].startswith(b"00-000000000000000000f067aa0ba902b7-")


def test_a_share_is_sampled() -> None:
    rng, count = Random(7), 20_000
    sampled = sum(enter([], 0.1, rng).sampled for _ in range(count))
    assert abs(sampled - count / 10) < 5 * (count * 0.1 * 0.9) ** 0.5


NAMES = st.sampled_from([b"traceparent", b"b3", *(name for name, _ in MULTI)])


@given(st.lists(st.tuples(NAMES, st.binary(max_size=60))))
def test_anything_may_stand_there(fields) -> None:
    context = enter(fields, 0.5, Random(1))
    written = f"00-{context.trace_id}-{context.span_id}-0{int(context.sampled)}".encode()
    assert dict(fields)[b"traceparent"] == written
