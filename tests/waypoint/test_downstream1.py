"""A client's connection of HTTP/1.1: one answer for each request, in order, and nothing believed twice."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waypoint.rig import Rig, Wire, echoes
from ztunnel.l7.reply import NO_ROUTE
from ztunnel.l7.routing.plan import Plan
from ztunnel.waypoint.downstream1 import LINGER_SECONDS, Http1Server


def serve(rig: Rig) -> tuple[Wire, Http1Server]:
    wire = Wire()
    server = Http1Server(rig.way, wire, rig.clock.next_round)
    wire.receiver = server
    return wire, server


def head(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


TE = b"Transfer-Encoding: chunked"
SEND, LAST = b"POST / HTTP/1.1", b"0\r\n\r\n"
GET = head()
POST = head(b"Content-Length: 3", first=b"POST /p HTTP/1.1") + b"abc"
CHUNKED = head(TE, first=b"PUT /c HTTP/1.1") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n"


def test_requests_are_answered_one_after_the_other() -> None:
    rig = Rig(echoes)
    wire, _ = serve(rig)
    wire.send(GET + POST + CHUNKED)
    rig.clock.rounds()
    said = wire.said()
    assert [bytes(each.body) for each in rig.servers] == [b"", b"abc", b"abcde"]
    assert rig.servers[2].trailers == ((b"t", b"v"),)
    assert said.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert said.index(b"GET / ") < said.index(b"POST /p abc") < said.index(b"PUT /c abcde")
    assert wire.took == wire.given
    assert not wire.over
    assert [each.details for each in rig.ended_] == ["via_upstream"] * 3


@given(st.lists(st.sampled_from([GET, POST, CHUNKED]), min_size=1, max_size=4), st.data())
def test_any_split_of_the_input_gives_the_same_answers(messages: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    whole, parts = Rig(echoes), Rig(echoes)
    wire, _ = serve(whole)
    wire.send(octets)
    whole.clock.rounds()
    cut_wire, _ = serve(parts)
    for start, stop in itertools.pairwise([0, *cuts, len(octets)]):
        cut_wire.send(octets[start:stop])
        parts.clock.rounds()
    assert cut_wire.said() == wire.said()
    assert cut_wire.took == wire.took == len(octets)
    assert [bytes(each.body) for each in parts.servers] == [bytes(each.body) for each in whole.servers]


@given(st.binary(max_size=300), st.sampled_from([b"", GET, POST[:-1], CHUNKED[:-4], CHUNKED[:60]]))
def test_garbage_is_answered_once_or_waited_for(garbage: bytes, before: bytes) -> None:
    rig = Rig(echoes)
    wire, server = serve(rig)
    wire.send(before + garbage)
    rig.clock.rounds()
    server.ended()
    rig.clock.rounds()
    assert wire.took == wire.given
    assert wire.over
    assert wire.said().count(b"HTTP/1.1 4") <= 1


# Each is refused, or is exactly one request (reliability: request smuggling).
AMBIGUOUS = {
    "CL.TE": head(b"Content-Length: 6", TE, first=SEND) + b"0\r\n\r\nG",
    "TE.CL": head(TE, b"Content-Length: 4", first=SEND) + b"5c\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n",
    "TE.TE": head(TE, b"Transfer-Encoding: x", first=SEND) + LAST,
    "two lengths": head(b"Content-Length: 0", b"Content-Length: 44", first=SEND),
    "two equal lengths": head(b"Content-Length: 3", b"Content-Length: 3", first=SEND) + b"abc",
    "a list of lengths": head(b"Content-Length: 3, 3", first=SEND) + b"abc",
    "+5": head(b"Content-Length: +5", first=SEND) + b"abcde",
    "0x5": head(b"Content-Length: 0x5", first=SEND) + b"abcde",
    "a huge length": head(b"Content-Length: 99999999999999999999", first=SEND),
    "a negative length": head(b"Content-Length: -1", first=SEND),
    "identity, chunked": head(b"Transfer-Encoding: identity, chunked", first=SEND) + LAST,
    "xchunked": head(b"Transfer-Encoding: xchunked", first=SEND) + LAST,
    "a blank before the colon": head(b"Transfer-Encoding : chunked", first=SEND) + LAST,
    "VT before chunked": head(b"Transfer-Encoding: \x0bchunked", first=SEND) + LAST,
    "NUL in TE": head(b"Transfer-Encoding: chunked\0", first=SEND) + LAST,
    "a folded TE": head(b"Transfer-Encoding:\r\n chunked", first=SEND) + LAST,
    "a folded field": head(b"X: a\r\n b"),
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in a field": b"GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n",
    "bare CR in a value": head(b"X: a\rb"),
    "NUL in a value": head(b"X: a\0b"),
    "no name": head(b": a"),
    "a name with a blank": head(b"X Y: a"),
    "no host": head(host=b""),
    "two hosts": head(b"Host: b"),
    "two equal hosts": head(b"Host: a"),
    "an empty host": head(host=b"Host:"),
    "userinfo": head(host=b"Host: u@a"),
    "a host with a path": head(host=b"Host: a/b"),
    "another host in the target": head(first=b"GET http://b/ HTTP/1.1"),
    "a target of another scheme": head(first=b"GET ftp://a/ HTTP/1.1"),
    "a blank in the target": head(first=b"GET /a b HTTP/1.1"),
    "a fragment": head(first=b"GET /a#b HTTP/1.1"),
    "an encoded NUL": head(first=b"GET /a%00 HTTP/1.1"),
    "a broken percent": head(first=b"GET /a%zz HTTP/1.1"),
    "no target": head(first=b"GET  HTTP/1.1"),
    "two blanks": head(first=b"GET  / HTTP/1.1"),
    "a tab": head(first=b"GET\t/ HTTP/1.1"),
    "no version": b"GET /\r\nHost: a\r\n\r\n",
    "HTTP/1.0": head(TE, first=b"POST / HTTP/1.0") + LAST,
    "HTTP/1.2": head(first=b"GET / HTTP/1.2"),
    "HTTP/3.0": head(first=b"GET / HTTP/3.0"),
    "http/1.1": head(first=b"GET / http/1.1"),
    "a bad method": head(first=b"G(T / HTTP/1.1"),
    "CONNECT": head(first=b"CONNECT a:80 HTTP/1.1") + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown upgrade": head(b"Connection: upgrade", b"Upgrade: x") + GET,
    "an expectation": head(b"Expect: x"),
    "nominating the host": head(b"Connection: host"),
    "nominating a credential": head(b"Connection: authorization", b"Authorization: x"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a NUL": b"\0",
}
CHUNKS = {
    "+5": b"+5\r\nabcde\r\n0\r\n\r\n",
    "0x5": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "0_5": b"0_5\r\nabcde\r\n0\r\n\r\n",
    "a leading blank": b" 5\r\nabcde\r\n0\r\n\r\n",
    "a blank behind": b"5 \r\nabcde\r\n0\r\n\r\n",
    "bare LF": b"5\nabcde\r\n0\r\n\r\n",
    "bare LF behind data": b"5\r\nabcde\n0\r\n\r\n",
    "CR in an extension": b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
    "2^64 + 5": b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "more data than said": b"5\r\nabcdefg\r\n0\r\n\r\n",
    "no size": b"\r\nabcde\r\n0\r\n\r\n",
    "TE as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a length as a trailer": b"0\r\nContent-Length: 5\r\n\r\n",
    "a host as a trailer": b"0\r\nHost: b\r\n\r\n",
    "a folded trailer": b"0\r\nA: b\r\n c\r\n\r\n",
    "a trailer with LF": b"0\r\nA: b\n\r\n",
    "a size without end": b"1" * 2000,
    "an extension without end": b"1;" + b"a" * 2000,
}
CHUNKED_HEAD = head(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.1")
ALL = {**AMBIGUOUS, **{f"chunk: {name}": CHUNKED_HEAD + chunks for name, chunks in CHUNKS.items()}}


@pytest.mark.parametrize("octets", ALL.values(), ids=list(ALL))
@pytest.mark.parametrize("size", [1, 7, 1 << 20], ids=["by byte", "by seven", "at once"])
def test_what_two_could_read_otherwise_is_refused_and_the_connection_ends(octets: bytes, size: int) -> None:
    rig = Rig(echoes)
    wire, _ = serve(rig)
    smuggled = head(first=b"GET /smuggled HTTP/1.1")
    for start in range(0, len(octets + smuggled), size):
        wire.send((octets + smuggled)[start : start + size])
        rig.clock.rounds()
    said = wire.said()
    assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), said
    assert said.count(b"HTTP/1.1 ") == 1, said
    assert b"connection: close\r\n" in said
    assert wire.finished
    assert not [each for each in rig.servers if each.whole]
    assert len(rig.servers) <= 1
    assert wire.took == wire.given


LIMITS = [
    (head(b"X: " + b"a" * 61 * 1024), b"431"),
    (head(*[b"X: a"] * 101), b"431"),
    (head(first=b"GET /" + b"a" * 61 * 1024 + b" HTTP/1.1"), b"431"),
    (CHUNKED_HEAD + b"0\r\n" + b"A: b\r\n" * 5000, b"431"),
    (CHUNKED_HEAD + b"0\r\n" + b"A: " + b"b" * 17 * 1024, b"431"),
    (head(first=b"GET / HTTP/1.0"), b"426"),
    (head(b"Transfer-Encoding: gzip"), b"501"),
    (head(first=b"GET / HTTP/2.0"), b"505"),
    (head(b"Connection: upgrade", b"Upgrade: x"), b"403"),
    (head(b"Expect: x"), b"417"),
    (head(first=b"CONNECT a:80 HTTP/1.1"), b"404"),
]


@pytest.mark.parametrize(("octets", "status"), LIMITS)
@pytest.mark.parametrize("size", [1 << 20, 61_000, 500])
def test_limits_have_their_status(octets: bytes, status: bytes, size: int) -> None:
    rig = Rig(echoes)
    wire, _ = serve(rig)
    for start in range(0, len(octets), size):
        wire.send(octets[start : start + size])
        rig.clock.rounds()
    assert wire.said().startswith(b"HTTP/1.1 " + status)
    assert wire.finished
    assert not [each for each in rig.servers if each.whole]
    assert rig.refusals == [each.details for each in rig.ended_] != []


def test_nobody_is_told_to_go_on_with_what_is_answered_already() -> None:
    """The client may still keep its body to itself (istio/istio#36278)."""
    rig = Rig()
    rig.plan = Plan("r", reply=NO_ROUTE)
    wire, _ = serve(rig)
    wire.send(head(b"Expect: 100-continue", b"Content-Length: 9", first=b"PUT / HTTP/1.1"))
    said = wire.said()
    assert said.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"connection: close\r\n" in said
    assert said.count(b"HTTP/1.1 ") == 1


def test_a_client_that_waits_for_100_gets_it_once() -> None:
    rig = Rig(echoes)
    wire, _ = serve(rig)
    wire.send(head(b"Expect: 100-continue", b"Content-Length: 3", first=b"POST / HTTP/1.1"))
    assert wire.said() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rig.server.request is not None
    assert rig.server.request.get(b"expect") == b""
    wire.send(b"abc")
    assert wire.said().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_response_without_length_is_chunked_with_its_trailers() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET)
    rig.server.respond()
    rig.server.say(b"abc")
    rig.server.say(b"x" * 5000)
    rig.server.end(((b"t", b"v"),))
    said = wire.said()
    assert b"transfer-encoding: chunked\r\n" in said
    assert said.endswith(b"\r\n\r\n3\r\nabc\r\n1388\r\n" + b"x" * 5000 + b"\r\n0\r\nt: v\r\n\r\n")
    assert not wire.over


