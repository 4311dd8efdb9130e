import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from ztunnel.demo.operate import BUNDLED

ROOT = str(BUNDLED.parents[2])
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts echo servers on ports that the kernel chooses."""
    running: list[subprocess.Popen[str]] = []

    def begin(name: str = "a", calls: str = "") -> int:
        known = {"POD_NAME": name, "POD_NAMESPACE": "t", "NODE_NAME": "n", "CALLS": calls, "PYTHONPATH": ROOT}
        command = [sys.executable, "-S", "-m", "ztunnel.demo.echo", "0"]
        running.append(
            subprocess.Popen(command, env={**os.environ, **known}, stdout=subprocess.PIPE, text=True)
        )
        assert running[-1].stdout is not None
        return int(running[-1].stdout.readline().split()[-1])

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def talk(port: int, said: bytes, host: str = "127.0.0.1") -> bytes:
    """Send, close our side, and read to the end."""
    with socket.create_connection((host, port), timeout=4) as sock:
        sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def answers(text: bytes) -> list[dict[str, object]]:
    return [json.loads(part.partition(b"\r\n\r\n")[2]) for part in text.split(b"HTTP/1.1 200 OK\r\n")[1:]]


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_the_answer_says_who_called_whom(start: Start, host: str, shown: str) -> None:
    port = start()
    (found,) = answers(talk(port, b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n", host))
    assert found["called"] == f"{shown}:{port}"
    assert str(found["caller"]).startswith(f"{shown}:")
    assert (found["pod"], found["path"], found["method"]) == ("a", "/x?y", "GET")


def test_requests_on_one_connection_are_answered_in_order_and_bodies_are_counted(start: Start) -> None:
    post = b"POST /1 HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + b"b" * 300000
    found = answers(talk(start(), post + b"GET /2 HTTP/1.1\r\n\r\n"))
    assert [(one["path"], one["received_bytes"]) for one in found] == [("/1", 300000), ("/2", 0)]


def test_as_many_bytes_as_are_asked_for_come(start: Start) -> None:
    head, _, body = talk(start(), b"GET /bytes/1000000 HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Content-Length: 1000000" in head
    assert body == b"x" * 1000000


@pytest.mark.parametrize("said", [b"hello\n", b"GE", b"GETTING", b"\x16\x03\x01" * 500000])
def test_what_is_no_http_comes_back(start: Start, said: bytes) -> None:
    port = start()
    with socket.create_connection(("127.0.0.1", port), timeout=4) as sock:
        sent, back = memoryview(said), bytearray()
        while len(back) < len(said) and (len(said) > 2 or sent):
            sent = sent[sock.send(sent[:100000]) :] if sent else sent
            back += sock.recv(1 << 20) if len(said) > 2 else b""
        sock.shutdown(socket.SHUT_WR)
        back += b"".join(iter(lambda: sock.recv(1 << 16), b""))
    assert bytes(back) == (said if len(said) > 2 else b"")


def test_it_asks_others_first_and_says_what_they_said(start: Start) -> None:
    last = start("last")
    middle = start("middle", f"http://127.0.0.1:{last}/deep")
    first = start("first", f"http://127.0.0.1:{middle}/ http://127.0.0.1:1/ http://no.such.host.invalid/")
    (found,) = answers(talk(first, b"GET / HTTP/1.1\r\n\r\n"))
    said = {str(one.get("pod", one.get("url"))): one for one in found["answers"]}  # type: ignore[attr-defined]
    assert said["middle"]["answers"][0]["path"] == "/deep"
    assert "refused" in said["http://127.0.0.1:1/"]["error"]
    assert "error" in said["http://no.such.host.invalid/"]


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"GET\r\n\r\n", b"GET " + b"a" * 70000, b""]
)
def test_garbage_ends_one_connection_and_no_other(start: Start, said: bytes) -> None:
    port = start()
    talk(port, said)
    assert answers(talk(port, b"GET / HTTP/1.1\r\n\r\n"))


def test_a_port_that_is_taken_is_said_in_one_line(start: Start) -> None:
    command = [sys.executable, "-S", "-m", "ztunnel.demo.echo", str(start())]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
