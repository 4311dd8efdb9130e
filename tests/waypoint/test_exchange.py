"""Requests on their way: what is tried again, what is answered here, what waits."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import Rig, Server
from ztunnel.l7.reply import CONNECT_FAILED, IDLE, REMOTE_RESET, TERMINATED, Reply
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange import Exchange


class Client:
    """The client's end, which writes down."""

    def __init__(self) -> None:
        self.said: list[tuple] = []
        self.took = 0
        self.held = 0

    def respond(self, fields, end) -> None:
        self.said.append(("head", int(fields[0][1]), end))

    def inform(self, fields) -> None:
        self.said.append(("interim", int(fields[0][1])))

    def send(self, payload) -> None:
        self.said.append(("body", bytes(payload)))

    def finish(self, trailers) -> None:
        self.said.append(("end", trailers))

    def reset(self) -> None:
        self.said.append(("reset",))

    def taken(self, count) -> None:
        self.took += count

    def unsent(self) -> int:
        return self.held


def begin(rig: Rig, method: bytes = b"GET", end: bool = True, fields=()) -> tuple[Exchange, Client]:
    client = Client()
    exchange = Exchange(rig.way, client, Request(method, b"a", b"/", list(fields)))
    exchange.start(end)
    return exchange, client


def test_bytes_are_taken_as_they_leave_and_held_back_where_they_do_not() -> None:
    rig = Rig()
    exchange, client = begin(rig, b"POST", end=False)
    exchange.body(memoryview(b"abc"))
    assert client.took == 3
    rig.server.held = 1 << 20
    exchange.body(memoryview(b"def"))
    assert client.took == 3
    exchange.up_writable()
    assert client.took == 6
    exchange.end(((b"t", b"v"),))
    assert rig.server.trailers == ((b"t", b"v"),)
    rig.server.respond()
    client.held = 1 << 20
    rig.server.say(b"abc")
    assert rig.server.took == 0
    exchange.down_writable()
    assert rig.server.took == 3
    rig.server.end()
    assert exchange.over
    assert (exchange.received_bytes, exchange.sent_bytes) == (6, 3)


def test_what_comes_before_a_server_stands_is_kept_and_not_taken() -> None:
    rig = Rig()
    rig.waits = True
    exchange, client = begin(rig, b"POST", end=False)
    exchange.body(memoryview(b"abc"))
    assert client.took == 0
    exchange.end(())
    server = rig.stand(exchange)
    assert bytes(server.body) == b"abc"
    assert server.whole
    assert client.took == 3


@pytest.mark.parametrize(
    ("method", "reused", "unsent", "sent", "again"),
    [
        (b"GET", False, True, b"", True),
        (b"POST", False, True, b"", True),
        (b"POST", False, True, b"x", False),
        (b"GET", True, False, b"", True),
        (b"POST", True, False, b"", False),
        (b"GET", False, False, b"", False),
    ],
)
def test_only_what_had_no_effect_is_tried_again(method, reused, unsent, sent, again) -> None:
    rig = Rig()
    rig.reused = reused
    exchange, client = begin(rig, method, end=not sent)
    if sent:
        exchange.body(memoryview(sent))
    exchange.failed(TERMINATED, unsent=unsent)
    assert (len(rig.servers) == 2) is again
    if not again:
        assert client.said[0] == ("head", 503, False)
        assert (exchange.flag, exchange.details) == (TERMINATED.flag, TERMINATED.details)


def test_it_is_tried_three_times() -> None:
    rig = Rig()
    exchange, client = begin(rig)
    for _ in range(3):
        assert not exchange.over
        exchange.failed(CONNECT_FAILED, "no route", unsent=True)
    assert len(rig.servers) == 3
    assert client.said[0] == ("head", 503, False)
    assert b"transport failure reason: no route" in client.said[1][1]
    assert exchange.failure == "no route"
    assert rig.ended_ == [exchange]


