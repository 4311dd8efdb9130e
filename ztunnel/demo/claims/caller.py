"""A process in a pod that opens and uses connections as it is told: JSON, an order a line, an answer a line.

Every answer has `error` (the name of an errno, `EOF`, or empty), `seconds` that it took, and `at`, its end on
the machine's monotonic clock. Standard library only: it starts in 20 ms. `talk.Caller` is the other end.
"""

from __future__ import annotations

import errno
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

_CHUNK_BYTES = 1 << 16
_BULK_BYTES = 1 << 20
_HEAD_END = b"\r\n\r\n"

Order = dict[str, Any]
Answer = dict[str, Any]


class Ended(Exception):
    """The other end closed the connection."""


class Connections:
    """The open connections, by the names that the orders give them."""

    def __init__(self) -> None:
        """None yet."""
        self._open: dict[str, socket.socket] = {}

    def obey(self, order: Order) -> Answer:
        """Carry out one order; what goes wrong with a connection stands in the answer."""
        orders: dict[str, Callable[[Order], Answer]] = {
            "open": self._connect,
            "exchange": self._exchange,
            "ask": self._ask,
            "fetch": self._fetch,
            "ends": self._ends,
            "close": self._close,
        }
        begun = time.monotonic()
        error, answer = "", {}
        try:
            answer = orders[order["do"]](order)
        except TimeoutError:
            error = "ETIMEDOUT"
        except Ended:
            error = "EOF"
        except OSError as failure:
            error = _name(failure)
        now = time.monotonic()
        return {"error": error, "seconds": now - begun, "at": now, **answer}

    def _connect(self, order: Order) -> Answer:
        """`mapped`: an IPv4 address by way of an IPv6 socket. `mark`: SO_MARK, read back into the answer."""
        host = f"::ffff:{order['host']}" if order["mapped"] else order["host"]
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(order["patience"])
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if order["mark"]:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, order["mark"])
            mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
            sock.connect((host, order["port"]))
            local, peer = sock.getsockname()[:2], sock.getpeername()[:2]
        except OSError:
            sock.close()
            raise
        self._open[order["name"]] = sock
        return {"local": local, "peer": peer, "mark": mark}

    def _exchange(self, order: Order) -> Answer:
        """Send `text` so many times and read it back, both at once."""
        sock = self._open[order["name"]]
        sent = order["text"].encode() * order["times"]
        left, received = memoryview(sent), bytearray()
        deadline = time.monotonic() + order["patience"]
        while len(received) < len(sent):
            readable, writable, _ = select.select(
                [sock], [sock] if left else [], [], max(deadline - time.monotonic(), 0)
            )
            if not readable and not writable:
                raise TimeoutError
            if writable:
                left = left[sock.send(left[:_CHUNK_BYTES]) :]
            if readable:
                received += _received(sock)
        return {"echoed": len(received), "error": "" if received == sent else "EBADMSG"}

    def _ask(self, order: Order) -> Answer:
        """One HTTP request; the body of the answer is JSON."""
        sock = self._open[order["name"]]
        sock.settimeout(order["patience"])
        sock.sendall(b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n")
        received = bytearray()
        while _HEAD_END not in received:
            received += _received(sock)
        head, _, body = received.partition(_HEAD_END)
        length = _length(head)
        while len(body) < length:
            body += _received(sock)
        return {"said": json.loads(body)}

    def _fetch(self, order: Order) -> Answer:
        """Read the body of one HTTP answer, as fast as it comes; `fetched` is its length in bytes."""
        sock, buffer = self._open[order["name"]], bytearray(_BULK_BYTES)
        sock.settimeout(order["patience"])
        sock.sendall(f"GET {order['path']} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
        head = bytearray()
        while _HEAD_END not in head:
            head += _received(sock)
        left = length = _length(head)
        left -= len(head.partition(_HEAD_END)[2])
        while left > 0:
            size = sock.recv_into(buffer)
            if not size:
                raise Ended
            left -= size
        return {"fetched": length}

    def _ends(self, order: Order) -> Answer:
        """Wait until these connections have ended; those that live when patience ends are not in `ended`."""
        waiting = {self._open[name]: name for name in order["names"]}
        deadline = time.monotonic() + order["patience"]
        ended: dict[str, Answer] = {}
        while waiting and (left := deadline - time.monotonic()) > 0:
            for sock in select.select(list(waiting), [], [], left)[0]:
                error = ""
                try:
                    _received(sock)
                except Ended:
                    error = "EOF"
                except OSError as failure:
                    error = _name(failure)
                if error:
                    ended[waiting.pop(sock)] = {"error": error, "at": time.monotonic()}
        return {"ended": ended}

    def _close(self, order: Order) -> Answer:
        for name in order["names"] or list(self._open):
            if name in self._open:
                self._open.pop(name).close()
        return {}


def _received(sock: socket.socket) -> bytes:
    part = sock.recv(_CHUNK_BYTES)
    if not part:
        raise Ended
    return part


def _length(head: bytearray) -> int:
    return int(head.lower().partition(b"content-length:")[2].split()[0])


def _name(failure: OSError) -> str:
    return errno.errorcode.get(failure.errno or 0, str(failure))


if __name__ == "__main__":
    connections = Connections()
    for line in sys.stdin:
        print(json.dumps(connections.obey(json.loads(line))), flush=True)
