"""The fields of calls."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.rpc import fields
from ztunnel.rpc.status import Code, RpcError


def raw(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


GOOD = [
    (":method", "POST"),
    (":scheme", "https"),
    (":path", "/a/B"),
    (":authority", "h:1"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


def test_a_request_comes_back() -> None:
    sent = fields.request("/a/B", "h:1", {"authorization": "Bearer x", "clusterid": "K"}, "me", 1.5)
    got = fields.parse_request(raw(*sent))
    assert (got.path, got.timeout_seconds) == ("/a/B", 1.5)
    assert got.metadata == {"authorization": "Bearer x", "clusterid": "K"}
    assert sent[:4] == [GOOD[0], GOOD[1], GOOD[2], GOOD[3]]


def test_metadata_that_came_twice_is_one_with_commas() -> None:
    got = fields.parse_request(raw(*GOOD, ("x", "1"), ("x", "2")))
    assert got.metadata == {"x": "1,2"}


@pytest.mark.parametrize("name", ["X", ":path", "grpc-timeout", "te", "content-type", "a b", "", "host", "é"])
def test_metadata_that_is_none_is_not_sent(name: str) -> None:
    with pytest.raises(RpcError, match="cannot be the name"):
        fields.request("/a/B", "h", {name: "secret"}, "me", None)


@pytest.mark.parametrize("value", ["a\nb", "\0", "é", "tab\t"])
def test_a_value_that_http_cannot_carry_is_not_sent_and_not_shown(value: str) -> None:
    with pytest.raises(RpcError, match="not printable ASCII") as refused:
        fields.request("/a/B", "h", {"authorization": "Bearer " + value}, "me", None)
    assert value not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ((":method", "GET"), (":status", "405")),
        (("content-type", "application/json"), (":status", "415")),
        (("content-type", "application/grpcfoo"), (":status", "415")),
        (("grpc-timeout", "soon"), ("grpc-status", "13")),
    ],
)
def test_what_is_no_call_is_refused(change: tuple[str, str], answer: tuple[str, str]) -> None:
    changed = [pair for pair in GOOD if pair[0] != change[0]] + [change]
    with pytest.raises(fields.Refused) as refused:
        fields.parse_request(raw(*changed))
    assert answer in refused.value.fields


@pytest.mark.parametrize("kind", ["", "+proto", ";charset=utf-8"])
def test_content_types_of_calls(kind: str) -> None:
    changed = [pair for pair in GOOD if pair[0] != "content-type"] + [
        ("content-type", "application/grpc" + kind)
    ]
    assert fields.parse_request(raw(*changed)).path == "/a/B"


@pytest.mark.parametrize(
    ("head", "ended", "code"),
    [
        ([(":status", "503")], True, Code.UNAVAILABLE),
        ([(":status", "404"), ("content-type", "text/html")], False, Code.UNIMPLEMENTED),
        ([(":status", "²")], False, Code.UNKNOWN),
        ([(":status", "200"), ("content-type", "text/html")], False, Code.UNKNOWN),
        ([(":status", "200"), ("content-type", "application/grpc")], True, Code.UNKNOWN),
        (
            [(":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")],
            False,
            Code.UNIMPLEMENTED,
        ),
    ],
)
def test_an_answer_that_is_none_has_a_code(head: list[tuple[str, str]], ended: bool, code: Code) -> None:
    with pytest.raises(RpcError) as refused:
        fields.parse_response(raw(*head), ended)
    assert refused.value.code is code


def test_an_answer_of_trailers_only() -> None:
    error = RpcError(Code.UNAUTHENTICATED, "no tokén")
    _, got = fields.parse_response(raw(*fields.trailers_only(error)), ended=True)
    assert got is not None
    assert (got.code, got.message) == (Code.UNAUTHENTICATED, "no tokén")


def test_trailers_come_back() -> None:
    assert fields.parse_trailers(raw(*fields.trailers(None))) is None
    got = fields.parse_trailers(raw(*fields.trailers(RpcError(Code.ABORTED, "x"))))
    assert got is not None
    assert got.code is Code.ABORTED
    missing = fields.parse_trailers([])
    assert missing is not None
    assert missing.code is Code.UNKNOWN


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_any_fields_give_a_call_or_a_refusal(untrusted: list[tuple[bytes, bytes]]) -> None:
    with suppress(fields.Refused):
        fields.parse_request([*raw(*GOOD[:1]), *untrusted])
