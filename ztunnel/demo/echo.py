"""The server in the place of images: it says who called, calls others in turn, and echoes.

    GET /anything     JSON: pod, namespace, node, caller and called address, bytes received;
                      with the variable CALLS (URLs, a space between) it asks each, and adds their answers
    GET /bytes/N      N bytes
    what is no HTTP   comes back as it is, until the caller closes its side

Standard library only, one thread, one epoll: it starts in 20 ms, and is fast enough to measure a mesh with.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LISTENING = "listens on port"
IF_FREE = "?"
"""After a port: where somebody else has it, the server does without."""

_METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS")
_CHUNK = bytes(b"x" * (1 << 18))
_MAX_HEAD_BYTES = 64 << 10
_MAX_PENDING_BYTES = 1 << 20
_CALL_SECONDS = 3.0
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Loop:
    """An epoll set with a callback for each descriptor."""

    def __init__(self) -> None:
        """Empty."""
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self.deadlines: dict[int, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready(events)` whenever one of `events` holds."""
        if fd in self._ready:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._ready[fd] = ready

    def close(self, sock: socket.socket) -> None:
        """Watch a socket no longer, and close it."""
        fd = sock.fileno()
        self.deadlines.pop(fd, None)
        if self._ready.pop(fd, None):
            self._epoll.unregister(fd)
        sock.close()

    def run(self) -> None:
        """For ever."""
        while True:
            for fd, events in self._epoll.poll(0.5 if self.deadlines else -1):
                ready = self._ready.get(fd)
                if ready:
                    ready(events)
            now = time.monotonic()
            for fd in [fd for fd, (deadline, _) in self.deadlines.items() if deadline < now]:
                self.deadlines.pop(fd)[1]()


class Connection:
    """One connection of a caller."""

    def __init__(self, loop: Loop, sock: socket.socket, known: dict[str, str], calls: list[str]) -> None:
        """Takes over `sock`."""
        self._loop, self._sock, self._calls = loop, sock, calls
        self._known = {
            **known,
            "caller": _address(sock.getpeername()),
            "called": _address(sock.getsockname()),
        }
        self._input, self._output = bytearray(), bytearray()
        self._flood = 0  # bytes of /bytes/N still to be made up
        self._body = 0  # bytes of a request's body still to come
        self._is_http: bool | None = None
        self._asked, self._said = (
            b"",
            b"",
        )  # the last request without a body, and its answer: often the next one's
        self._ended = self._waiting = self._last = False
        loop.watch(sock.fileno(), _IN, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & ~_OUT:
                self._read()
            self._work()
            self._write()
        except OSError:
            return self._loop.close(self._sock)
        done = not (self._output or self._flood or self._waiting)
        if done and (self._ended or self._last):
            return self._loop.close(self._sock)
        full = len(self._output) > _MAX_PENDING_BYTES or self._ended or self._waiting
        wanted = (0 if full else _IN) | (_OUT if self._output or self._flood else 0)
        return self._loop.watch(self._sock.fileno(), wanted, self._ready)

    def _read(self) -> None:
        received = self._sock.recv(1 << 18)
        self._ended = not received
        skipped = min(self._body, len(received))
        self._body -= skipped
        self._input += received[skipped:]

    def _work(self) -> None:
        if self._is_http is None and self._input:
            self._is_http = _looks_like_http(bytes(self._input[:8]))
        if self._is_http is False:
            self._output += self._input
            self._input.clear()
        while self._is_http and not (self._body or self._flood or self._waiting or self._last):
            head, end, rest = self._input.partition(b"\r\n\r\n")
            if not end:
                self._last = len(head) > _MAX_HEAD_BYTES
                break
            self._input = rest
            if head == self._asked:
                self._output += self._said
            else:
                self._request(bytes(head))

    def _request(self, head: bytes) -> None:
        first, _, lines = head.decode("latin-1").partition("\r\n")
        method, _, target = first.partition(" ")
        headers = {
            k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines.split("\r\n"))
        }
        length = _number(headers.get("content-length", ""))
        self._last = headers.get("connection", "").lower() == "close" or target.endswith(" HTTP/1.0")
        skipped = min(length, len(self._input))
        del self._input[:skipped]
        self._body = length - skipped
        path = target.rpartition(" ")[0]
        if path.startswith("/bytes/") and path[7:].isdigit():
            self._flood = 0 if method == "HEAD" else int(path[7:])
            self._output += _head("application/octet-stream", int(path[7:]))
            return
        answer = {**self._known, "method": method, "path": path, "received_bytes": length}
        if not self._calls:
            before = len(self._output)
            self._answer(answer, method)
            if not length and not self._last:
                self._asked, self._said = head, bytes(self._output[before:])
            return
        self._waiting = True
        answers: list[object] = []

        def answered(said: object) -> None:
            answers.append(said)
            if len(answers) == len(self._calls):
                self._waiting = False
                self._answer({**answer, "answers": answers}, method)
                self._ready(_OUT)

        for url in self._calls:
            Call(self._loop, url, answered).start()
        return

    def _answer(self, answer: dict[str, object], method: str) -> None:
        body = json.dumps(answer).encode() + b"\n"
        self._output += _head("application/json", len(body)) + (b"" if method == "HEAD" else body)

    def _write(self) -> None:
        while self._output or self._flood:
            if not self._output:
                self._output += _CHUNK[: self._flood]
                self._flood -= len(self._output)
            try:
                sent = self._sock.send(self._output)
            except BlockingIOError:
                return
            del self._output[:sent]


