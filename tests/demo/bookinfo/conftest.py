"""Services that listen on ports which the kernel chooses, and a client."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse

import pytest

from ztunnel.demo.bookinfo.service import Answer, Request, Server, json_answer


@dataclass
class Said:
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def value(self) -> object:
        return json.loads(self.body)


@dataclass
class Client:
    """Asks a service over a real socket."""

    port: int
    host: str = "127.0.0.1"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Said:
        connection = HTTPConnection(self.host, self.port, timeout=4)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        said: HTTPResponse = connection.getresponse()
        found = Said(said.status, said.read(), {k.lower(): v for k, v in said.getheaders()})
        connection.close()
        return found


@dataclass
class Recorder:
    """A service that answers what it is told, and remembers what it was asked."""

    answers: list[Answer] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.answers.pop(0) if self.answers else json_answer({})


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[Request], Answer]], Client]]:
    running: list[tuple[Server, threading.Thread]] = []

    def begin(answer: Callable[[Request], Answer]) -> Client:
        server = Server(answer, 0)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return Client(server.port)

    yield begin
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()
