"""`ztunnel control` as a process of the benchmark."""

from __future__ import annotations

import os
import socket

from bench.control_process import free_ports, port_of, used


def test_its_port_stands_in_the_line_that_says_ready() -> None:
    assert port_of(b'{"message": "ready", "port": 15012}') == 15012
    assert port_of(b'{"fields": {"message": "ready", "port": 7}}') == 7
    assert port_of(b'{"message": "starting", "port": 15012}') == 0
    assert port_of(b"not JSON") == 0


def test_ports_are_free_and_no_two_the_same() -> None:
    ports = free_ports(3)
    assert len(set(ports)) == 3
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_what_a_process_has_used() -> None:
    seconds, mebibytes = used(os.getpid())
    while used(os.getpid())[0] <= seconds:
        sum(range(10_000))
    assert 5 < mebibytes < 10_000
