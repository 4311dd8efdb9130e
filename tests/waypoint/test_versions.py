"""Requests and responses over all four pairs of versions: the same message arrives, or none."""

from __future__ import annotations

import pytest

from tests.waypoint.test_downstream1 import ALL, GET
from tests.waypoint.versions import Asked, Between, Client2, Told
from ztunnel.http2.fields import push_fields
from ztunnel.http2.frame import (
    DEFAULT_FRAME_BYTES,
    END_STREAM,
    Code,
    Frame,
    push_frame,
    push_headers,
    push_reset,
)

PAIRS = [(1, 1), (1, 2), (2, 1), (2, 2)]
every_pair = pytest.mark.parametrize(("down", "up"), PAIRS, ids=[f"{one} to {two}" for one, two in PAIRS])
ours = {b"x-forwarded-proto", b"x-request-id", b"x-istio-source"}


def both(found: tuple[Asked | None, Asked | None]) -> tuple[Asked, Asked]:
    asked, told = found
    assert asked is not None
    assert told is not None
    return asked, told


@every_pair
def test_a_request_and_its_response(down: int, up: int) -> None:
    mesh = Between(down, up, Told(fields=[(b"server", b"mine"), (b"x", b"a\tb\xff")], body=b"hello"))
    for path in (b"/x?y=z", b"/again"):
        asked, told = both(mesh.ask(path=path, fields=[(b"accept", b"*/*"), (b"te", b"trailers")]))
        assert asked.whole
        said = {name: value for name, value in asked.fields.items() if name not in ours}
        expected = {b":method": b"GET", b":path": path, b":authority": b"a", b"accept": b"*/*"}
        also = {b":scheme": b"http", b"te": b"trailers"} if up == 2 else {b"host": b"a"}
        assert said == {**expected, **also}
        assert (told.fields[b":status"], bytes(told.body), told.whole) == (b"200", b"hello", True)
        assert (told.fields[b"server"], told.fields[b"x"]) == (b"mine", b"a\tb\xff")
        assert told.fields[b"content-length"] == b"5"
    assert len(mesh.servers) == 1
    assert [each.flag for each in mesh.ended_] == ["-", "-"]
    assert not mesh.client.wire.over


@every_pair
@pytest.mark.parametrize("body", [b"", b"x", b"abc" * 200_000], ids=len)
def test_bodies_with_and_without_a_length(down: int, up: int, body: bytes) -> None:
    for told in (Told(body=body), Told(body=body, length=False)):
        mesh = Between(down, up, told)
        asked, answer = both(mesh.ask(b"POST", fields=[(b"content-length", b"%d" % len(body))], body=body))
        assert (bytes(asked.body), bytes(answer.body)) == (body, body)
        assert asked.fields[b"content-length"] == b"%d" % len(body)
        assert (asked.whole, answer.whole) == (True, True)
        assert (mesh.ended_[0].received_bytes, mesh.ended_[0].sent_bytes) == (len(body), len(body))
        wires = [mesh.client.wire, *(each.wire for each in mesh.servers)]
        assert all(wire.took == wire.given for wire in wires)


@every_pair
def test_trailers_both_ways_and_none_that_frame_or_route(down: int, up: int) -> None:
    said = [(b"x-sum", b"1"), (b"authorization", b"evil"), (b"x-forwarded-client-cert", b"evil")]
    answered = [(b"grpc-status", b"0"), (b"set-cookie", b"evil"), (b"content-type", b"evil")]
    mesh = Between(down, up, Told(body=b"abc", trailers=answered))
    asked, told = both(mesh.ask(b"POST", body=b"abc", trailers=said))
    assert (bytes(asked.body), asked.trailers) == (b"abc", [(b"x-sum", b"1")])
    assert (bytes(told.body), told.trailers) == (b"abc", [(b"grpc-status", b"0")])
    assert mesh.ended_[0].grpc_status == "0"


@every_pair
@pytest.mark.parametrize("size", [65_534, 65_535, 65_536, 131_070])
def test_trailers_are_not_lost_where_a_body_fills_a_window(down: int, up: int, size: int) -> None:
    """envoyproxy/envoy#40821: a call of gRPC whose answer was 65,535 bytes had no status."""
    mesh = Between(down, up, Told(body=bytes(size), trailers=[(b"grpc-status", b"0")]))
    _, told = both(mesh.ask(b"POST", body=b"x"))
    assert (len(told.body), told.trailers, told.whole) == (size, [(b"grpc-status", b"0")], True)


