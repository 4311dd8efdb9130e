"""What has come of a body is held, told and listened to before anything is sent on."""

from __future__ import annotations

from tests.waypoint.rig import Rig
from ztunnel.http1.head import Fields
from ztunnel.l7.extauthz.outcome import HeaderChange
from ztunnel.l7.request import Request
from ztunnel.waypoint.exchange.exchange import Exchange


class Client:
    """A client's end that writes down."""

    def __init__(self) -> None:
        self.took = 0
        self.fields: Fields = ()
        self.body = bytearray()

    def respond(self, fields: Fields, end: bool) -> None:
        self.fields = fields

    def inform(self, fields: Fields) -> None: ...

    def send(self, payload: memoryview) -> None:
        self.body += payload

    def finish(self, trailers: Fields) -> None: ...

    def reset(self) -> None: ...

    def taken(self, count: int) -> None:
        self.took += count

    def unsent(self) -> int:
        return 0


class Heard:
    """A copy that writes down."""

    def __init__(self) -> None:
        self.said: list[object] = []

    def body(self, payload: memoryview) -> None:
        self.said.append(bytes(payload))

    def end(self, trailers: Fields) -> None:
        self.said.append("end")

    def give_up(self) -> None:
        self.said.append("given up")


def held() -> tuple[Rig, Client, Exchange]:
    rig, client = Rig(), Client()
    rig.waits = True
    exchange = Exchange(rig.way, client, Request(b"POST", b"web", b"/x", []))
    exchange.start(False)
    return rig, client, exchange


def test_whoever_listens_hears_what_has_come_and_what_comes() -> None:
    _, client, exchange = held()
    exchange.body(memoryview(b"ab"))
    heard = Heard()
    exchange.hear(heard)
    exchange.body(memoryview(b"cd"))
    assert heard.said == [b"ab", b"cd"]
    assert (exchange.is_whole, client.took) == (False, 0)
    exchange.end(())
    assert heard.said == [b"ab", b"cd", "end"]
    assert exchange.is_whole


def test_what_is_held_here_is_told_to_the_client_once() -> None:
    rig, client, exchange = held()
    exchange.body(memoryview(b"abc"))
    exchange.read_ahead()
    exchange.read_ahead()
    assert client.took == 3
    exchange.body(memoryview(b"de"))
    assert client.took == 3
    assert [exchange.body_begin(most) for most in (0, 2, 4, 9)] == [b"", b"ab", b"abcd", b"abcde"]
    server = rig.stand(exchange)
    assert (bytes(server.body), client.took) == (b"abcde", 5)


def test_a_request_that_ends_gives_up_what_listens_and_tells_of_what_is_lost() -> None:
    _, client, exchange = held()
    heard = Heard()
    exchange.hear(heard)
    exchange.body(memoryview(b"abc"))
    exchange.gone()
    assert heard.said == [b"abc", "given up"]
    assert client.took == 3


def test_responses_get_what_was_added() -> None:
    rig, client, exchange = held()
    exchange.changes = [HeaderChange(b"set-cookie", b"a=b")]
    exchange.end(())
    server = rig.stand(exchange)
    server.respond((b"x", b"y"), end=True)
    assert (b"set-cookie", b"a=b") in client.fields
