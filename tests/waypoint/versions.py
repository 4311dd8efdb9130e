"""A client and a server of either version of HTTP with the waypoint between them, played by `h11` and `h2`,
so that somebody else reads what is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h11

from tests.waypoint.rig import Clock, Wire
from ztunnel.l7.routing.plan import UNROUTED, Plan
from ztunnel.waypoint.downstream1 import Http1Server
from ztunnel.waypoint.downstream2 import Http2Server
from ztunnel.waypoint.exchange.exchange import Exchange
from ztunnel.waypoint.exchange.sides import Copy
from ztunnel.waypoint.upstream.upstream1 import Http1Client
from ztunnel.waypoint.upstream.upstream2 import Http2Client
from ztunnel.waypoint.way import Common, HttpWay, Watched

Pairs = list[tuple[bytes, bytes]]


@dataclass
class Asked:
    """A request as its server, or a response as its client has it; `fields` of a request have `:method`,
    `:path` and `:authority`, of a response `:status`."""

    fields: dict[bytes, bytes]
    body: bytearray = field(default_factory=bytearray)
    trailers: Pairs = field(default_factory=list)
    interim: list[int] = field(default_factory=list)
    whole: bool = False
    reset: bool = False


@dataclass
class Told:
    """What the server answers: a response, or `raw` bytes of its version."""

    status: int = 200
    fields: Pairs = field(default_factory=list)
    body: bytes | None = b""
    trailers: Pairs = field(default_factory=list)
    interim: int = 0
    raw: bytes = b""
    length: bool = True


class Bodies:
    """Bodies that leave as the windows of an HTTP/2 connection allow."""

    def __init__(self, side: h2.connection.H2Connection) -> None:
        self.h2 = side
        self.left: dict[int, tuple[bytes, Pairs]] = {}

    def put(self, stream: int, body: bytes, trailers: Pairs) -> None:
        self.left[stream] = body, trailers
        self.flush()

    def flush(self) -> None:
        for stream, (body, trailers) in tuple(self.left.items()):
            while body:
                count = min(self.h2.local_flow_control_window(stream), 16_384, len(body))
                if count <= 0:
                    break
                self.h2.send_data(stream, body[:count], end_stream=count == len(body) and not trailers)
                body = body[count:]
            if body:
                self.left[stream] = body, trailers
                continue
            del self.left[stream]
            if trailers:
                self.h2.send_headers(stream, trailers, end_stream=True)


class Server1:
    """A server of HTTP/1.1; a second request on its connection has to come after the first was answered."""

    def __init__(self, told: Told) -> None:
        self.wire = Wire()
        self.told = told
        self.asked: list[Asked] = []
        self.h11 = h11.Connection(h11.SERVER)

    def pump(self) -> bool:
        said = self.wire.said()
        if said:
            self.h11.receive_data(said)
        while not self.wire.over:
            event = self.h11.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                break
            if isinstance(event, h11.Request):
                fields = dict(event.headers)
                fields |= {b":method": event.method, b":path": event.target, b":authority": fields[b"host"]}
                self.asked.append(Asked(fields))
            elif isinstance(event, h11.Data):
                self.asked[-1].body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.asked[-1].whole, self.asked[-1].trailers = True, list(event.headers)
                self._answer(self.asked[-1].fields[b":method"] == b"HEAD")
        return bool(said)

    def _answer(self, is_head: bool) -> None:
        told = self.told
        if told.raw:
            self.wire.send(told.raw)
            return
        octets = b""
        if told.interim:
            octets += self.h11.send(
                h11.InformationalResponse(status_code=told.interim, headers=[(b"link", b"x")])
            )
        fields = list(told.fields)
        if told.body is not None and told.length and not told.trailers:
            fields.append((b"content-length", b"%d" % len(told.body)))
        octets += self.h11.send(h11.Response(status_code=told.status, headers=fields))
        if told.body and not is_head:
            octets += self.h11.send(h11.Data(data=told.body))
        octets += self.h11.send(h11.EndOfMessage(headers=told.trailers))
        self.wire.send(octets)
        if self.h11.our_state is h11.DONE and not self.wire.over:
            self.h11.start_next_cycle()


class Server2:
    """A server of HTTP/2; `raw` has to hold whole frames for stream 1."""

    def __init__(self, told: Told) -> None:
        self.wire = Wire()
        self.told = told
        self.streams: dict[int, Asked] = {}
        config = h2.config.H2Configuration(
            client_side=False, header_encoding=None, validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )  # fmt: skip
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.bodies = Bodies(self.h2)

    @property
    def asked(self) -> list[Asked]:
        return list(self.streams.values())

    def pump(self) -> bool:
        said = self.wire.said()
        for event in self.h2.receive_data(said) if not self.wire.over else ():
            if isinstance(event, h2.events.RequestReceived):
                self.streams[event.stream_id] = Asked(dict(event.headers))
            elif isinstance(event, h2.events.DataReceived):
                self.streams[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self.streams[event.stream_id].trailers = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                self.streams[event.stream_id].whole = True
                self._answer(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.streams[event.stream_id].reset = True
        self.bodies.flush()
        octets = self.h2.data_to_send()
        if octets and not self.wire.over:
            self.wire.send(octets)
        return bool(said or octets)

    def _answer(self, stream: int) -> None:
        told, is_head = self.told, self.streams[stream].fields[b":method"] == b"HEAD"
        if told.raw:
            self.wire.send(self.h2.data_to_send() + told.raw)
            return
        if told.interim:
            self.h2.send_headers(stream, [(b":status", b"%d" % told.interim), (b"link", b"x")])
        fields = [(b":status", b"%d" % told.status), *told.fields]
        if told.body is not None and told.length and not told.trailers:
            fields.append((b"content-length", b"%d" % len(told.body)))
        body = b"" if is_head else told.body or b""
        self.h2.send_headers(stream, fields, end_stream=not body and not told.trailers)
        self.bodies.put(stream, body, told.trailers)


class Client1:
    """A client of HTTP/1.1, one request at a time."""

    def __init__(self, mesh: Between) -> None:
        self.wire = Wire()
        self.wire.receiver = Http1Server(mesh.way, self.wire, mesh.clock.next_round)
        self.h11 = h11.Connection(h11.CLIENT)
        self.told: list[Asked] = []

    def ask(self, method: bytes, path: bytes, fields: Pairs, body: bytes | None, trailers: Pairs) -> None:
        framed = list(fields)
        if body is not None and trailers:
            framed.append((b"transfer-encoding", b"chunked"))
        elif body is not None and not any(name == b"content-length" for name, _ in fields):
            framed.append((b"content-length", b"%d" % len(body)))
        request = h11.Request(method=method, target=path, headers=[(b"host", b"a"), *framed])
        octets = self.h11.send(request)
        if body:
            octets += self.h11.send(h11.Data(data=body))
        self.wire.send(octets + self.h11.send(h11.EndOfMessage(headers=trailers)))

    def pump(self) -> bool:
        said = self.wire.said()
        if said:
            self.h11.receive_data(said)
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.InformationalResponse):
                self._now().interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                self._now().fields = {**dict(event.headers), b":status": b"%d" % event.status_code}
            elif isinstance(event, h11.Data):
                self._now().body += event.data
            elif isinstance(event, h11.EndOfMessage):
                one = self._now()
                one.whole, one.trailers = True, list(event.headers)
                if self.h11.our_state is h11.DONE and self.h11.their_state is h11.DONE:
                    self.h11.start_next_cycle()
        if self.wire.aborted is not None and self.told:
            self.told[-1].reset = not self.told[-1].whole
        return bool(said)

    def _now(self) -> Asked:
        if not self.told or self.told[-1].whole:
            self.told.append(Asked({}))
        return self.told[-1]


class Client2:
    """A client of HTTP/2."""

    def __init__(self, mesh: Between) -> None:
        self.wire = Wire()
        self.wire.receiver = Http2Server(mesh.way, self.wire)
        config = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.bodies = Bodies(self.h2)
        self.streams: dict[int, Asked] = {}

    @property
    def told(self) -> list[Asked]:
        return list(self.streams.values())

    def ask(self, method: bytes, path: bytes, fields: Pairs, body: bytes | None, trailers: Pairs) -> None:
        pseudo = [(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path)]
        self.ask_raw([*pseudo, *fields], body, trailers)

    def ask_raw(self, fields: Pairs, body: bytes | None = None, trailers: Pairs = ()) -> None:  # type: ignore[assignment]
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=not body and not trailers)
        self.bodies.put(stream, body or b"", list(trailers))

    def pump(self) -> bool:
        self.bodies.flush()
        octets = self.h2.data_to_send()
        if octets:
            self.wire.send(octets)
        said = self.wire.said()
        for event in self.h2.receive_data(said):
            one = self.streams.setdefault(getattr(event, "stream_id", 0) or 0, Asked({}))
            if isinstance(event, h2.events.ResponseReceived):
                one.fields = dict(event.headers)
            elif isinstance(event, h2.events.InformationalResponseReceived):
                one.interim.append(int(dict(event.headers)[b":status"]))
            elif isinstance(event, h2.events.DataReceived):
                one.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                one.trailers = list(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                one.whole = True
            elif isinstance(event, h2.events.StreamReset):
                one.reset = True
        self.streams.pop(0, None)
        return bool(octets or said)


class Between:
    """The waypoint, and who it asks: servers of version `up`, a new one where none is free."""

    def __init__(self, down: int, up: int, told: Told | None = None) -> None:
        self.clock = Clock()
        self.live: set[Watched] = set()
        self.up = up
        self.told = told or Told()
        self.servers: list[Server1 | Server2] = []
        self.spares: list[Http1Client] = []
        self.shared: Http2Client | None = None
        self.ended_: list[Exchange] = []
        self.timeout_seconds = 0.0
        self.way = HttpWay(Common(self.clock, self.live, lambda: b"an-id"), self, self)
        self.client: Client1 | Client2 = Client1(self) if down == 1 else Client2(self)

    def begin(self, exchange: Exchange) -> None:
        plan = UNROUTED.of(exchange.request)
        if self.timeout_seconds:
            plan = Plan(plan.name, plan.retry)
            plan.timeout_seconds = self.timeout_seconds
        exchange.proceed(plan)

    def copies(self, exchange: Exchange, end: bool) -> list[Copy]:
        return []

    def connect(self, exchange: Exchange) -> None:
        if self.up == 2:
            if self.shared is None:
                self.shared = Http2Client(self, self.clock, self._server(Server2(self.told)), "key", "there")
                self.servers[-1].wire.receiver = self.shared
            self.shared.carry(exchange)
            return
        if not self.spares:
            client = Http1Client(self, self.clock, self._server(Server1(self.told)), "there")
            self.servers[-1].wire.receiver = client
            self.spares.append(client)
        self.spares.pop().carry(exchange)

    def _server(self, server: Server1 | Server2) -> Wire:
        self.servers.append(server)
        return server.wire

    def ended(self, exchange: Exchange) -> None:
        self.ended_.append(exchange)

    def spare(self, connection: Http1Client) -> None:
        self.spares.append(connection)

    def gone(self, connection: Http1Client) -> None:
        if connection in self.spares:
            self.spares.remove(connection)

    def waits_for(self, connection) -> bool:
        return True

    def room(self, connection: Http2Client) -> None:
        """Nobody waits."""

    def left(self, connection: Http2Client) -> None:
        self.shared = None

    def run(self) -> None:
        """Until nobody has anything to say."""
        for _ in range(10_000):
            busy = self.client.pump()
            for server in tuple(self.servers):
                busy = server.pump() or busy
            busy = bool(self.clock.later) or busy
            self.clock.rounds()
            if not busy:
                return
        raise AssertionError("it does not come to an end")

    def ask(
        self,
        method: bytes = b"GET",
        path: bytes = b"/x",
        fields: Pairs = (),  # type: ignore[assignment]
        body: bytes | None = None,
        trailers: Pairs = (),  # type: ignore[assignment]
    ) -> tuple[Asked | None, Asked | None]:
        """One request and what came of it: as the server has it, and as the client has it."""
        before, told = len(self.asked), len(self.client.told)
        self.client.ask(method, path, list(fields), body, list(trailers))
        self.run()
        asked, answers = self.asked[before:], self.client.told[told:]
        assert len(asked) <= 1
        assert len(answers) <= 1
        return (asked[0] if asked else None), (answers[0] if answers else None)

    @property
    def asked(self) -> list[Asked]:
        return [each for server in self.servers for each in server.asked]
