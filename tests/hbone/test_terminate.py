"""Tunnels that end in this process: every byte once, in order, with bounded memory."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.hbone.inner import Listener, Pair
from tests.hbone.peers import CONNECT, OK_BLOCK, Lab
from ztunnel.errors import ConnectionFailed, Unreachable
from ztunnel.hbone.request import render_response
from ztunnel.hbone.terminate import TerminatedTunnel


def test_bytes_pass_both_ways_and_both_ways_end(lab: Lab) -> None:
    pair = Pair(lab)
    near, far, here, there = pair.join()
    near.write(b"ping")
    far.write(memoryview(b"pong"))
    lab.go()
    assert (bytes(there.got), bytes(here.got)) == (b"ping", b"pong")
    assert (near.counts.up, near.counts.down) == (far.counts.up, far.counts.down) == (4, 4)
    near.finish()
    near.write(b"nothing more")
    lab.go()
    assert there.words == ["ended"]
    far.write(b"the other way goes on")
    far.finish()
    lab.go()
    assert bytes(here.got) == b"pongthe other way goes on"
    assert here.words == ["ended"]
    assert pair.client.tunnels == pair.server.tunnels == set()
    assert lab.ledger.buffered_bytes == 0


def test_bulk_arrives_whole(lab: Lab) -> None:
    near, _far, _here, there = Pair(lab).join()
    data = bytes(range(256)) * (40 << 10)
    for start in range(0, len(data), 100_000):
        near.write(data[start : start + 100_000])
    near.finish()
    lab.go(until=lambda: there.words)
    assert bytes(there.got) == data
    assert lab.ledger.buffered_bytes == 0


def test_who_does_not_take_stops_the_writer_and_is_accounted_for(lab: Lab) -> None:
    near, far, here, there = Pair(lab).join(takes=False)
    total = 0
    while near.unsent_bytes < 1 << 20:
        near.write(bytes(64 << 10))
        total += 64 << 10
        lab.go()
    held = len(there.got)
    assert held < total
    assert lab.ledger.buffered_bytes == total
    assert here.words == []
    there.takes = True
    far.taken(held)
    lab.go(until=lambda: len(there.got) == total)
    assert here.words == ["writable"]
    assert near.unsent_bytes == lab.ledger.buffered_bytes == 0


def test_what_comes_before_the_answer_is_kept_for_whoever_it_is_for(lab: Lab) -> None:
    server, peer = lab.server_to_h2()
    server._incoming = TerminatedTunnel
    asked: list = []
    server._on_request = asked.append
    lab.go()
    peer.conn.send_headers(1, CONNECT)
    peer.conn.send_data(1, b"early", end_stream=True)
    lab.go(until=lambda: asked)
    assert lab.ledger.buffered_bytes == 5
    there = Listener()
    there.tunnel = asked[0]
    asked[0].accept(OK_BLOCK, there)
    assert bytes(there.got) == b"early"
    assert there.words == ["ended"]
    assert lab.ledger.buffered_bytes == 0


def test_an_end_that_is_asked_for_resets_and_gives_the_window_back(lab: Lab) -> None:
    pair = Pair(lab)
    near, far, here, there = pair.join(takes=False)
    before = pair.server.h2._window.left_bytes
    near.write(b"x" * 1000)
    lab.go()
    far.abort(ConnectionFailed("ended"))
    far.abort(ConnectionFailed("ended"))
    lab.go()
    assert here.words == ["lost"]
    assert here.error is None
    assert there.words == []
    window = pair.server.h2._window
    assert window.left_bytes + window.taken_bytes == before
    assert lab.ledger.buffered_bytes == 0
    near.write(b"nothing happens")
    far.finish()
    far.taken(1)


def test_a_session_that_is_cut_tells_both_ends(lab: Lab) -> None:
    pair = Pair(lab)
    _near, _far, here, there = pair.join()
    pair.client.abort(ConnectionFailed("cut"))
    lab.go()
    assert here.words == there.words == ["lost"]
    assert str(here.error) == "cut"


def test_a_refusal_is_an_answer(lab: Lab) -> None:
    pair = Pair(lab)
    _near, answers, far = pair.ask()
    far.refuse(render_response(404))
    far.refuse(render_response(404))
    lab.go()
    assert answers.log == [404]
    assert pair.client.tunnels == pair.server.tunnels == set()


def test_a_peer_that_gave_up_before_the_answer_is_told_of(lab: Lab) -> None:
    pair = Pair(lab)
    near, _answers, far = pair.ask()
    near.abort(ConnectionFailed("given up"))
    lab.go()
    there = Listener()
    far.accept(OK_BLOCK, there)
    assert there.words == ["lost"]


def test_where_too_much_is_held_it_gives_way(lab: Lab) -> None:
    lab.limits(buffered_bytes=100_000)
    pair = Pair(lab)
    near, _far, here, there = pair.join(takes=False)
    near.write(bytes(300_000))
    lab.go()
    assert "lost" in here.words + there.words
    assert lab.ledger.held.gave_way_total >= 1
    assert lab.ledger.buffered_bytes <= 100_000


def test_what_is_written_in_one_round_is_one_frame_as_long_as_it_may_be(lab: Lab) -> None:
    pair = Pair(lab)
    near, _, _, there = pair.join()
    other, _, _, others = pair.join()
    near.write(b"a head, ")
    near.write(b"a body, ")
    near.write(b"an end")
    other.write(b"of somebody else")
    other.write(b", too")
    near.write(b"; more")
    lab.go()
    assert (bytes(there.got), there.parts) == (b"a head, a body, an end; more", [22, 6])
    assert (bytes(others.got), others.parts) == (b"of somebody else, too", [21])
    near.write(b"the next round")
    lab.go()
    assert there.parts[2:] == [14]


@given(
    sizes=some.lists(some.integers(1, 40_000), min_size=1, max_size=30),
    turns=some.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_tunnels_take_turns_each_gets_its_own(lab: Lab, sizes: list[int], turns: Random) -> None:
    pair = Pair(lab)
    ways = [pair.join() for _ in range(2)]
    sent = [bytearray(), bytearray()]
    for number, size in enumerate(sizes):
        which = turns.randrange(2)
        part = bytes((number % 251 + 1,)) * size
        ways[which][0].write(part)
        sent[which] += part
        if not turns.randrange(5):
            lab.go()
    lab.go(
        until=lambda: all(
            len(way[3].got) == len(all_of_it) for way, all_of_it in zip(ways, sent, strict=True)
        )
    )
    for way, all_of_it in zip(ways, sent, strict=True):
        assert way[3].got == all_of_it
        way[0].abort(Unreachable("enough"))
    lab.go()
    assert lab.ledger.buffered_bytes == 0
