"""Replies of our own."""

from __future__ import annotations

import pytest

from ztunnel.l7 import reply


def test_a_reply_is_text_that_says_its_length() -> None:
    fields, body = reply.render(reply.NO_HEALTHY_UPSTREAM, grpc=False)
    assert dict(fields)[b":status"] == b"503"
    assert dict(fields)[b"content-length"] == b"%d" % len(body)
    assert body == b"no healthy upstream"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (reply.NO_HEALTHY_UPSTREAM, b"14"),
        (reply.NO_ROUTE, b"12"),
        (reply.BAD_PATH, b"13"),
        (reply.UPSTREAM_PROTOCOL_ERROR, b"14"),
        (reply.IDLE, b"2"),
        (reply.TIMEOUT, b"4"),
        (reply.TRY_TIMEOUT, b"4"),
    ],
)
def test_grpc_clients_get_a_200_with_their_status(said, code) -> None:
    fields, body = reply.render(said, grpc=True)
    assert dict(fields)[b":status"] == b"200"
    assert dict(fields)[b"grpc-status"] == code
    assert body == b""


def test_what_a_message_says_stays_on_its_line() -> None:
    said = reply.CONNECT_FAILED.because("a\r\nb: 100%")
    assert "a_b:_100%" in said.details
    message = dict(reply.render(said, grpc=True)[0])[b"grpc-message"]
    assert message.endswith(b"a%0D%0Ab: 100%25")


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_has_no_length(status) -> None:
    fields, body = reply.render(reply.Reply(status, "-", "direct_response", "text"), grpc=False)
    assert (dict(fields).get(b"content-length"), body) == (None, b"")


def test_a_reply_has_its_own_fields_body_and_status_of_grpc() -> None:
    said = reply.Reply(200, "FI", "x", fields=((b"location", b"/a"),), payload=b"\xff", grpc_status=0)
    fields, body = reply.render(said, grpc=False)
    assert (dict(fields)[b"location"], body) == (b"/a", b"\xff")
    assert dict(reply.render(said, grpc=True)[0])[b"grpc-status"] == b"0"


def test_overflow_says_so_in_a_field() -> None:
    assert (b"x-envoy-overloaded", b"true") in reply.render(reply.OVERFLOW, grpc=False)[0]


@pytest.mark.parametrize(("status", "details"), [(431, "http1.headers_too_large"), (426, "low_version")])
def test_refusals_of_the_reader_have_their_details(status, details) -> None:
    found = reply.of_codec(status)
    assert (found.status, found.details) == (status, details)
    assert found.close


def test_any_other_is_an_error_of_the_codec() -> None:
    assert (reply.of_codec(501).status, reply.of_codec(501).flag) == (501, "DPE")
    assert reply.of_codec(0).status == 400


FOREIGN = ((b"content-type", b"text/html"), (b"x", b"y"))


def test_headers_of_somebody_elses_answer_stand_in_the_place_of_ours():
    one = reply.Reply(
        401, "UAEX", "d", fields=((b"content-type", b"text/html"), (b"x", b"y")), payload=b"<p>"
    )
    fields, body = reply.render(one, grpc=False)
    assert [value for name, value in fields if name == b"content-type"] == [b"text/html"]
    assert (b"x", b"y") in fields
    assert body == b"<p>"
    fields, body = reply.render(one, grpc=True)
    assert [value for name, value in fields if name == b"content-type"] == [b"application/grpc"]
    assert (b"grpc-status", b"16") in fields
    assert (b"x", b"y") in fields
    assert body == b""