@every_pair
def test_a_response_that_does_not_come_after_an_interim_one_is_504(down: int, up: int) -> None:
    """envoyproxy/envoy#12131: the client was cut off, as its response seemed to have begun."""
    said = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    frames = head((b":status", b"100")) + head((b":status", b"103"), (b"link", b"x"))
    mesh = Between(down, up, Told(raw=said if up == 1 else frames))
    mesh.timeout_seconds = 1.0
    expects = [(b"expect", b"100-continue"), (b"content-length", b"3")]
    mesh.ask(b"POST", fields=expects, body=b"abc")
    mesh.clock.sleep(1.5)
    mesh.run()
    told = mesh.client.told[-1]
    assert (told.interim, told.fields[b":status"], told.whole) == ([100, 103], b"504", True)
    assert mesh.ended_[0].flag == "UT"


@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize(
    ("first", "more", "framed"),
    [
        (b"204 No Content", b"Content-Length: 0", {}),
        (b"204 No Content", b"Transfer-Encoding: chunked", {}),
        (b"304 Not Modified", b"Transfer-Encoding: chunked", {}),
        (b"304 Not Modified", b"Content-Length: 9", {b"content-length": b"9"}),
        (b"205 Reset Content", b"Content-Length: 0", {b"content-length": b"0"}),
    ],
)
def test_a_response_that_has_no_body_waits_for_none(down: int, first: bytes, more: bytes, framed) -> None:
    """envoyproxy/envoy#16071, #11458, #9274."""
    mesh = Between(down, 1, Told(raw=b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (first, more)))
    _, told = both(mesh.ask())
    assert (told.whole, bytes(told.body)) == (True, b"")
    found = {
        name: told.fields[name] for name in told.fields if name in (b"content-length", b"transfer-encoding")
    }
    assert found == framed
    assert len(mesh.spares) == 1


@pytest.mark.parametrize("down", [1, 2])
def test_an_offer_of_the_server_to_upgrade_is_no_switch(down: int) -> None:
    """envoyproxy/envoy#10566: the chunks of such a response reached the client as they were."""
    offer = b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2\r\nTransfer-Encoding: chunked\r\n\r\n"
    mesh = Between(down, 1, Told(raw=offer + b"5\r\nhello\r\n0\r\n\r\n"))
    _, told = both(mesh.ask())
    assert (bytes(told.body), told.whole) == (b"hello", True)
    assert b"upgrade" not in told.fields
    assert not mesh.client.wire.over


@every_pair
@pytest.mark.parametrize(
    ("method", "status", "fields"),
    [
        (b"HEAD", 200, [(b"content-length", b"5")]),
        (b"HEAD", 200, []),
        (b"GET", 204, []),
        (b"GET", 304, [(b"content-length", b"5"), (b"etag", b"x")]),
        (b"GET", 200, [(b"content-length", b"0")]),
        (b"POST", 413, [(b"content-length", b"0")]),
    ],
)
def test_responses_without_a_body_leave_the_connection_in_step(down, up, method, status, fields) -> None:
    mesh = Between(down, up, Told(status=status, fields=fields, body=None))
    for _ in range(2):
        asked, told = both(mesh.ask(method))
        assert asked.whole
        assert told.whole
        assert told.fields[b":status"] == b"%d" % status
        assert not told.body
        if fields:
            assert told.fields[b"content-length"] == fields[0][1]


@every_pair
def test_interim_responses_and_what_a_client_waits_for(down: int, up: int) -> None:
    mesh = Between(down, up, Told(body=b"hello", interim=103))
    expects = [(b"expect", b"100-continue"), (b"content-length", b"3")]
    asked, told = both(mesh.ask(b"POST", fields=expects, body=b"abc"))
    assert b"expect" not in asked.fields
    assert bytes(asked.body) == b"abc"
    assert told.interim == [100, 103]
    assert bytes(told.body) == b"hello"


