"""Requests and responses of the proxy's own pages, and who may ask: values only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl, urlsplit

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The names by which a page for this machine only is asked for."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are lower case; of a header sent twice the values are joined by `, `.
    `local` says whether it came over loopback.

    `path` is what stands before `?`, undecoded: the pages have plain names.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    local: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `close` ends the connection after it."""

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use. Sizes in bytes, durations in seconds.

    Attributes:
        head_bytes: request line and headers together, to within one read of 4 KiB (nginx: 32 KiB in all).
        body_bytes: the longest body that is read.
        idle_seconds: for the next request to begin (Prometheus scrapes every 15 to 60 s on one connection).
        head_seconds: from its first byte to the end of its headers.
        body_seconds: for the body.
        answer_seconds: for computing the answer.
        write_seconds: for handing it to the client.
        connections: how many at once.
        hosts: the names under which this server may be called (`Host`, and `Origin` if sent), without ports;
            None for any. A page in a browser can make its own name point here (DNS rebinding); it cannot
            forge these headers.
    """

    head_bytes: int = 16 * 1024
    body_bytes: int = 64 * 1024
    idle_seconds: float = 75.0
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    answer_seconds: float = 30.0
    write_seconds: float = 30.0
    connections: int = 64
    hosts: frozenset[str] | None = None


def text(status: int, body: str, *, close: bool = False) -> Response:
    """A plain-text answer."""
    return Response(status, body.encode("utf-8", "backslashreplace"), close=close)


def parse_target(untrusted: str) -> tuple[str, Mapping[str, str]]:
    """Path and query of a request target in origin form. Of a parameter that comes twice, the last one
    counts.

    Raises:
        ValueError: not of that form, or more than 32 parameters.
    """
    path, _, query = untrusted.partition("?")
    if not path.startswith("/"):
        raise ValueError("the request target is not a path")
    parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=32)
    return path, MappingProxyType(dict(parameters))


def host_of(untrusted: str) -> str:
    """The host of a `Host` header, lower case, without its port; IPv6 keeps its brackets."""
    host = untrusted.strip().lower()
    if host.startswith("["):
        return host[: host.find("]") + 1]
    return host.partition(":")[0]


def may_ask(request: Request, hosts: frozenset[str] | None) -> bool:
    """Whether the names under which the client thinks to call us, and from where, are ours."""
    if hosts is None:
        return True
    if host_of(request.headers.get("host", "")) not in hosts:
        return False
    origin = request.headers.get("origin")
    if origin is None:
        return True
    return host_of(urlsplit(origin).netloc) in hosts if origin.startswith("http") else False


@dataclass(frozen=True, slots=True)
class Route:
    """One page: which methods it takes, and what answers."""

    methods: tuple[str, ...]
    answer: Answer


def router(routes: Mapping[str, Route]) -> Answer:
    """Answer by exact path: 404 if it is unknown, 405 with `Allow` for a wrong method; HEAD counts as GET."""

    async def answer(request: Request) -> Response:
        route = routes.get(request.path)
        if route is None:
            return text(404, "not found\n")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in route.methods:
            allow = ", ".join((*route.methods, "HEAD") if "GET" in route.methods else route.methods)
            return Response(405, b"method not allowed\n", headers=(("allow", allow),))
        return await route.answer(request)

    return answer