def test_a_response_that_is_cut_off_is_reset() -> None:
    rig = Rig()
    exchange, client = begin(rig)
    rig.server.respond()
    exchange.failed(REMOTE_RESET)
    assert client.said == [("head", 200, False), ("reset",)]
    assert exchange.flag == "UR"
    assert exchange.details == "upstream_reset_after_response_started{remote_reset}"
    assert rig.ended_ == [exchange]


def test_what_the_client_does_not_wait_for_is_cancelled() -> None:
    rig = Rig()
    exchange, client = begin(rig)
    exchange.gone()
    assert rig.server.cancelled
    assert (exchange.status, exchange.flag) == (0, "DC")
    assert client.said == []
    rig.server.respond(end=True)
    exchange.failed(TERMINATED)
    assert client.said == []
    assert rig.ended_ == [exchange]
    # A server that stands too late is given back.
    rig.waits = True
    exchange, _ = begin(rig)
    exchange.gone()
    server = Server(exchange=exchange)
    exchange.connected(server)
    assert server.cancelled


def test_a_reply_of_our_own_takes_the_place_of_the_servers() -> None:
    rig = Rig()
    exchange, client = begin(rig)
    exchange.reply(IDLE)
    assert rig.server.cancelled
    assert client.said == [("head", 408, False), ("body", b"stream timeout"), ("end", ())]
    exchange.reply(IDLE)
    assert rig.ended_ == [exchange]


def test_to_head_it_has_no_body_and_to_grpc_no_status_of_http() -> None:
    rig = Rig()
    exchange, client = begin(rig, b"HEAD")
    exchange.reply(IDLE)
    assert client.said == [("head", 408, True)]
    exchange, client = begin(rig, b"POST", fields=[(b"content-type", b"application/grpc")])
    exchange.reply(TERMINATED)
    assert client.said == [("head", 200, True)]
    assert (exchange.status, exchange.grpc_status) == (200, "14")  # as the client has it


def test_the_status_of_grpc_is_noted_wherever_it_stands() -> None:
    rig = Rig()
    exchange, _ = begin(rig)
    rig.server.respond()
    rig.server.end(((b"grpc-status", b"7"),))
    assert exchange.grpc_status == "7"


def test_an_answer_to_half_a_request_ends_its_server() -> None:
    rig = Rig()
    exchange, client = begin(rig, b"POST", end=False)
    rig.server.respond(end=True)
    assert exchange.over
    assert rig.server.cancelled
    exchange.body(memoryview(b"late"))
    assert client.took == 4


def test_interim_responses_have_an_end() -> None:
    rig = Rig()
    exchange, client = begin(rig)
    for _ in range(101):
        assert not exchange.over
        exchange.informed(((b":status", b"103"),))
    assert client.said.count(("interim", 103)) == 100
    assert client.said[100] == ("head", 502, False)
    assert (exchange.flag, exchange.failure) == ("UPE", "interim responses without end")
    assert rig.server.cancelled


@pytest.mark.parametrize("grpc", [True, False])
@pytest.mark.parametrize("begun", [True, False])
def test_what_is_revoked_is_told_why_as_far_as_its_protocol_can(grpc: bool, begun: bool) -> None:
    rig = Rig()
    fields = [(b"content-type", b"application/grpc")] if grpc else []
    exchange, client = begin(rig, b"POST", fields=fields)
    if begun:
        rig.server.respond()
    exchange.revoke(Reply(403, "-", "details", "RBAC: access denied"))
    denied = ((b"grpc-status", b"7"), (b"grpc-message", b"RBAC: access denied"))
    assert (
        client.said
        == {
            (True, True): [("head", 200, False), ("end", denied)],
            (True, False): [("head", 200, True)],
            (False, True): [("head", 200, False), ("reset",)],
            (False, False): [("head", 403, False), ("body", b"RBAC: access denied"), ("end", ())],
        }[grpc, begun]
    )
    assert (exchange.over, exchange.details, rig.server.cancelled) == (True, "details", True)
    assert exchange.grpc_status == ("7" if grpc else "")
    exchange.revoke(Reply(403, "-", "again"))
    assert exchange.details == "details"
