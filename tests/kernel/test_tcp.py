"""TCP sockets without the class in Python around them."""

from __future__ import annotations

import os
import socket

import pytest

from ztunnel.kernel.tcp import STREAM, TcpSocket

FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
BOTH = pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["v4", "v6"]
)


@BOTH
def test_one_carries_bytes_and_is_closed_once(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        near = TcpSocket(family, STREAM)
        near.connect(server.getsockname())
        far, _ = server.accept()
        with far:
            near.sendall(b"up")
            assert far.recv(9) == b"up"
            far.sendall(b"down")
            assert near.recv(9) == b"down"
            fd = near.fileno()
            near.close()
            near.close()
            assert (near.fileno(), far.recv(9)) == (-1, b"")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@BOTH
def test_one_that_is_there_is_taken_over(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        client.connect(server.getsockname())
        far, _ = server.accept()
        fd = far.detach()
        with TcpSocket(family, STREAM, 0, fd) as taken:
            assert (taken.fileno(), taken.family, taken.type) == (fd, family, socket.SOCK_STREAM)
            assert taken.getpeername() == client.getsockname()
        assert client.recv(9) == b""


def test_its_flags_hold_from_the_start() -> None:
    with TcpSocket(socket.AF_INET, STREAM | FLAGS) as made:
        assert not made.getblocking()
        assert not os.get_blocking(made.fileno())
        assert not os.get_inheritable(made.fileno())
    with TcpSocket(socket.AF_INET, STREAM) as made:
        assert made.getblocking()


def test_what_is_no_socket_is_not_taken() -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            TcpSocket(socket.AF_INET, STREAM, 0, read)
    finally:
        os.close(read)
        os.close(write)


def test_one_that_is_lost_is_told_of_and_closed() -> None:
    made = TcpSocket(socket.AF_INET, STREAM)
    fd = made.fileno()
    with pytest.warns(ResourceWarning):
        del made
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
