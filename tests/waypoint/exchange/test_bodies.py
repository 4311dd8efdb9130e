"""Bodies of both directions: taken as they leave, held back where they do not."""

from __future__ import annotations

from tests.waypoint.exchange.test_exchange import begin
from tests.waypoint.rig import Rig


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
