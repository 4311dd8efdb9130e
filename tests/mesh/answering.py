"""Servers in pods that tell what they were asked, in HTTP/1.1 and HTTP/2, and clients for them."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events

from tests.documented.cases import REFUSED
from tests.mesh.lab import Family, Listener, Mesh, read_exactly

_BEGINNING = b"PRI "
"""Of what is said first in HTTP/2, and of no request of HTTP/1.1."""

_SHADOW = "-shadow"


class Answered:
    """What servers have been asked, and how they are to answer, by the `x-request-id` of requests.

    Attributes:
        tries: how often each was asked, copies aside.
        copies: the versions of the servers that were asked for a copy of it.
        over: by which server's which connection it came last.
        fails, waits: the status, and the seconds before it, of one try of it after the other.
        limited: whose failures say that they are for a rate limit.
        pings: how many PINGs of HTTP/2 servers of a version have had.
    """

    def __init__(self) -> None:
        self.tries: dict[str, int] = defaultdict(int)
        self.copies: dict[str, list[str]] = defaultdict(list)
        self.fails: dict[str, tuple[int, ...]] = {}
        self.waits: dict[str, tuple[float, ...]] = {}
        self.over: dict[str, tuple[str, int]] = {}
        self.limited: set[str] = set()
        self.pings: dict[str, int] = defaultdict(int)
        self._held: dict[str, tuple[threading.Event, int]] = {}
        self._closed = threading.Event()

    def hold(self, key: str, after: int = 0) -> None:
        """The request of that key is answered when it is let go, but for the first `after` tries."""
        self._held[key] = threading.Event(), after

    def let_go(self, key: str) -> None:
        """See `hold`."""
        self._held[key][0].set()

    def close(self) -> None:
        """Nobody waits any more."""
        for each in (self._closed, *(event for event, _ in self._held.values())):
            each.set()

    def status(self, by: tuple[str, int], fields: Mapping[str, str]) -> int:
        """Note a request that has come to a server, on one of its connections; the status of its response,
        which is due now."""
        key, host, version = fields.get("x-request-id", ""), fields["host"], by[0]
        if host.partition(":")[0].endswith(_SHADOW):
            self.copies[key].append(version)
            return 200
        number = self.tries[key]
        self.over[key] = by
        self.tries[key] += 1
        waits, fails = self.waits.get(key, ()), self.fails.get(key, ())
        if number < len(waits):
            self._closed.wait(waits[number])
        event, after = self._held.get(key, (None, 0))
        if event is not None and number >= after:
            event.wait()
        return fails[number] if number < len(fails) else 200


class Accepting:
    """A server in a pod: each connection is served by a thread of its own, until it is closed.

    Attributes:
        connections: how many it has been called by.
    """

    def __init__(self, listener: Listener) -> None:
        self.connections = 0
        self._sockets = [listener.sock]
        self._threads: list[threading.Thread] = []
        listener.sock.settimeout(None)
        self._start(self._accept, listener.sock)

    def serve(self, sock: socket.socket, number: int) -> None:
        """Serve the connection of that number, until it ends. OSError and AssertionError end it as well."""
        raise NotImplementedError

    def close(self) -> None:
        """Nobody is served any more."""
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(10)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=run, args=args))
        self._threads[-1].start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock = listening.accept()[0]
                self._sockets.append(sock)
                self.connections += 1
                self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, suppress(OSError, AssertionError):
            self.serve(sock, number)


class Server(Accepting):
    """One, of one pod. It answers with JSON: what it is, and what it was asked."""

    def __init__(self, listener: Listener, version: str, answered: Answered) -> None:
        self.version = version
        self._answered = answered
        super().__init__(listener)

    def serve(self, sock: socket.socket, number: int) -> None:
        first = b""
        while len(first) < len(_BEGINNING) and (octets := sock.recv(1)):
            first += octets
        if first == _BEGINNING:
            self._serve2(sock, number, first)
        elif first:
            self._serve1(sock, number, first)

    def _told(self, number: int, http: int, fields: Mapping[str, str]) -> bytes:
        return json.dumps(
            {"version": self.version, "connection": number, "http": http, "fields": fields}
        ).encode()

    def _serve1(self, sock: socket.socket, number: int, first: bytes) -> None:
        while True:
            line, fields = read_head(sock, first)
            first = b""
            method, path, _ = line.split(" ", 2)
            read_body(sock, fields)
            status = self._answered.status((self.version, number), fields)
            if not status:
                return
            body = self._told(number, 1, {**fields, "method": method, "path": path})
            if method == "HEAD":
                body = b""
            head = f"HTTP/1.1 {status} -\r\nserver: echo\r\ncontent-length: {len(body)}\r\n"
            if status != 200 and fields.get("x-request-id") in self._answered.limited:
                head += "x-envoy-ratelimited: true\r\n"
            head += "\r\n"
            sock.sendall(head.encode() + body)

    def _serve2(self, sock: socket.socket, number: int, octets: bytes) -> None:
        side = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        side.initiate_connection()
        asked: dict[int, dict[str, str]] = {}
        while octets:
            for event in side.receive_data(octets):
                if isinstance(event, h2.events.RequestReceived):
                    asked[event.stream_id] = dict(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    side.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.PingReceived):
                    self._answered.pings[self.version] += 1
                elif isinstance(event, h2.events.StreamEnded):
                    self._answer2(side, event.stream_id, asked.pop(event.stream_id), number)
            sock.sendall(side.data_to_send())
            octets = sock.recv(1 << 16)

    def _answer2(
        self, side: h2.connection.H2Connection, stream: int, asked: dict[str, str], number: int
    ) -> None:
        fields = {name.lstrip(":"): value for name, value in asked.items()}
        fields["host"] = fields.pop("authority", "")
        status = self._answered.status((self.version, number), fields)
        if status == REFUSED:
            side.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        body = self._told(number, 2, fields)
        grpc = fields.get("content-type", "").startswith("application/grpc")
        if grpc and status != 200:  # one of gRPC, with nothing before it
            code = ("grpc-status", str(status))
            side.send_headers(
                stream, [(":status", "200"), ("x-version", self.version), code], end_stream=True
            )
            return
        kind = ("content-type", "application/grpc") if grpc else ("content-length", str(len(body)))
        side.send_headers(stream, [(":status", str(status)), ("server", "echo"), kind])
        side.send_data(stream, framed(body) if grpc else body, end_stream=not grpc)
        if grpc:
            side.send_headers(stream, [("grpc-status", "0")], end_stream=True)


class Mute(Accepting):
    """A server of HTTP/2 that says its settings, and nothing else."""

    def serve(self, sock: socket.socket, number: int) -> None:
        sock.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        while sock.recv(1 << 16):
            pass


class Greeter(Accepting):
    """A server that says its version to each connection, and closes it."""

    def __init__(self, listener: Listener, version: str) -> None:
        self._said = version.encode()
        super().__init__(listener)

    def serve(self, sock: socket.socket, number: int) -> None:
        sock.sendall(self._said)


def addresses(mesh: Mesh, family: Family) -> dict[str, str]:
    """Those of all services of the shop, found out once."""
    services = mesh.laboratory.cluster().services
    return {
        one.name: str(next(ip for ip in one.addresses if isinstance(ip, family)))
        for one in services
        if one.namespace == "shop" and any(isinstance(ip, family) for ip in one.addresses)
    }


def framed(body: bytes) -> bytes:
    """A message of gRPC."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def read_head(sock: socket.socket, first: bytes = b"") -> tuple[str, dict[str, str]]:
    """The first line of a head, which begins with `first`, and its fields, those of one name joined by
    commas."""
    got = bytearray(first)
    while not got.endswith(b"\r\n\r\n"):
        seen = sock.recv(1 << 16, socket.MSG_PEEK)
        assert seen, bytes(got)
        end = (bytes(got[-3:]) + seen).find(b"\r\n\r\n")
        got += read_exactly(sock, len(seen) if end < 0 else end + 4 - min(3, len(got)))
    line, *rest = got.decode().split("\r\n")
    fields: dict[str, str] = {}
    for each in rest:
        name, colon, value = each.partition(":")
        if colon:
            before = fields.get(name.lower())
            fields[name.lower()] = value.strip() if before is None else f"{before},{value.strip()}"
    return line, fields


