"""Serves requests on Trio: h11 reads and writes HTTP/1.1, this module sets the limits.

States of a connection:

    head --complete--> body --complete--> answer --written--> head (kept alive) | closed
      any state --limit, error of the client, end of its stream--> closed, after an answer if HTTP allows one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

import h11
import trio

from ztunnel.errors import PeerError
from ztunnel.model.address import parse_ip
from ztunnel.pages.message import Answer, Limits, Request, Response, may_ask, parse_target, text

_RECEIVE_BYTES = 4 * 1024
_LINGER_SECONDS = 0.5
_LINGER_BYTES = 256 * 1024

Boundary = Callable[[], AbstractContextManager[object]]
"""Makes the place where an unexpected error of an answer ends, reported; the client gets a 500."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What a server shows, under which limits, and where the bugs of its pages end."""

    answer: Answer
    limits: Limits
    boundary: Boundary


class _Refused(Exception):
    """The request cannot be taken; the connection ends with this answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = text(status, message + "\n", close=True)


async def serve(
    listeners: Sequence[trio.SocketListener],
    pages: Pages,
    *,
    task_status: trio.TaskStatus[Sequence[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; takes over the listeners. Cancellation ends every connection where it stands.

    When there are as many connections as may be, a new one takes the place of the oldest that waits for a
    request: who only holds connections open cannot keep others out. Starts with the listeners as its value.
    """
    connections: dict[_Connection, trio.CancelScope] = {}

    async def take(stream: trio.SocketStream) -> None:
        connection = _Connection(stream, pages)
        if len(connections) >= pages.limits.connections:
            idle = [other for other in connections if other.waits]
            if not idle:
                return
            connections.pop(idle[0]).cancel()
        try:
            with trio.CancelScope() as scope, pages.boundary():
                connections[connection] = scope
                await connection.run()
        finally:
            connections.pop(connection, None)

    await trio.serve_listeners(take, list(listeners), task_status=task_status)


class _Connection:
    def __init__(self, stream: trio.SocketStream, pages: Pages) -> None:
        self._stream = stream
        self._pages = pages
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=pages.limits.head_bytes)
        self._with_body = True
        self.waits = True

    async def run(self) -> None:
        """Serve requests until either side ends it. Errors of the client and its network end here."""
        with suppress(trio.BrokenResourceError):
            while await self._serve_one():
                self._http.start_next_cycle()
            await self._linger()

    async def _serve_one(self) -> bool:
        """One request; whether there may be another."""
        try:
            request = await self._receive()
            if request is None:
                return False
            response = await self._answer(request)
        except _Refused as refused:
            response = refused.response
        except h11.RemoteProtocolError as error:
            response = text(error.error_status_hint, f"{error}\n", close=True)
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return False
        return await self._write(response)

    async def _receive(self) -> Request | None:
        """The next request, complete; None if there is none before the client or the clock ends it."""
        limits = self._pages.limits
        self._with_body = self.waits = True
        with trio.move_on_after(limits.idle_seconds) as scope:
            if not self._http.trailing_data[0]:
                self._http.receive_data(await self._stream.receive_some(_RECEIVE_BYTES))
        if scope.cancelled_caught:
            return None
        with trio.move_on_after(limits.head_seconds) as scope:
            event = await self._next_event()
        if scope.cancelled_caught:
            raise _Refused(408, "the request's headers took too long")
        self.waits = False
        if not isinstance(event, h11.Request):
            return None
        self._with_body = event.method != b"HEAD"
        body = bytearray()
        with trio.move_on_after(limits.body_seconds) as scope:
            while isinstance(data := await self._next_event(), h11.Data):
                body += data.data
                if len(body) > limits.body_bytes:
                    raise _Refused(413, f"a body has at most {limits.body_bytes} bytes")
        if scope.cancelled_caught:
            raise _Refused(408, "the request's body took too long")
        return _request(event, bytes(body), is_local(self._stream))

    async def _next_event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self._http.they_are_waiting_for_100_continue:
                going_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await self._send(self._http.send(going_on))
            self._http.receive_data(await self._stream.receive_some(_RECEIVE_BYTES))

    async def _answer(self, request: Request) -> Response:
        pages = self._pages
        if request.method not in ("GET", "HEAD", "POST"):
            return Response(501, b"not implemented\n", close=True)
        if not may_ask(request, pages.limits.hosts):
            raise _Refused(403, "this page is for programs on this machine only, called by its own name")
        response = text(500, "internal error\n", close=True)
        with pages.boundary(), trio.move_on_after(pages.limits.answer_seconds) as scope:
            response = await pages.answer(request)
        if scope.cancelled_caught:
            return text(503, "the answer took too long\n", close=True)
        return response

    async def _write(self, response: Response) -> bool:
        """Hand the answer to the client; whether the connection goes on."""
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
            *response.headers,
        ]
        if response.close:
            headers.append(("connection", "close"))
        head = h11.Response(status_code=response.status, headers=headers)
        parts = [self._http.send(head)]
        if self._with_body and response.body:
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        await self._send(b"".join(filter(None, parts)))
        done = (self._http.our_state, self._http.their_state) == (h11.DONE, h11.DONE)
        return done and not response.close

    async def _send(self, octets: bytes | None) -> None:
        with trio.move_on_after(self._pages.limits.write_seconds) as scope:
            await self._stream.send_all(octets or b"")
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("the client does not read")

    async def _linger(self) -> None:
        """End our direction and read on for a moment.

        Closing on unread bytes would reset what the client has not read yet, our last answer included
        (RFC 9112 section 9.6).
        """
        await self._stream.send_eof()
        left = _LINGER_BYTES
        with trio.move_on_after(_LINGER_SECONDS):
            while left > 0 and (octets := await self._stream.receive_some(_RECEIVE_BYTES)):
                left -= len(octets)


def _request(event: h11.Request, body: bytes, local: bool) -> Request:
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    try:
        path, query = parse_target(event.target.decode("ascii"))
    except ValueError as error:
        raise _Refused(400, str(error)) from error
    return Request(event.method.decode("ascii"), path, query, headers, body, local)


def is_local(stream: trio.SocketStream) -> bool:
    """Whether the client is on this machine, in this network namespace, and came over loopback."""
    try:
        address = stream.socket.getpeername()
    except OSError:
        return False
    try:
        return parse_ip(str(address[0])).is_loopback
    except PeerError:  # with a scope
        return False
