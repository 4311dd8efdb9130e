"""What the four services have in common: a small HTTP server, and calls to each other that pass on the
headers by which a mesh knows that they are one request.

Standard library only. A service answers on every address of its pod, in both families, each
connection in a thread.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PORT = 9080
LISTENING = "listens on port"

PROPAGATED = (
    "x-request-id",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "b3",
    "traceparent",
    "tracestate",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "sw8",
    "end-user",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
)
"""Copied from each request to those that it causes (istio/istio samples/bookinfo: getForwardHeaders)."""

_MOST_BODY_BYTES = 64 << 10
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Request:
    """What a service is asked; `path` has no query, `headers` are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def propagated(self) -> dict[str, str]:
        """The headers to send on."""
        return {name: self.headers[name] for name in PROPAGATED if name in self.headers}


@dataclass(frozen=True, slots=True)
class Answer:
    """What it answers."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: object, status: int = HTTPStatus.OK) -> Answer:
    """One that says `value`."""
    return Answer(status, json.dumps(value).encode())


class Called(NamedTuple):
    """What another service said: `status` 0 and the reason in `failure` where it said nothing in time."""

    status: int
    value: Any = None
    failure: str = ""


def call(url: str, headers: Mapping[str, str], seconds: float) -> Called:
    """GET from another service; it may take so long to connect, and to send anything."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        connection.request("GET", parts.path, headers={**headers, "accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
        return Called(response.status, json.loads(body) if response.status == HTTPStatus.OK else None)
    except (OSError, HTTPException, ValueError) as error:
        return Called(0, failure=str(error) or type(error).__name__)
    finally:
        connection.close()


class Server(ThreadingHTTPServer):
    """Serves `answer` on a port of every address; 0 has the kernel choose one."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    request_queue_size = _BACKLOG
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answer: Callable[[Request], Answer], port: int) -> None:
        """Listens at once."""
        self.answer = answer
        super().__init__(("", port), _Connection)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    @property
    def port(self) -> int:
        """That it listens on."""
        number: int = self.server_address[1]
        return number


class _Connection(BaseHTTPRequestHandler):
    """One connection of a client, kept alive as HTTP/1.1 has it."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # a head and its body leave together

    def do_GET(self) -> None:
        length = self.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > _MOST_BODY_BYTES or "transfer-encoding" in self.headers:
            self.close_connection = True
            self._send(json_answer({"error": "the body is too long"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
            return
        body = self.rfile.read(int(length)) if length != "0" else b""
        headers = _lowered(self.headers)
        self._send(self.server.answer(Request(self.command, urlsplit(self.path).path, headers, body)))

    do_HEAD = do_POST = do_GET

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("content-type", answer.kind)
        self.send_header("content-length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """One line on stdout: the request, its status, its id and the end user."""
        known = [self.headers.get(name, "-") for name in ("x-request-id", "end-user")] if self._asked else []
        print(format % args, *known, flush=True)

    @property
    def _asked(self) -> bool:
        return hasattr(self, "headers")


def _lowered(headers: Message) -> dict[str, str]:
    """Fields of one name as one, as RFC 9110 5.3 joins them; cookies as RFC 6265 does."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        known, low = found.get(name.lower()), name.lower()
        found[low] = value if known is None else f"{known}{'; ' if low == 'cookie' else ', '}{value}"
    return found


def serve(answer: Callable[[Request], Answer]) -> None:
    """Serve until the process ends, on the port of the command line."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    with Server(answer, port) as server:
        print(LISTENING, server.port, flush=True)
        server.serve_forever()


def health(name: str) -> Answer:
    """That of `/health`."""
    return json_answer({"status": f"{name} is healthy"})


def not_found() -> Answer:
    """There is no such path."""
    return json_answer({"error": "there is nothing here"}, HTTPStatus.NOT_FOUND)


def product_of(path: str, prefix: str) -> int | None:
    """The number behind `/prefix/`; None where none is there."""
    number = path.removeprefix(f"/{prefix}/")
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 10 else None
