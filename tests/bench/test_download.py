"""The client that downloads without end."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.download import begin_body, download

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


def test_bodies_are_downloaded_one_after_the_other_until_the_time_is_over() -> None:
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

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, listener)
        count, took = download("127.0.0.1", listener.getsockname()[1], seconds=0.05)
        assert took >= 0.05
        assert 0 < count <= served.result() * 100_000
