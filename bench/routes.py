"""How long a waypoint's decision takes with a thousand routes: `python -m bench.routes`.

Each mix is a thousand rules of one kind, asked for requests that the first, the middle and the last of them
are for, and that none is for; a request is read anew each time, as it is when one comes. Without
compilation the figures are those of plain Python; `make install` compiles what the waypoint uses, not what
this program does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

from ztunnel.l7.request import Request
from ztunnel.l7.routing.comparison import Asked
from ztunnel.l7.routing.router import Router
from ztunnel.model.route import Routes, RouteSource, Rule
from ztunnel.model.route_action import DirectResponse
from ztunnel.model.route_match import FieldMatch, Match, TextKind, TextMatch
from ztunnel.model.service import ServiceName

ROUTES = 1000
MUST_SECONDS = 100e-6
GOAL_SECONDS = 20e-6
_TIMES = 2000

_REVIEWS = ServiceName("shop", "reviews.shop.svc.cluster.local")
_SOURCE = RouteSource("VirtualService", "shop", "reviews")
_USUAL = [
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip"),
    (b"x-request-id", b"a2b5d1f0-3f7c-4b0e-9f5c-1d2e3f4a5b6c"), (b"x-forwarded-proto", b"http"),
    (b"cookie", b"session=abcdefgh"),
    (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]  # fmt: skip


def _path(kind: TextKind, text: str) -> Match:
    return Match(path=TextMatch(kind, text))


def _header(number: int, path: TextMatch | None = None) -> Match:
    return Match(path=path, headers=(FieldMatch("x-user", TextMatch(TextKind.EXACT, f"user-{number}")),))


MIXES: dict[str, Callable[[int], Match]] = {
    "exact paths": lambda n: _path(TextKind.EXACT, f"/api/v1/items/{n}"),
    "prefixes of paths": lambda n: _path(TextKind.PREFIX, f"/service-{n:04}/"),
    "segments of paths": lambda n: _path(TextKind.SEGMENTS, f"/tenants/{n}/api"),
    "expressions that begin apart": lambda n: _path(TextKind.REGEX, f"/service-{n:04}/[a-z]+/[0-9]+"),
    "expressions that begin alike": lambda n: _path(TextKind.REGEX, f".*/service-{n:04}/[a-z]+"),
    "one header": lambda n: _header(n, TextMatch(TextKind.PREFIX, "/")),
    "parameters": lambda n: Match(query=(FieldMatch("user", TextMatch(TextKind.EXACT, f"user-{n}")),)),
}


def requests_of(name: str, number: int) -> Request:
    """One that the rule of that number, in that mix, is for."""
    paths = {
        "exact paths": f"/api/v1/items/{number}",
        "prefixes of paths": f"/service-{number:04}/a/b?c=d",
        "segments of paths": f"/tenants/{number}/api/x",
        "expressions that begin apart": f"/service-{number:04}/users/17",
        "expressions that begin alike": f"/a/service-{number:04}/users",
        "one header": "/a",
        "parameters": f"/a?b=c&user=user-{number}",
    }
    fields = [*_USUAL, (b"x-user", b"user-%d" % number)]
    return Request(b"GET", b"reviews:9080", paths[name].encode(), fields)


def router_of(name: str) -> Router:
    """A thousand rules of that mix."""
    match = MIXES[name]
    rules = [Rule(str(number), _SOURCE, DirectResponse(200), (match(number),)) for number in range(ROUTES)]
    return Router(Routes(_REVIEWS, tuple(rules)), 9080)


def measured(router: Router, request: Request, times: int = _TIMES) -> float:
    """Seconds of one decision: the median of ten rounds."""

    def one() -> float:
        began = time.perf_counter()
        for _ in range(times // 10):
            router.decide(Asked(request))
        return (time.perf_counter() - began) / (times // 10)

    return median(one() for _ in range(10))


def lines(times: int = _TIMES) -> Iterator[tuple[str, float, float]]:
    """Of each mix: its name, the slowest of its requests, and how long it took to compile it."""
    for name in MIXES:
        began = time.perf_counter()
        router = router_of(name)
        compiled = time.perf_counter() - began
        numbers = (0, ROUTES // 2, ROUTES - 1, ROUTES)
        yield name, max(measured(router, requests_of(name, number), times) for number in numbers), compiled


def main() -> int:
    """Print the table; 1 if a decision took too long."""
    late = 0
    print(f"a decision with {ROUTES} routes: at most {MUST_SECONDS * 1e6:.0f} us,", end=" ")
    print(f"better {GOAL_SECONDS * 1e6:.0f} us\n")
    for name, seconds, compiled in lines():
        late += seconds > MUST_SECONDS
        print(f"{name:30} {seconds * 1e6:8.1f} us   (compiled in {compiled * 1e3:.0f} ms)")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
