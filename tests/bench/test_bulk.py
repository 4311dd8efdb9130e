"""The client that moves as much as it can."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.bulk import Meter, begin_body, download, move, upload
from bench.sink import swallow

ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 100000\r\n\r\n" + b"a" * 100_000


def test_the_head_of_an_answer_gives_the_length_of_its_body() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(ANSWER[:200])
        assert begin_body(here) == 100_000
        assert here.recv(1) == b"a"


def test_an_answer_that_breaks_off_is_an_error() -> None:
    here, there = socket.socketpair()
    with here:
        there.sendall(b"HTTP/1.1 200 OK\r\n")
        there.close()
        with pytest.raises(EOFError, match="before the body"):
            begin_body(here)


def test_what_comes_too_early_or_too_late_does_not_count() -> None:
    now = time.monotonic()
    before, within, after = Meter(now + 60, now + 61), Meter(now - 1, now + 60), Meter(now - 2, now - 1)
    assert [each.add(5) for each in (before, within, after)] == [True, True, False]
    assert [each.total_bytes for each in (before, within, after)] == [0, 5, 0]


def serve(listener: socket.socket) -> int:
    requests = 0
    connection, _ = listener.accept()
    with connection:
        while connection.recv(1000):
            requests += 1
            try:
                connection.sendall(ANSWER)
            except OSError:
                break
    return requests


def test_bodies_are_downloaded_one_after_the_other_until_the_time_is_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, listener)
        now = time.monotonic()
        meter = Meter(now, now + 0.05)
        download("127.0.0.1", listener.getsockname()[1], meter)
        assert 0 < meter.total_bytes <= served.result() * 100_000


def test_several_streams_are_added_up_and_what_is_sent_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as pool:
        swallowed = [pool.submit(lambda: swallow(listener.accept()[0])) for _ in range(2)]
        port = listener.getsockname()[1]
        count, took = move(lambda meter: upload("127.0.0.1", port, meter), 0.05, 2)
        assert took == 0.05
        assert 0 < count <= sum(each.result() for each in swallowed)
