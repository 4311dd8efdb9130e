import json
import os
import socket
import subprocess
import sys
from http.client import HTTPConnection

import pytest

from tests.demo.bookinfo.conftest import Client, Recorder
from ztunnel.demo.bookinfo.service import PROPAGATED, Called, Request, call, json_answer, product_of
from ztunnel.demo.operate import BUNDLED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_service_answers_in_both_families(start, recorder: Recorder, host: str) -> None:
    client = start(recorder.answer)
    recorder.answers = [json_answer({"a": 1})]
    said = Client(client.port, host).ask("/x?y=z")
    assert (said.status, said.value) == (200, {"a": 1})
    assert recorder.asked[0].path == "/x"


def test_requests_on_one_connection_are_answered_in_order_with_their_bodies(
    start, recorder: Recorder
) -> None:
    connection = HTTPConnection("127.0.0.1", start(recorder.answer).port, timeout=4)
    for number in range(3):
        connection.request("POST", f"/{number}", b"x" * number)
        assert connection.getresponse().read() == b"{}"
    connection.close()
    assert [(one.path, one.body) for one in recorder.asked] == [("/0", b""), ("/1", b"x"), ("/2", b"xx")]


def test_a_head_is_answered_without_a_body(start, recorder: Recorder) -> None:
    said = start(recorder.answer).ask("/", "HEAD")
    assert (said.status, said.body, said.headers["content-length"]) == (200, b"", "2")


@pytest.mark.parametrize(
    "fields",
    [b"content-length: 65537", b"content-length: -1", b"content-length: x", b"transfer-encoding: chunked"],
)
def test_a_body_that_is_too_long_or_of_no_length_ends_the_connection(start, recorder, fields: bytes) -> None:
    with socket.create_connection(("127.0.0.1", start(recorder.answer).port), timeout=4) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nhost: a\r\n" + fields + b"\r\n\r\n")
        got = b"".join(iter(lambda: sock.recv(1 << 16), b""))
    assert got.startswith(b"HTTP/1.1 413 ")
    assert not recorder.asked


def test_only_headers_of_the_request_as_a_whole_are_sent_on() -> None:
    headers = {name: name.upper() for name in PROPAGATED} | {
        "host": "h",
        "accept": "a",
        "content-length": "3",
    }
    assert Request("GET", "/", headers).propagated == {name: name.upper() for name in PROPAGATED}


def test_fields_of_one_name_are_joined(start, recorder: Recorder) -> None:
    with socket.create_connection(("127.0.0.1", start(recorder.answer).port), timeout=4) as sock:
        sock.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\ncookie: b=2\r\nTraceState: x\r\ntracestate: y\r\n"
            b"connection: close\r\n\r\n"
        )
        assert b"".join(iter(lambda: sock.recv(1 << 16), b"")).startswith(b"HTTP/1.1 200 ")
    assert recorder.asked[0].headers["cookie"] == "a=1; b=2"
    assert recorder.asked[0].headers["tracestate"] == "x, y"


def test_a_call_gives_what_was_said(start, recorder: Recorder) -> None:
    client = start(recorder.answer)
    recorder.answers = [json_answer({"id": 1}), json_answer({"error": "e"}, 503)]
    url = f"http://127.0.0.1:{client.port}/a/1"
    assert call(url, {"x-request-id": "q"}, 2.0) == Called(200, {"id": 1})
    assert call(url, {}, 2.0) == Called(503)
    assert [one.headers.get("x-request-id") for one in recorder.asked] == ["q", None]


def test_a_call_that_is_not_answered_says_why(start, recorder: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        said = call(f"http://127.0.0.1:{port}/", {}, 0.05)
    assert (said.status, said.failure) == (0, "timed out")
    assert call(f"http://127.0.0.1:{port}/", {}, 0.05).failure.endswith("Connection refused")


def test_an_answer_that_is_no_json_is_a_failure(start, recorder: Recorder) -> None:
    client = start(recorder.answer)
    recorder.answers = [type(json_answer(0))(200, b"<html>")]
    assert call(f"http://127.0.0.1:{client.port}/", {}, 2.0).status == 0


@pytest.mark.parametrize(
    ("path", "number"),
    [("/a/0", 0), ("/a/17", 17), ("/a/", None), ("/a/x", None), ("/a/-1", None), ("/a/1/2", None),
     ("/a/²", None), ("/a/12345678901", None)],
)  # fmt: skip
def test_a_book_has_a_number(path: str, number: int | None) -> None:
    assert product_of(path, "a") == number


@pytest.mark.parametrize("name", ["details", "ratings", "reviews", "productpage"])
def test_each_service_is_a_program_that_says_its_port_and_is_healthy(name: str) -> None:
    command = [sys.executable, "-m", f"ztunnel.demo.bookinfo.{name}", "0"]
    environment = {**os.environ, "PYTHONPATH": str(BUNDLED.parents[2])}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[-1])
            said = Client(port).ask("/health", x_request_id="some-id", end_user="jason")
            assert said.status == 200
            assert b"healthy" in said.body
            assert process.stdout.readline() == '"GET /health HTTP/1.1" 200 - some-id jason\n'
        finally:
            process.kill()


def test_a_line_of_the_log_is_json_free_of_line_ends(start, recorder: Recorder, capsys) -> None:
    start(recorder.answer).ask("/a%0ab", x_request_id="q")
    assert json.dumps(capsys.readouterr().out.splitlines()) == json.dumps(['"GET /a%0ab HTTP/1.1" 200 - q -'])
