"""Tables of what Istio's documentation and the Gateway API's conformance tests show of routing: objects, and
what becomes of requests and connections.

Each table is a YAML file here: its first document has the service that is called and the cases, the others
are objects of the namespace `shop`. The same cases are decided about (tests/control/test_documented_cases.py)
and asked through real processes (tests/mesh/test_documented_cases.py); both end in an `Outcome`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import yaml

from tests.l7.issuers import ISSUER, jwk, jwks

FOLDER = Path(__file__).parent
VERSIONS = ("v1", "v2", "v3")
REFUSED = -1
"""A stream that a server gives back unread (HTTP/2 REFUSED_STREAM); in a table it is `refused`."""

SIGMAS = 4.5
"""How far a count may be from what it should be: beyond is one in a hundred thousand."""

PORTS = (
    "{name: http, port: 80, targetPort: 8081}, {name: http-other, port: 90, targetPort: 8081}, "
    "{name: grpc, port: 7070, targetPort: 8081}, {name: tcp, port: 5432, targetPort: 8083}, "
    "{name: tcp-other, port: 5433, targetPort: 8083}, {name: tls, port: 443, targetPort: 8083}, "
    "{name: by-kind, port: 8000, targetPort: 8081, appProtocol: http}"
)


def service(name: str, selector: str, labels: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}\n"
        f"spec: {{selector: {{{selector}}}, ports: [{PORTS}]}}\n---\n"
    )


BACKENDS = "".join(service(name, f"version: {name}") for name in VERSIONS)
"""A service for each version of the server."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request, or one connection.

    Attributes:
        service, port: that are called.
        method, path, host, headers: of the request; a `host` of its own is not the service's name. `tcp`: it
            is a connection that speaks no HTTP.
        claims: of the token that it brings.
        scheme: that it names, if it is a call of gRPC.
        fails, waits: the statuses (of gRPC, for a call of that) with which its server answers one try after
            the other, 0 for none: it cuts the connection off, or REFUSED: it gives the stream back unread;
            and the seconds it takes for each before it does. After them it answers 200, at once.
        limited: whether what fails says that it was for a rate limit (`x-envoy-ratelimited`).
        to: the versions that it may go to, in percent of such requests; none: it is answered.
        status, grpc: of the response; the latter is -1 where it is no call of gRPC.
        sent, got: fields of the request as the server has it, and of the response; None: it has none. `path`
            and `host` of the former are the request's own.
        body: of a response that no server makes.
        tries: how often it is sent.
        delay: the seconds that it is held up.
        copies: how many percent of such requests are sent to which version as well.
        route: the name in the log.
    """

    service: str
    port: int
    text: str
    method: str = "GET"
    path: str = "/"
    host: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    tcp: bool = False
    is_grpc: bool = False
    claims: Mapping[str, Any] | None = None
    scheme: str = "http"
    fails: tuple[int, ...] = ()
    waits: tuple[float, ...] = ()
    limited: bool = False
    to: Mapping[str, float] = field(default_factory=dict)
    status: int = 200
    grpc: int = -1
    sent: Mapping[str, str | None] = field(default_factory=dict)
    got: Mapping[str, str | None] = field(default_factory=dict)
    body: str | None = None
    tries: int = 1
    delay: float = 0.0
    copies: Mapping[str, float] = field(default_factory=dict)
    route: str | None = None

    @property
    def is_share(self) -> bool:
        """Whether it takes many such requests to tell."""
        return len(self.to) > 1 or any(0 < share < 100 for share in self.copies.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of one: `to` is the version that has answered, or `any` for one of the service's."""

    to: str = ""
    status: int = 200
    grpc: int = -1
    sent: Mapping[str, str] = field(default_factory=dict)
    got: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    tries: int = 1
    delay: float = 0.0
    copies: tuple[str, ...] = ()
    route: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """One file: `objects` are its manifests, the service among them; `doubtful`: some are to be warned of;
    `addresses` are those of a service that is a ServiceEntry of the table's own, else none."""

    name: str
    objects: str
    cases: tuple[Case, ...]
    doubtful: bool
    addresses: tuple[str, ...]


def check(case: Case, found: Outcome) -> None:
    """It has become what the case says, but for shares."""
    said = f"{case.text}: {found}"
    assert (found.status, found.grpc) == (case.status, case.grpc), said
    if case.to:
        assert found.to in case.to or found.to == "any" or "any" in case.to, said
        assert found.tries == case.tries, said
    else:
        assert found.to == "", said
    for wanted, has in ((case.sent, found.sent), (case.got, found.got)):
        assert {name: has.get(name) for name in wanted} == dict(wanted), said
    if case.body is not None:
        assert found.body == case.body, said
    assert case.delay <= found.delay <= case.delay + 5, said
    if case.route is not None:
        assert found.route == case.route, said
    if not case.is_share:
        assert sorted(found.copies) == sorted(name for name, share in case.copies.items() if share), said


def check_shares(case: Case, found: list[Outcome]) -> None:
    """Of that many such requests each version has had its share, and its copies."""
    total = len(found)
    for shares, counts in (
        (case.to, [one.to for one in found]),
        (case.copies, [name for one in found for name in one.copies]),
    ):
        for name, percent in shares.items():
            share, count = percent / 100, counts.count(name)
            far = SIGMAS * sqrt(total * share * (1 - share)) + 1e-9
            assert abs(count - total * share) <= far, f"{case.text}: {name} {count} of {total}"


def read(path: Path) -> Table:
    """One file."""
    text = path.read_text().replace("JWKS", json.dumps(jwks(jwk("EdDSA")))).replace("ISSUER", ISSUER)
    head, *objects = (one for one in yaml.safe_load_all(text) if one)
    name = head["service"]
    for one in objects:
        if one["kind"] != "Namespace":
            one["metadata"].setdefault("namespace", "shop")
    made = "" if "addresses" in head else service(name, "app: server", "istio.io/use-waypoint: wp")
    made += "".join(yaml.safe_dump(one, sort_keys=False) + "---\n" for one in objects)
    cases = tuple(_case(name, one) for one in head["cases"])
    return Table(path.stem, made, cases, "doubtful" in head, tuple(head.get("addresses", ())))


def tables() -> Iterator[Table]:
    """All of them."""
    return map(read, sorted(FOLDER.glob("*.yaml")))


def _case(name: str, written: dict[str, Any]) -> Case:
    """A case as it is written: `ask`, `call` (a method of gRPC) or `tcp` (a port), and what is expected."""
    said = dict(written)
    text = f"{name}: {written}"
    headers = {each.lower(): str(value) for each, value in said.pop("with", {}).items()}
    method, path, port, tcp, is_grpc = "GET", "/", 80, False, False
    if "tcp" in said:
        port, tcp = said.pop("tcp"), True
    elif "call" in said:
        method, path, port, is_grpc = "POST", said.pop("call"), 7070, True
        headers = {"content-type": "application/grpc", "te": "trailers", **headers}
        said.setdefault("grpc", 0)
    else:
        method, _, path = said.pop("ask").partition(" ")
    to = said.pop("to", {})
    return Case(
        name,
        said.pop("port", port),
        text,
        method,
        path,
        said.pop("host", name),
        headers,
        tcp,
        is_grpc,
        said.pop("claims", None),
        said.pop("scheme", "http"),
        tuple(REFUSED if each == "refused" else each for each in said.pop("fails", ())),
        tuple(said.pop("waits", ())),
        said.pop("limited", False),
        {to: 100} if isinstance(to, str) else to,
        **said,
    )
