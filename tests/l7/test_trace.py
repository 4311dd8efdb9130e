"""Where a request is in a trace: read from W3C's headers and B3's, written into those that it came with."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.l7.trace import W3C as BY_W3C
from ztunnel.l7.trace import Context, Spoken, enter

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
W3C = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
MULTI = [(b"x-b3-traceid", TRACE.encode()), (b"x-b3-spanid", PARENT.encode())]


B3, B3_AND_W3C = Spoken(w3c=False, b3=True), Spoken(b3=True)


def entered(
    *fields: tuple[bytes, bytes], sampling: float = 0.0, spoken: Spoken = BY_W3C, below: bytes = b""
) -> tuple[Context, dict[bytes, bytes]]:
    found = list(fields)
    context = enter(found, sampling, Random(1), spoken, below)
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


OTHER = "5c" * 16
OTHERS = (b"traceparent", f"00-{OTHER}-{PARENT}-01".encode())
SINGLE = (b"b3", f"{TRACE}-{PARENT}-1".encode())
NEW = {b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled"}
BELOW = NEW | {b"x-b3-parentspanid"}


@pytest.mark.parametrize(
    ("spoken", "fields", "trace", "written"),
    [
        (B3, [], "", NEW),
        (B3, [OTHERS], "", NEW | {b"traceparent"}),
        (B3, [*MULTI, OTHERS], TRACE, BELOW | {b"traceparent"}),
        (B3, [SINGLE], TRACE, {b"b3"}),
        (B3, [SINGLE, *MULTI], TRACE, BELOW | {b"b3"}),
        (B3_AND_W3C, [], "", NEW | {b"traceparent"}),
        (B3_AND_W3C, [OTHERS], OTHER, BELOW | {b"traceparent"}),
        (B3_AND_W3C, [OTHERS, *MULTI], TRACE, BELOW | {b"traceparent"}),
        (B3_AND_W3C, [OTHERS, SINGLE], TRACE, {b"b3", b"traceparent"}),
        (BY_W3C, [OTHERS, SINGLE], OTHER, {b"b3", b"traceparent"}),
    ],
)
def test_headers_are_those_that_the_provider_speaks(
    spoken: Spoken, fields: list[tuple[bytes, bytes]], trace: str, written: set[bytes]
) -> None:
    """Zipkin's `traceContextOption`; a `b3` that is read is written, too (envoyproxy/envoy#47515)."""
    state = (b"tracestate", b"a=b")
    context, said = entered(*fields, state, spoken=spoken)
    assert (context.trace_id if trace else "", bool(context.parent_id)) == (trace, bool(trace))
    goes_on = not spoken.w3c or context.trace_id == OTHER
    assert said.keys() == written | ({b"tracestate"} if goes_on else set())
    if not spoken.w3c:
        assert said.get(b"traceparent", OTHERS[1]) == OTHERS[1]  # as it came
    for name in (b"x-b3-spanid", b"b3"):
        assert context.span_id.encode() in said.get(name, context.span_id.encode())


@pytest.mark.parametrize("spoken", [B3, B3_AND_W3C, BY_W3C])
def test_a_request_that_names_no_span_is_below_its_tunnels(spoken: Spoken) -> None:
    context, said = entered(spoken=spoken, below=W3C[1])
    assert (context.trace_id, context.parent_id, context.sampled) == (TRACE, PARENT, True)
    assert (b"traceparent" in said) is spoken.w3c
    assert entered(*MULTI, spoken=spoken, below=OTHERS[1])[0].trace_id == TRACE
    assert not entered((b"b3", b"0"), spoken=spoken, below=OTHERS[1])[0].sampled


def test_an_id_of_64_bits_has_16_digits_in_b3() -> None:
    """As Envoy writes it: who wants such ids has servers that know no others."""
    context, said = entered(spoken=Spoken(w3c=False, b3=True, short=True))
    assert said[b"x-b3-traceid"].decode() == context.trace_id[16:]
    assert context.trace_id[:16] == "0" * 16


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