@dataclass
class Call:
    """One request to another server; `answered` gets its JSON, or {"url", "error"}."""

    loop: Loop
    url: str
    answered: Callable[[object], None]
    received: bytearray = field(default_factory=bytearray)

    def start(self) -> None:
        """Connect. Names are those of /etc/hosts, so that looking them up does not wait."""
        parts = urlsplit(self.url)
        self.request = (
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        except OSError as error:
            return self.answered({"url": self.url, "error": str(error)})
        self.sock = socket.socket(found[0][0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.loop.deadlines[self.sock.fileno()] = (time.monotonic() + _CALL_SECONDS, self._timed_out)
        code = self.sock.connect_ex(found[0][4])
        if code not in (0, errno.EINPROGRESS):
            return self._end(os.strerror(code))
        return self.loop.watch(self.sock.fileno(), _OUT, self._connected)

    def _connected(self, _events: int) -> None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return self._end(os.strerror(code))
        self.sock.send(self.request)
        return self.loop.watch(self.sock.fileno(), _IN, self._read)

    def _read(self, _events: int) -> None:
        try:
            part = self.sock.recv(1 << 16)
        except OSError as error:
            return self._end(str(error))
        self.received += part
        return None if part else self._end("no answer")

    def _timed_out(self) -> None:
        self._end(f"no answer within {_CALL_SECONDS:.0f} s")

    def _end(self, error: str) -> None:
        self.loop.close(self.sock)
        try:
            said = json.loads(self.received.partition(b"\r\n\r\n")[2])
        except ValueError:
            said = {"url": self.url, "error": error}
        self.answered(said)


def serve(ports: list[str], known: dict[str, str], calls: list[str]) -> None:
    """Serve both families on all `ports`, for ever; exits if one is taken that has to be free."""
    loop = Loop()
    wished = [(int(port.rstrip(IF_FREE)), port.endswith(IF_FREE)) for port in ports]
    listening = [_listen(loop, port, if_free, (known, calls)) for port, if_free in wished]
    shown = ", ".join(str(port) for port in listening if port) or "none"
    print(f"{known['namespace']}/{known['pod']} {LISTENING} {shown}", flush=True)
    loop.run()


def _listen(loop: Loop, port: int, if_free: bool, tell: tuple[dict[str, str], list[str]]) -> int:
    """Accept on a port from now on; the port, which the kernel chooses for 0, or 0 where it is not free."""
    try:
        listener = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
        )
    except OSError as error:
        if if_free and error.errno == errno.EADDRINUSE:
            return 0
        sys.exit(f"port {port}: {error.strerror}")
    listener.setblocking(False)

    def accept(_events: int) -> None:
        try:
            while True:
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Connection(loop, sock, *tell)
        except OSError:  # none left, or the caller is gone already
            return

    loop.watch(listener.fileno(), _IN, accept)
    return int(listener.getsockname()[1])


def _looks_like_http(start: bytes) -> bool | None:
    """None as long as it may still become a method."""
    word, space, _ = start.partition(b" ")
    if space:
        return word in _METHODS
    return None if any(method.startswith(word) for method in _METHODS) else False


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _head(kind: str, length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def _address(name: tuple[str, int, int, int]) -> str:
    host = name[0].removeprefix("::ffff:")
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"


if __name__ == "__main__":
    who = {"pod": "POD_NAME", "namespace": "POD_NAMESPACE", "node": "NODE_NAME"}
    serve(
        sys.argv[1:],
        {key: os.environ.get(variable, "") for key, variable in who.items()},
        os.environ.get("CALLS", "").split(),
    )
