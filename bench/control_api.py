"""The Kubernetes API over HTTP, out of memory: lists in pages, and watches. For `bench.control`: a real API
server does not keep 5,000 pods that no node runs."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import h11
import trio

from bench.control_world import Value
from ztunnel.kube.resource import TOKEN_REVIEWS, Resource

_READ = 65536
_PATH = re.compile(r"(/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/[^/]+)?/([^/]+)(?:/([^/]+))?(?:/[^/]+)?")
_WAITING = 10_000
_REVIEWED = {
    "authenticated": True,
    "audiences": ["istio-ca"],
    "user": {"username": "system:serviceaccount:ztunnel-system:ztunnel"},
}
"""What is said of every token."""


class Refusal(NamedTuple):
    """The status, Kubernetes' word for it, and in how many seconds to come again."""

    code: int
    reason: str
    retry_seconds: int = 0


class ApiServer:
    """Objects by the path of their collection; `put` says each change to those who watch.

    Attributes:
        refuse: what a request for that path is refused with; nothing at first.
    """

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        """`resources` by their kind."""
        self._paths = {kind: resource.path() for kind, resource in resources.items()}
        self._objects: dict[str, dict[tuple[str, str], bytes]] = {path: {} for path in self._paths.values()}
        self._watches: dict[str, set[trio.MemorySendChannel[bytes]]] = {path: set() for path in self._objects}
        self._version = 1000
        self._history: deque[tuple[int, str, bytes]] = deque(maxlen=_WAITING)
        self.refuse: Callable[[str], Refusal | None] = lambda _path: None
        self._continued: dict[str, list[bytes]] = {}

    @property
    def watches(self) -> int:
        """How many there are."""
        return sum(map(len, self._watches.values()))

    def end_watches(self) -> None:
        """Each as if its time were over."""
        for watch in [one for each in self._watches.values() for one in each]:
            watch.close()

    def objects(self, path: str) -> list[Value]:
        """Those of the collection at a path."""
        return [json.loads(text) for text in self._objects.get(path, {}).values()]

    def put(self, kind: str, value: Value) -> None:
        """An object is new, or another."""
        self._keep(self._paths[kind], value)

    def _keep(self, path: str, value: Value) -> None:
        self._version += 1
        meta = value["metadata"]
        text = json.dumps({**value, "metadata": {**meta, "resourceVersion": str(self._version)}}).encode()
        self._objects.setdefault(path, {})[meta.get("namespace", ""), meta["name"]] = text
        line = b'{"type":"MODIFIED","object":' + text + b"}\n"
        self._history.append((self._version, path, line))
        for watch in self._watches.get(path, ()):
            watch.send_nowait(line)

    @asynccontextmanager
    async def served(self, port: int = 0) -> AsyncIterator[int]:
        """Serve for the block, on the port of 127.0.0.1 that it is given."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._serve, port, host="127.0.0.1"))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        request, body = None, b""
        try:
            while True:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(_READ))
                elif isinstance(event, h11.Request):
                    request, body = event, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    target = request.target.decode()
                    if refusal := self.refuse(urlsplit(target).path):
                        await _refuse(stream, connection, refusal)
                    elif request.method == b"GET":
                        await self._answer(stream, connection, target)
                    else:
                        await self._write(stream, connection, request.method, urlsplit(target).path, body)
                    connection.start_next_cycle()
                else:
                    return
        except (trio.BrokenResourceError, h11.ProtocolError):
            return

    async def _answer(self, stream: trio.SocketStream, connection: h11.Connection, target: str) -> None:
        parts = urlsplit(target)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path, name = _collection(parts.path)
        if name:
            await _respond(stream, connection, 404, [b'{"kind":"Status","reason":"NotFound","code":404}'])
        elif params.get("watch"):
            await self._watch(stream, connection, path, int(params.get("resourceVersion") or 0))
        else:
            await _respond(stream, connection, 200, self._list(path, params))

    async def _write(
        self, stream: trio.SocketStream, connection: h11.Connection, method: bytes, path: str, body: bytes
    ) -> None:
        """What is made is kept and told (the authority's Secret, say); what is patched is only answered."""
        value, (collection, _) = json.loads(body), _collection(path)
        if collection == TOKEN_REVIEWS.path():
            value["status"] = _REVIEWED
        elif method == b"POST":
            self._keep(collection, value)
        await _respond(stream, connection, 201 if method == b"POST" else 200, [json.dumps(value).encode()])

    def _list(self, path: str, params: Mapping[str, str]) -> Iterable[bytes]:
        token, limit = params.get("continue", ""), int(params.get("limit", "0"))
        items = self._continued.pop(token) if token else list(self._objects.get(path, {}).values())
        page, rest = (items[:limit], items[limit:]) if limit else (items, [])
        meta = {"resourceVersion": str(self._version)}
        if rest:
            meta["continue"] = f"{path}-{self._version}-{len(rest)}"
            self._continued[meta["continue"]] = rest
        yield b'{"kind":"List","metadata":' + json.dumps(meta).encode() + b',"items":['
        yield b",".join(page)
        yield b"]}"

    async def _watch(
        self, stream: trio.SocketStream, connection: h11.Connection, path: str, since: int
    ) -> None:
        send, receive = trio.open_memory_channel[bytes](_WAITING)
        for version, where, line in self._history:
            if where == path and version > since:
                send.send_nowait(line)
        self._watches.setdefault(path, set()).add(send)
        try:
            await stream.send_all(_head(connection, 200))
            async for line in receive:
                await stream.send_all(connection.send(h11.Data(data=line)) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        finally:
            self._watches[path].discard(send)


def _collection(path: str) -> tuple[str, str]:
    """The path of all objects of the kind, and the name of the one that is meant."""
    found = _PATH.fullmatch(path)
    return (f"{found[1]}/{found[2]}", found[3] or "") if found else (path, "")


async def _refuse(stream: trio.SocketStream, connection: h11.Connection, refusal: Refusal) -> None:
    value = {"kind": "Status", "status": "Failure", "code": refusal.code, "reason": refusal.reason}
    again = [("retry-after", str(refusal.retry_seconds))] if refusal.retry_seconds else []
    await _respond(stream, connection, refusal.code, [json.dumps(value).encode()], again)


def _head(connection: h11.Connection, code: int, more: Iterable[tuple[str, str]] = ()) -> bytes:
    headers = [("content-type", "application/json"), ("transfer-encoding", "chunked"), *more]
    return connection.send(h11.Response(status_code=code, headers=headers)) or b""


async def _respond(
    stream: trio.SocketStream,
    connection: h11.Connection,
    code: int,
    body: Iterable[bytes],
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    octets = [_head(connection, code, headers)]
    octets += [connection.send(h11.Data(data=part)) or b"" for part in body]
    octets.append(connection.send(h11.EndOfMessage()) or b"")
    await stream.send_all(b"".join(octets))