@pytest.mark.parametrize("status", [b"204", b"304"])
def test_a_response_without_a_body_has_no_framing(status: bytes) -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET)
    rig.server.respond(status=status, end=True)
    said = wire.said()
    assert b"transfer-encoding" not in said
    assert b"content-length" not in said
    wire.send(GET)
    assert len(rig.servers) == 2


def test_interim_responses_pass() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET)
    assert rig.server.exchange is not None
    rig.server.exchange.informed(((b":status", b"103"), (b"link", b"</a>")))
    rig.server.respond(end=True)
    assert wire.said().startswith(b"HTTP/1.1 103 \r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_an_answer_before_the_request_is_whole_ends_the_connection() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(POST[:-1])
    rig.server.respond(status=b"413", end=True)
    assert b"connection: close\r\n" in wire.said()
    assert wire.finished
    assert rig.server.cancelled
    wire.send(b"c" + GET)
    assert len(rig.servers) == 1
    assert wire.took == wire.given


def test_connection_close_is_kept() -> None:
    rig = Rig(echoes)
    wire, _ = serve(rig)
    wire.send(head(b"Connection: close") + GET)
    rig.clock.rounds()
    assert b"connection: close\r\n" in wire.said()
    assert wire.finished
    assert len(rig.servers) == 1


def test_a_switch_of_protocols_passes_bytes_both_ways() -> None:
    rig = Rig()
    wire, server = serve(rig)
    wire.send(head(b"Connection: Upgrade", b"Upgrade: websocket") + b"early")
    assert rig.server.request is not None
    assert rig.server.request.upgrade == b"websocket"
    assert bytes(rig.server.body) == b""
    rig.server.respond(status=b"101")
    rig.clock.rounds()
    assert b"connection: upgrade\r\nupgrade: websocket\r\n" in wire.said()
    wire.send(b"more")
    assert bytes(rig.server.body) == b"earlymore"
    rig.server.say(b"back")
    assert wire.said() == b"back"
    server.ended()
    assert rig.server.whole
    rig.server.end()
    assert wire.finished
    assert wire.took == wire.given


def test_a_switch_for_which_there_is_nobody_is_503() -> None:
    """envoyproxy/gateway#9452: 403 was taken for a final answer."""
    rig = Rig()
    rig.reachable = False
    wire, _ = serve(rig)
    wire.send(head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"))
    assert wire.said().startswith(b"HTTP/1.1 503 ")


def test_what_comes_right_behind_a_switch_stays_behind_what_came_before_it() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(head(b"Connection: Upgrade", b"Upgrade: websocket") + b"early")
    rig.server.respond(status=b"101")
    wire.send(b"more")
    rig.clock.rounds()
    assert bytes(rig.server.body) == b"earlymore"
    assert wire.took == wire.given


def test_a_switch_that_is_refused_leaves_what_came_early_a_request() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(head(b"Connection: Upgrade", b"Upgrade: websocket") + GET)
    rig.server.respond(status=b"400", end=True)
    rig.clock.rounds()
    assert len(rig.servers) == 2
    assert rig.servers[1].whole


def test_a_response_that_breaks_off_is_no_whole_one() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET)
    rig.server.respond((b"content-length", b"10"))
    rig.server.say(b"abc")
    assert rig.server.exchange is not None
    from ztunnel.l7.reply import TERMINATED

    rig.server.exchange.failed(TERMINATED)
    assert wire.aborted is not None
    assert not wire.finished
    assert [each.flag for each in rig.ended_] == ["UC"]


def test_slow_heads_and_silent_requests_are_answered_408() -> None:
    rig = Rig()
    wire, server = serve(rig)
    wire.send(GET[:10])
    server.look(rig.clock.now + rig.way.patience.head_seconds - 1)
    assert not wire.over
    server.look(rig.clock.now + rig.way.patience.head_seconds + 1)
    assert wire.said().startswith(b"HTTP/1.1 408 ")
    assert wire.finished
    server.look(rig.clock.now + rig.way.patience.head_seconds + LINGER_SECONDS + 10)
    assert wire.aborted is not None
    assert not rig.live

    wire, server = serve(rig)
    wire.send(POST[:-1])
    server.look(rig.clock.now + rig.way.patience.idle_seconds - 1)
    assert not wire.over
    server.look(rig.clock.now + rig.way.patience.idle_seconds + 1)
    assert wire.said().startswith(b"HTTP/1.1 408 ")
    assert [each.flag for each in rig.ended_][-1] == "SI"
    assert rig.server.cancelled


@pytest.mark.parametrize("asked", ["waits", "answered", "switched"])
def test_what_is_only_quiet_goes_on(asked: str) -> None:
    """istio/istio#19664: a websocket, a stream of events, and an answer that takes its time."""
    rig = Rig()
    wire, server = serve(rig)
    upgrade = (b"Connection: Upgrade", b"Upgrade: websocket") if asked == "switched" else ()
    wire.send(head(*upgrade))
    if asked == "switched":
        rig.server.respond((b"upgrade", b"websocket"), status=b"101")
    elif asked == "answered":
        rig.server.respond((b"content-type", b"text/event-stream"))
    for _ in range(24):
        rig.clock.sleep(3600)
        server.look(rig.clock.now)
    assert not wire.over
    assert not rig.ended_
    if asked != "waits":
        wire.stuck, wire.unsent_bytes = True, 1  # the client does not read
        server.look(rig.clock.now)
        assert rig.ended_[0].flag == "SI"


def test_idle_connections_are_closed_and_draining_ones_after_their_answer() -> None:
    rig = Rig()
    wire, server = serve(rig)
    server.look(rig.clock.now + rig.way.patience.client_idle_seconds - 1)
    assert not wire.finished
    server.look(rig.clock.now + rig.way.patience.client_idle_seconds + 1)
    assert wire.finished
    wire, server = serve(rig)
    server.drain()
    assert wire.finished
    wire, server = serve(rig)
    wire.send(GET)
    server.drain()
    assert not wire.over
    rig.server.respond(end=True)
    assert b"connection: close" in wire.said()
    assert wire.finished


def test_a_client_that_does_not_read_stops_the_server() -> None:
    rig = Rig()
    wire, _ = serve(rig)
    wire.send(GET)
    wire.stuck = True
    rig.server.respond((b"content-length", b"%d" % (1 << 20)))
    sent = 0
    while rig.server.took == sent and sent < 1 << 20:
        rig.server.say(b"x" * 8192)
        sent += 8192
    assert sent < 128 * 1024
    wire.unstick()
    assert rig.server.took == sent
