"""Requests on their way: what the client asks, and what it gets."""

from __future__ import annotations

import pytest

from tests.waypoint.rig import Client, Rig, Server
from ztunnel.l7.reply import IDLE, REMOTE_RESET, TERMINATED, Reply
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.exchange import Exchange


def begin(rig: Rig, method: bytes = b"GET", end: bool = True, fields=()) -> tuple[Exchange, Client]:
    client = Client()
    exchange = Exchange(rig.way, client, Request(method, b"a", b"/", list(fields)))
    exchange.start(end)
    return exchange, client


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
