"""Makes many calls from inside a pod, each on a connection of its own, and counts who answered.

    python -m ztunnel.demo.claims.load HOST PORT AT_ONCE COUNT

With a COUNT of 0 it goes on until its standard input ends. It prints JSON: `answers` by pod, `errors` by the
name of an errno (`EOF` where an answer broke off), `seconds` in all, and of the `slowest` call. Standard
library only.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from collections import Counter

_REQUEST = b"GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n"
_STUCK_SECONDS = 5.0
_PAUSE_SECONDS = 0.01  # where every call is refused at once
_POD = b'"pod": "'


class Load:
    """The calls to one address."""

    def __init__(self, host: str, port: int, count: int) -> None:
        """`count` calls, 0 for as many as there is time."""
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._address = (host, port)
        self._left = count or sys.maxsize
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[socket.socket, float, bytearray]] = {}
        self.answers: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.slowest = 0.0

    def run(self, at_once: int, until_input_ends: bool) -> None:
        """Make the calls."""
        if until_input_ends:
            self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        self._begin(at_once)
        while self._calls or self._left:
            for fd, events in self._epoll.poll(_STUCK_SECONDS if self._calls else _PAUSE_SECONDS):
                if fd not in self._calls:
                    self._left = 0
                    self._epoll.unregister(fd)
                elif events & select.EPOLLOUT:
                    self._connected(fd)
                else:
                    self._readable(fd)
            self._give_up()
            self._begin(at_once)

    def _begin(self, at_once: int) -> None:
        for _ in range(min(at_once - len(self._calls), self._left)):
            self._left -= 1
            self._connect()

    def _connect(self) -> None:
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._calls[sock.fileno()] = (sock, time.monotonic(), bytearray())
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self._end(sock.fileno(), errno.errorcode[code])
            return
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _connected(self, fd: int) -> None:
        sock = self._calls[fd][0]
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(fd, errno.errorcode[code])
            return
        try:
            sock.send(_REQUEST)
        except OSError as error:
            self._end(fd, errno.errorcode.get(error.errno or 0, "EIO"))
            return
        self._epoll.modify(fd, select.EPOLLIN)

    def _readable(self, fd: int) -> None:
        sock, _, received = self._calls[fd]
        try:
            part = sock.recv(4096)
        except OSError as error:
            self._end(fd, errno.errorcode.get(error.errno or 0, "EIO"))
            return
        received += part
        if not part:
            self._end(fd, "" if received.endswith(b"}\n") else "EOF")

    def _end(self, fd: int, error: str) -> None:
        sock, begun, received = self._calls.pop(fd)
        sock.close()
        self.slowest = max(self.slowest, time.monotonic() - begun)
        if error:
            self.errors[error] += 1
        else:
            self.answers[received.partition(_POD)[2].partition(b'"')[0].decode()] += 1

    def _give_up(self) -> None:
        since = time.monotonic() - _STUCK_SECONDS
        for fd in [fd for fd, (_, begun, _) in self._calls.items() if begun < since]:
            self._end(fd, "ETIMEDOUT")


if __name__ == "__main__":
    host, port, at_once, count = sys.argv[1], *map(int, sys.argv[2:])
    load = Load(host, port, count)
    begun = time.monotonic()
    load.run(at_once, until_input_ends=not count)
    said = {"answers": load.answers, "errors": load.errors, "slowest": load.slowest}
    print(json.dumps({**said, "seconds": time.monotonic() - begun}))
