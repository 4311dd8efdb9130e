"""Services that listen on ports which the kernel chooses, and a client."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import cast

import pytest

from ztunnel.demo.bookinfo.place import Bookinfo
from ztunnel.demo.bookinfo.service import Answer, Request, Server, json_answer
from ztunnel.demo.bookinfo.visit import Visit
from ztunnel.demo.claims.claim import Claim
from ztunnel.demo.claims.perform import measure
from ztunnel.demo.claims.table import complaints
from ztunnel.demo.failure import LaboratoryFailed
from ztunnel.demo.manifest import Manifest
from ztunnel.demo.samples import Sample, Samples


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


@dataclass
class Staged:
    """Stands in for Bookinfo in a laboratory: what is seen there is written down before.

    `scene` gives what is seen in the place of each look, called with its arguments and what was applied last.
    """

    scene: Callable[..., list[Visit]]
    metrics: Callable[[], float] = lambda: 0.0
    copies: Callable[[], int] = lambda: 0
    flag: str = "UO"
    applied: tuple[str, ...] = ()
    looks: list[dict[str, object]] = field(default_factory=list)
    manifests: list[Manifest] = field(default_factory=list)
    deleted: list[Manifest] = field(default_factory=list)

    def apply(self, *files: str) -> None:
        self.applied = files

    def change(self, manifests: list[Manifest], *, delete: bool = False) -> None:
        if delete:
            self.deleted = manifests
        else:
            self.manifests = manifests

    def look(self, count: int, **options: object) -> tuple[Visit, ...]:
        self.looks.append({"count": count, **options})
        return tuple(self.scene(count, applied=self.applied, **options))

    def samples(self) -> Samples:
        labels = {
            "response_flags": self.flag,
            "destination_app": "reviews",
            "destination_workload_namespace": "bookinfo",
        }
        return Samples((Sample("istio_requests_total", labels, self.metrics()),))

    def asked(self, workload: str) -> int:
        assert workload == "reviews-v3"
        return self.copies()

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 0.0) -> None:
        if not holds():
            raise LaboratoryFailed(f"not within {seconds:.0f} s: {what}")


def walked(step: Claim[Bookinfo], place: Staged) -> list[str]:
    """What speaks against a step in that place; nothing if it holds."""
    outcome = measure(step, cast(Bookinfo, place))
    assert outcome.found or outcome.error
    return complaints(outcome)


def seen(version: str, count: int = 1, **fields: object) -> list[Visit]:
    """Visits that were answered by a version."""
    colors = {"v2": "black", "v3": "red"}
    known = {
        "status": 200,
        "seconds": 0.01,
        "pod": f"reviews-{version}-a-b",
        "color": colors.get(version, ""),
    }
    return [Visit(**{**known, **fields}) for _ in range(count)]
