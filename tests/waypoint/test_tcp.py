"""Bytes through a waypoint as they are."""

from __future__ import annotations

from tests.waypoint.rig import Wire
from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.waypoint.tcp import Passage


def join() -> tuple[Wire, Wire, Passage, list]:
    client, server, ends = Wire(), Wire(), []
    passage = Passage(client, server, ends.append)
    client.receiver, server.receiver = passage.client, passage.server
    return client, server, passage, ends


def test_bytes_pass_both_ways_and_end_one_way_after_the_other() -> None:
    client, server, passage, ends = join()
    client.send(b"ping")
    server.send(b"pong")
    assert (server.said(), client.said()) == (b"ping", b"pong")
    assert (client.took, server.took) == (4, 4)
    passage.client.ended()
    assert server.finished
    assert ends == []
    server.send(b"more")
    assert client.said() == b"more"
    passage.server.ended()
    assert client.finished
    assert ends == [None]


def test_who_does_not_read_stops_the_other() -> None:
    client, server, _, _ = join()
    server.stuck = True
    sent = 0
    while client.took == sent and sent < 1 << 20:
        client.send(b"x" * 8192)
        sent += 8192
    assert sent < 128 * 1024
    server.send(b"the other way goes on")
    assert client.said()
    server.unstick()
    assert client.took == sent


def test_a_cut_on_one_side_is_a_cut_on_the_other() -> None:
    client, server, passage, ends = join()
    error = Unreachable("cut")
    passage.server.lost(error)
    assert client.aborted is error
    assert ends == [error]
    client, server, passage, ends = join()
    passage.client.lost(None)
    assert server.aborted is not None
    assert ends == [None]


def test_it_can_be_ended() -> None:
    client, server, passage, ends = join()
    error = ConnectionFailed("drained")
    passage.abort(error)
    passage.abort(error)
    assert client.aborted is server.aborted is error
    assert ends == [error]