@pytest.mark.parametrize("up", [1, 2])
def test_crumbs_of_cookies_are_one(up: int) -> None:
    mesh = Between(2, up)
    asked, _ = both(mesh.ask(fields=[(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]))
    assert asked.fields[b"cookie"] == b"a=1; b=2"


@every_pair
def test_streams_at_once_do_not_mix(down: int, up: int) -> None:
    mesh = Between(down, up, Told(body=b"y" * 50_000))
    for number in range(20):
        if down == 2 or not number:
            mesh.client.ask(b"POST", b"/%d" % number, [], b"x" * number, [])
        else:
            mesh.client.wire.send(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" % number)
    if down == 1:
        mesh.client.pump = lambda: False  # type: ignore[method-assign]  # h11 takes one at a time
    mesh.run()
    assert sorted(each.fields[b":path"] for each in mesh.asked) == sorted(b"/%d" % n for n in range(20))
    assert all(each.whole for each in mesh.asked)
    assert len(mesh.ended_) == 20
    assert {each.sent_bytes for each in mesh.ended_} == {50_000}


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("octets", ALL.values(), ids=list(ALL))
def test_what_two_could_read_otherwise_reaches_no_server_of_either_version(octets: bytes, up: int) -> None:
    mesh = Between(1, up)
    mesh.client.wire.send(octets + GET)
    mesh.clock.rounds()
    for server in mesh.servers:
        server.pump()
    assert not [each for each in mesh.asked if each.whole]
    assert len(mesh.asked) <= 1
    assert mesh.client.wire.finished


PSEUDO = [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/x")]
EVIL = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HTTP2 = {
    "a line in the method": ([(b":method", b"GET / HTTP/1.1\r\nx:"), *PSEUDO[1:]], b"", []),
    "a blank in the method": ([(b":method", b"GET /"), *PSEUDO[1:]], b"", []),
    "a line in the path": ([*PSEUDO[:3], (b":path", b"/ HTTP/1.1\r\nx: y\r\n\r\n" + EVIL)], b"", []),
    "a blank in the path": ([*PSEUDO[:3], (b":path", b"/ HTTP/1.1")], b"", []),
    "a line in the authority": ([*PSEUDO[:2], (b":authority", b"a\r\nx: y"), PSEUDO[3]], b"", []),
    "a path in the authority": ([*PSEUDO[:2], (b":authority", b"a/b"), PSEUDO[3]], b"", []),
    "another host": ([*PSEUDO, (b"host", b"b")], b"", []),
    "two hosts": ([*PSEUDO, (b"host", b"a"), (b"host", b"b")], b"", []),
    "a line in a value": ([*PSEUDO, (b"x", b"a\r\n\r\n" + EVIL)], b"", []),
    "a line feed in a value": ([*PSEUDO, (b"x", b"a\ntransfer-encoding: chunked")], b"", []),
    "a control character": ([*PSEUDO, (b"x", b"a\x0bb")], b"", []),
    "a line in a name": ([*PSEUDO, (b"x: y\r\nz", b"a")], b"", []),
    "a colon in a name": ([*PSEUDO, (b"transfer-encoding:chunked", b"")], b"", []),
    "a blank in a name": ([*PSEUDO, (b"transfer-encoding ", b"chunked")], b"", []),
    "a name of other letters": ([*PSEUDO, (b"x\xff", b"a")], b"", []),
    "no token": ([*PSEUDO, (b"x(y)", b"a")], b"", []),
    "chunked": ([*PSEUDO, (b"transfer-encoding", b"chunked")], b"0\r\n\r\n" + EVIL, []),
    "connection": ([*PSEUDO, (b"connection", b"content-length")], b"abc", []),
    "upgrade": ([*PSEUDO, (b"upgrade", b"h2c")], b"", []),
    "two lengths": ([*PSEUDO, (b"content-length", b"3"), (b"content-length", b"3")], b"abc", []),
    "a list of lengths": ([*PSEUDO, (b"content-length", b"3, 3")], b"abc", []),
    "no number": ([*PSEUDO, (b"content-length", b"0x3")], b"abc", []),
    "more than it says": ([*PSEUDO, (b"content-length", b"0")], EVIL, []),
    "less than it says": ([*PSEUDO, (b"content-length", b"100")], EVIL, []),
    "nothing of what it says": ([*PSEUDO, (b"content-length", b"3")], b"", []),
    "a length behind it": (PSEUDO, EVIL, [(b"content-length", b"0")]),
    "chunked behind it": (PSEUDO, EVIL, [(b"transfer-encoding", b"chunked")]),
    "a host behind it": (PSEUDO, b"abc", [(b"host", b"b")]),
    "a path behind it": (PSEUDO, b"abc", [(b":path", b"/b")]),
    "a line behind it": (PSEUDO, b"abc", [(b"x", b"y\r\n\r\n" + EVIL)]),
    "a name behind it": (PSEUDO, b"abc", [(b"x\xff", b"y")]),
    "a request in the body": (PSEUDO, EVIL, []),
    "websocket": ([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *PSEUDO[1:]], b"", []),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a:80")], EVIL, []),
}
SINGLE = {"a request in the body", "a length behind it", "a host behind it", "a name behind it"}


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("name", HTTP2)
def test_what_http1_would_read_otherwise_is_refused_or_one_request(name: str, up: int) -> None:
    mesh = Between(2, up)
    fields, body, trailers = HTTP2[name]
    assert isinstance(mesh.client, Client2)
    mesh.client.ask_raw(fields, body, trailers)
    mesh.run()
    whole = [each for each in mesh.asked if each.whole]
    assert len(whole) == (1 if name in SINGLE else 0)
    assert len(mesh.asked) <= 1
    for each in whole:
        assert bytes(each.body) == body
        assert each.fields[b":path"] == b"/x"
        assert not each.trailers
    if name not in SINGLE:
        (told,) = mesh.client.told
        assert told.reset or told.fields[b":status"] in (b"400", b"404")
    # The connection serves the next one, and the server's is not out of step.
    asked, answer = both(mesh.ask(path=b"/next"))
    assert asked.fields[b":path"] == b"/next"
    assert answer.fields[b":status"] == b"200"


def head(*fields: tuple[bytes, bytes], end: bool = False) -> bytes:
    return push_headers(1, push_fields(fields), end, DEFAULT_FRAME_BYTES)


def body(octets: bytes, end: bool = True) -> bytes:
    return push_frame(Frame.DATA, END_STREAM if end else 0, 1, octets)


OK = (b":status", b"200")
SPLIT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
FALSE_ANSWERS = {
    "less than it says": head(OK, (b"content-length", b"5")) + body(b"abc"),
    "nothing of what it says": head(OK, (b"content-length", b"5"), end=True),
    "more than it says": head(OK, (b"content-length", b"0")) + body(SPLIT),
    "two lengths": head(OK, (b"content-length", b"3"), (b"content-length", b"3")) + body(b"abc"),
    "no number": head(OK, (b"content-length", b"3, 3")) + body(b"abc"),
    "a switch": head((b":status", b"101")) + body(SPLIT),
    "an interim end": head((b":status", b"103"), end=True),
    "a status of two digits": head((b":status", b"099")) + body(b"abc"),
    "a body before it": body(SPLIT),
    "a body before it, in parts": body(SPLIT, end=False) + head(OK) + body(b"abc"),
    "a line in a value": head(OK, (b"x", b"y\r\n\r\n" + SPLIT)) + body(b"abc"),
    "a control character": head(OK, (b"x", b"a\x0bb")) + body(b"abc"),
    "a name that is no token": head(OK, (b"x(", b"a")) + body(b"abc"),
    "chunked": head(OK, (b"transfer-encoding", b"chunked")) + body(b"0\r\n\r\n" + SPLIT),
    "a body of HEAD": head(OK, (b"content-length", b"4")) + body(b"evil"),
    "a line in an interim": head((b":status", b"103"), (b"x", b"y\r\n\r\n")) + head(OK, end=True),
}


@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("name", FALSE_ANSWERS)
def test_a_false_answer_of_http2_is_no_second_answer_for_the_client(name: str, down: int) -> None:
    mesh = Between(down, 2, Told(raw=FALSE_ANSWERS[name]))
    method = b"HEAD" if "HEAD" in name else b"GET"
    _, told = mesh.ask(method)
    assert told is not None
    assert b"evil" not in told.body
    status = told.fields.get(b":status")
    if status == b"200":
        assert told.reset or mesh.client.wire.over or method == b"HEAD"
    else:
        assert status == b"502"
        assert told.whole
    assert mesh.ended_[0].flag == "UPE"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FALSE_ANSWERS_1 = {
    "two answers": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc" + SPLIT,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc" + SPLIT,
    "both": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SPLIT,
    "a switch": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + SPLIT,
    "HTTP/1.0 in chunks": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n" + SPLIT,
    "a chunk that is longer": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n" + SPLIT,
    "a trailer that frames": CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n" + SPLIT,
    "an answer behind 204": b"HTTP/1.1 204 X\r\nContent-Length: 4\r\n\r\nevil",
}


@pytest.mark.parametrize("down", [1, 2])
@pytest.mark.parametrize("name", FALSE_ANSWERS_1)
def test_a_false_answer_of_http1_is_no_second_answer_for_the_client(name: str, down: int) -> None:
    mesh = Between(down, 1, Told(raw=FALSE_ANSWERS_1[name]))
    _, told = mesh.ask()
    assert told is not None
    assert b"evil" not in told.body
    assert told.fields[b":status"] in (b"200", b"204", b"502")
    assert told.whole or told.reset
    assert mesh.servers[0].wire.over
    asked, _ = mesh.ask(path=b"/next") if not mesh.client.wire.over else (None, None)
    assert asked is None or len(mesh.servers) == 2


@pytest.mark.parametrize("up", [1, 2])
def test_a_server_that_is_lost_in_the_middle_is_noticed_by_the_client(up: int) -> None:
    for down in (1, 2):
        cut = head(OK, (b"content-length", b"5")) + body(b"abc", end=False)
        raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc" if up == 1 else cut
        mesh = Between(down, up, Told(raw=raw))
        mesh.ask()
        receiver = mesh.servers[0].wire.receiver
        assert receiver is not None
        receiver.lost(None)
        mesh.run()
        (told,) = mesh.client.told
        assert (bytes(told.body), told.whole, told.reset) == (b"abc", False, True)
        assert mesh.ended_[0].flag == "UC"


@pytest.mark.parametrize("down", [1, 2])
def test_an_old_server_ends_its_answer_by_closing(down: int) -> None:
    """linkerd/linkerd#1978: a response of HTTP/1.0 without a length."""
    mesh = Between(down, 1, Told(raw=b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP\r\n\r\nhello"))
    mesh.ask()
    receiver = mesh.servers[0].wire.receiver
    assert receiver is not None
    receiver.ended()
    mesh.run()
    (told,) = mesh.client.told
    assert (bytes(told.body), told.whole) == (b"hello", True)
    assert mesh.ended_[0].flag == "-"
    assert mesh.servers[0].wire.over


@pytest.mark.parametrize("down", [1, 2])
def test_an_answer_before_the_request_is_whole_is_not_lost_with_a_reset_behind_it(down: int) -> None:
    """envoyproxy/envoy#38206, linkerd/linkerd2#15199: a server of gRPC that has said no resets the rest."""
    mesh = Between(down, 2)
    if down == 1:
        mesh.client.wire.send(
            b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000)
        )
    else:
        assert isinstance(mesh.client, Client2)
        mesh.client.h2.send_headers(1, PSEUDO)
        mesh.client.h2.send_data(1, bytes(8000))
        mesh.client.pump()
    (server,) = mesh.servers
    server.pump()
    trailers = head((b"grpc-status", b"8"), end=True)
    reset = push_reset(1, Code.NO_ERROR)
    server.wire.send(head(OK) + body(b"too much", end=False) + trailers + reset)
    if down == 1:
        said = mesh.client.wire.said()
        assert said.startswith(b"HTTP/1.1 200 ")
        assert said.endswith(b"8\r\ntoo much\r\n0\r\ngrpc-status: 8\r\n\r\n")
        assert b"connection: close\r\n" in said
    else:
        mesh.client.pump()
        (got,) = mesh.client.told
        assert (bytes(got.body), got.trailers) == (b"too much", [(b"grpc-status", b"8")])
    assert [each.flag for each in mesh.ended_] == ["-"]


def test_hop_by_hop_fields_of_an_interim_response_stay_with_their_hop() -> None:
    raw = b"HTTP/1.1 103 X\r\nConnection: x-mine\r\nX-Mine: 1\r\nContent-Length: 9\r\nLink: y\r\n\r\n"
    mesh = Between(2, 1, Told(raw=raw + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    _, told = mesh.ask()
    assert told is not None
    assert told.interim == [103]
    assert told.fields[b":status"] == b"200"