def read_body(sock: socket.socket, fields: Mapping[str, str]) -> bytes:
    """The body behind a head, without trailers."""
    if fields.get("transfer-encoding") != "chunked":
        return read_exactly(sock, int(fields.get("content-length", 0)))
    found = b""
    while True:
        line = b""
        while not line.endswith(b"\r\n"):
            line += read_exactly(sock, 1)
        size = int(line, 16)
        found += read_exactly(sock, size + 2)[:-2]
        if not size:
            return found


class Reply:
    """A response: its fields, `:status` and trailers among them, and its body."""

    def __init__(self, fields: dict[str, str], body: bytes) -> None:
        self.fields = fields
        self.body = body

    @property
    def status(self) -> int:
        return int(self.fields[":status"])

    @property
    def told(self) -> dict[str, Any] | None:
        """What the server has told; None: a response of the waypoint's own."""
        if self.fields.get("server") == "istio-envoy" or not self.body.startswith((b"{", b"\0")):
            return None
        found = json.loads(self.body[5:] if self.body.startswith(b"\0") else self.body)
        assert isinstance(found, dict)
        return found


class Http1:
    """A client's connection of HTTP/1.1, made again where it was closed."""

    def __init__(self, mesh: Mesh, address: str, port: int, where: str = "shop/caller") -> None:
        self._connect = lambda: mesh.connect(where, address, port)
        self._sock: socket.socket | None = None

    def ask(self, method: str, path: str, host: str, fields: Mapping[str, str]) -> Reply:
        """One request after the other."""
        if self._sock is None:
            self._sock = self._connect()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{n}: {v}" for n, v in fields.items())]
        body = b"body" if method in ("POST", "PUT", "PATCH") else b""
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self._sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        line, found = read_head(self._sock)
        said = read_body(self._sock, found)
        if found.get("connection") == "close":
            self._sock = None
        return Reply({":status": line.split(" ")[1], **found}, said)


class Http2:
    """A client's connection of HTTP/2.

    Attributes:
        scheme: that requests name.
    """

    def __init__(self, mesh: Mesh, address: str, port: int, where: str = "shop/caller") -> None:
        self.scheme = "http"
        self._sock = mesh.connect(where, address, port)
        self._side = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._side.initiate_connection()

    def ask(self, method: str, path: str, host: str, fields: Mapping[str, str]) -> Reply:
        """One request after the other, with a message of gRPC."""
        side, stream = self._side, self._side.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", self.scheme), (":authority", host), (":path", path)]
        side.send_headers(stream, [*pseudo, *fields.items()])
        side.send_data(stream, framed(b"question"), end_stream=True)
        found: dict[str, str] = {}
        body, ended = bytearray(), False
        while not ended:
            self._sock.sendall(side.data_to_send())
            octets = self._sock.recv(1 << 16)
            assert octets
            for event in side.receive_data(octets):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    side.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    ended = True
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event
        self._sock.sendall(side.data_to_send())
        return Reply(found, bytes(body))
