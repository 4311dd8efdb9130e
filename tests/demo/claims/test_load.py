import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def echo() -> Iterator[int]:
    """The laboratory's echo server as the pod `one`; its port."""
    command = [sys.executable, "-S", "-m", "ztunnel.demo.echo", "0"]
    environment = {**os.environ, "POD_NAME": "one"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[-1])
        process.kill()


def load(port: int, at_once: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-S", "-m", "ztunnel.demo.claims.load", "127.0.0.1", str(port)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, str(at_once), str(count)], stdin=pipe, stdout=pipe, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    text, _ = process.communicate()
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_call_is_answered_and_counted_by_pod(echo: int) -> None:
    counted = said(load(echo, 8, 100))
    assert (counted["answers"], counted["errors"]) == ({"one": 100}, {})
    assert 0 < counted["slowest"] <= counted["seconds"]


def test_a_load_without_a_count_goes_on_until_its_input_ends(echo: int) -> None:
    counted = said(load(echo, 2, 0))
    assert counted["answers"]["one"] > 0
    assert counted["errors"] == {}


def test_refusals_are_counted_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    counted = said(load(port, 4, 20))
    assert (counted["answers"], counted["errors"]) == ({}, {"ECONNREFUSED": 20})


def test_an_answer_that_breaks_off_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = load(server.getsockname()[1], 1, 1)
        sock, _ = server.accept()
        sock.recv(1000)
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        sock.close()
        assert said(process)["errors"] == {"EOF": 1}
