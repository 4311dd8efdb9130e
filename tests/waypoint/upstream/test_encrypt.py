"""Bytes over TLS arrive as they are, cut anywhere."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waypoint.tls_server import TlsServer
from tests.waypoint.tls_side import Side, authority, server_paths, simple

__all__ = ["authority", "server_paths"]


def test_both_sides_can_say_goodbye(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    side.stands.write(b"all")
    side.stands.finish()
    side.pump()
    assert side.inner.finished
    assert (side.server.got, side.server.ended) == (b"all", True)
    other = Side(simple(authority), TlsServer(server_paths))
    listener = other.listen()
    other.give(other.server.say(b"last") + other.server.end())
    other.inner.receiver.ended()
    assert (listener.got, listener.log) == (b"last", ["ended"])


def test_what_is_not_taken_holds_the_server_up(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    before = side.inner.given - side.inner.took
    assert before == 0
    listener.takes = False
    side.give(side.server.say(b"x" * 10_000))
    assert side.inner.given - side.inner.took > 10_000
    side.stands.taken(4_000)
    assert side.inner.given - side.inner.took > 6_000
    side.stands.taken(6_000)
    assert side.inner.took == side.inner.given
    side.inner.unsent_bytes = 5
    assert side.stands.unsent_bytes == 5
    side.inner.receiver.writable()
    assert listener.log == ["writable"]


def test_garbage_on_a_connection_that_stands_cuts_it(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    listener = side.listen()
    side.give(b"\x17\x03\x03\x00\x20" + b"y" * 32)
    assert listener.log
    assert listener.log[0].startswith("lost: the connection broke")
    side.stands.write(b"x")
    side.stands.taken(1)
    side.stands.finish()


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(1, 200), st.lists(st.binary(max_size=300), max_size=5))
def test_any_cut_of_what_a_server_sends_gives_the_same(authority, server_paths, size, parts):
    side = Side(simple(authority), None)
    side.server = TlsServer(server_paths)
    side.pump(size)
    assert side.error is None
    listener = side.listen()
    for part in parts:
        if part:
            side.give(side.server.say(part), size)
    assert listener.got == b"".join(parts)


def test_it_leaves_with_what_carries_it(authority, server_paths):
    side = Side(simple(authority), TlsServer(server_paths))
    assert not side.stands.leaving
    side.inner.leaving = True
    assert side.stands.leaving
