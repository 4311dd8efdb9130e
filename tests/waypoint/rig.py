"""Connections of a waypoint without any I/O: transports that write down, a clock, servers that are played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from ztunnel.errors import ConnectionFailed
from ztunnel.flow.timers import Timer, Timers
from ztunnel.flow.transport import Receiver
from ztunnel.http1.head import Fields
from ztunnel.l7.reply import NO_HEALTHY_UPSTREAM
from ztunnel.l7.request import Request
from ztunnel.l7.routing.plan import UNROUTED, Plan
from ztunnel.l7.routing.retry import Budget
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.shadow import Shadows
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.way import Common, HttpWay, Watched


class Clock:
    """The engine, by hand; what is posted is called at once, or with `posts` at a round's end."""

    def __init__(self) -> None:
        self.now = 100.0
        self.number = 0
        self.later: list[Callable[[], None]] = []
        self.posts = False
        self.posted: list[Callable[[], None]] = []
        self.timers = Timers()

    def next_round(self, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def post(self, callback: Callable[[], None]) -> None:
        if self.posts:
            self.posted.append(callback)
        else:
            callback()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.timers.add(self.now + seconds, callback)

    def sleep(self, seconds: float) -> None:
        """So much time passes, from timer to timer."""
        until = self.now + seconds
        while self.timers.next_at <= until:
            self.now = max(self.now, self.timers.next_at)
            for callback in self.timers.due(self.now):
                callback()
        self.now = until

    def rounds(self) -> None:
        """As many as something is to be called in."""
        for _ in range(10_000):
            if not self.later and not self.posted:
                return
            self.number += 1
            due, self.later = self.later, []
            for callback in due:
                callback()
            posted, self.posted = self.posted, []
            for callback in posted:
                callback()
        raise AssertionError("it does not come to an end")


class Wire:
    """A transport that writes down; `stuck`: nothing leaves."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.writes = 0
        self.given = 0
        self.took = 0
        self.finished = False
        self.aborted: ConnectionFailed | None = None
        self.stuck = False
        self.unsent_bytes = 0
        self.leaving = False
        self.receiver: Receiver | None = None

    def write(self, part: bytes | memoryview) -> None:
        if not self.finished and self.aborted is None:
            self.written += part
            self.writes += 1
            if self.stuck:
                self.unsent_bytes += len(part)

    def finish(self) -> None:
        self.finished = True

    def taken(self, count: int) -> None:
        self.took += count

    def abort(self, error: ConnectionFailed) -> None:
        if self.aborted is None:
            self.aborted = error

    # The peer.

    def send(self, octets: bytes) -> None:
        """The peer sends."""
        assert self.receiver is not None
        self.given += len(octets)
        self.receiver.received(memoryview(octets))

    def unstick(self) -> None:
        """The peer reads."""
        assert self.receiver is not None
        self.stuck, self.unsent_bytes = False, 0
        self.receiver.writable()

    def said(self) -> bytes:
        """What was written since the last time."""
        octets = bytes(self.written)
        self.written.clear()
        return octets

    @property
    def over(self) -> bool:
        return self.finished or self.aborted is not None


@dataclass
class Server:
    """The server's end of an exchange: what it was asked, and what it says when it has been asked all."""

    answer: Callable[[Server], None] | None = None
    host: str = "10.0.0.9:80"
    reused: bool = False
    request: Request | None = None
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    trailers: Fields = ()
    cancelled: bool = False
    took: int = 0
    held: int = 0
    exchange: Exchange | None = None

    def ask(self, request: Request, end: bool) -> None:
        assert self.request is None
        self.request = request
        if end:
            self.finish(())

    def send(self, payload: memoryview) -> None:
        assert not self.whole
        self.body += payload

    def finish(self, trailers: Fields) -> None:
        assert not self.whole
        self.whole, self.trailers = True, trailers
        if self.answer is not None:
            self.answer(self)

    def cancel(self) -> None:
        self.cancelled = True

    def taken(self, count: int) -> None:
        self.took += count

    def unsent(self) -> int:
        return self.held

    # What it says.

    def respond(self, *fields: tuple[bytes, bytes], status: bytes = b"200", end: bool = False) -> None:
        assert self.exchange is not None
        self.exchange.responded(((b":status", status), *fields), end)

    def say(self, octets: bytes) -> None:
        assert self.exchange is not None
        self.exchange.payload(memoryview(octets))

    def end(self, trailers: Fields = ()) -> None:
        assert self.exchange is not None
        self.exchange.whole(trailers)


def echoes(server: Server) -> None:
    """Say the method, the path and the body."""
    assert server.request is not None
    body = b"%b %b %b" % (server.request.method, server.request.path, bytes(server.body))
    if server.request.method == b"HEAD":
        server.respond((b"content-length", b"%d" % len(body)), end=True)
        return
    server.respond((b"content-length", b"%d" % len(body)))
    server.say(body)
    server.end()


class Rig:
    """A way whose servers are played, and what became of its exchanges."""

    def __init__(self, answer: Callable[[Server], None] | None = None) -> None:
        self.clock = Clock()
        self.live: set[Watched] = set()
        self.answer = answer
        self.servers: list[Server] = []
        self.ended_: list[Exchange] = []
        self.reachable = True
        self.waits = False
        self.waiting: list[Exchange] = []
        self.reused = False
        self.refusals: list[str] = []
        self.plan: Plan | None = None
        self.budget = Budget()
        self.shadows = Shadows(self.clock)
        common = Common(
            self.clock,
            self.live,
            lambda: b"an-id",
            refused=self.refusals.append,
            rng=Random(1),
            budget=self.budget,
        )
        self.way = HttpWay(common, self, self)

    def begin(self, exchange: Exchange) -> None:
        exchange.proceed(self.plan or UNROUTED.of(exchange.request))

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        return self.shadows.begin(exchange, end, self.connect)

    def connect(self, exchange: Exchange) -> None:
        if not self.reachable:
            exchange.unreachable(NO_HEALTHY_UPSTREAM, "nobody")
        elif self.waits:
            self.waiting.append(exchange)
        else:
            self.stand(exchange)

    def stand(self, exchange: Exchange) -> Server:
        server = Server(self.answer, reused=self.reused, exchange=exchange)
        self.servers.append(server)
        exchange.connected(server)
        return server

    def ended(self, exchange: Exchange) -> None:
        assert exchange not in self.ended_
        self.ended_.append(exchange)

    @property
    def server(self) -> Server:
        return self.servers[-1]


class Client:
    """The client's end, which writes down."""

    def __init__(self) -> None:
        self.said: list[tuple] = []
        self.took = 0
        self.held = 0

    def respond(self, fields, end) -> None:
        self.said.append(("head", int(fields[0][1]), end))

    def inform(self, fields) -> None:
        self.said.append(("interim", int(fields[0][1])))

    def send(self, payload) -> None:
        self.said.append(("body", bytes(payload)))

    def finish(self, trailers) -> None:
        self.said.append(("end", trailers))

    def reset(self) -> None:
        self.said.append(("reset",))

    def taken(self, count) -> None:
        self.took += count

    def unsent(self) -> int:
        return self.held
