"""Relays the names that a pod asks for: Istio's rules send what goes to port 53 to us (`ambient.dnsCapture`).

Names that the mesh has addresses for are answered here (`names.py`). Any other query is sent on as it is,
from the pod's own namespace and with the mark that the rules let pass, to the name servers of this process,
as ztunnel does; where one does not answer, to the next.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from select import EPOLLIN
from typing import Any, Final

from ztunnel.flow.engine import Engine
from ztunnel.flow.timers import Timer
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.model.address import Endpoint, ip_text
from ztunnel.zds.resolver import parse_name_servers

RELAY_PORT: Final = 15053
_HOSTS: Final = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
_DATAGRAM_BYTES: Final = 65535
_PER_WAKE_UP: Final = 16
_UNDER_WAY: Final = 128
"""Queries of one pod at once, a descriptor each; of more the oldest is given up: resolvers ask again after
five seconds."""

_ANSWER_SECONDS: Final = 2.0
"""Until the next server is asked: a resolver waits for five seconds by default (resolv.conf(5))."""

_LOOK_SECONDS: Final = 5.0


class NameServers:
    """Those of a file, which may change; and what became of queries: answered here, by them, by nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[Endpoint, ...] = ()
        self._look_at = -1.0
        self.answered_total = 0
        self.relayed_total = 0
        self.failed_total = 0

    def now(self, now: float) -> Sequence[Endpoint]:
        """As they were some seconds ago at most; none where the file cannot be read."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            try:
                self._known = parse_name_servers(self._path.read_text(errors="replace"))
            except OSError:
                self._known = ()
        return self._known


class NameRelay:
    """Of one pod."""

    def __init__(self, engine: Engine, netns: NetworkNamespace, servers: NameServers, shared: bool) -> None:
        """Begin to listen, over UDP; `netns` stays the caller's. Raises OSError: a process of the pod has the
        port."""
        self.knows: Callable[[bytes], bytes | None] = lambda untrusted: None
        """The answer to a query that nobody else is to be asked."""
        self.engine = engine
        self.netns = netns
        self.servers = servers
        self._queries: dict[_Query, None] = {}
        self._listeners: list[socket.socket] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            for family, host in _HOSTS:
                self._listen(family, host, shared)
            undo.pop_all()

    def _listen(self, family: int, host: str, shared: bool) -> None:
        try:
            listener = self.netns.socket(family, socket.SOCK_DGRAM)
        except OSError:
            if family == socket.AF_INET:
                raise
            return  # no IPv6 in this kernel
        try:
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((host, RELAY_PORT))
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6:
                return  # none in this namespace
            raise
        self._listeners.append(listener)
        self.engine.watch(listener.fileno(), EPOLLIN, lambda _: self._asked(listener), lambda bug: None)

    def close(self) -> None:
        """No more queries are taken; those under way are given up."""
        for query in tuple(self._queries):
            query.close()
        for listener in self._listeners:
            self.engine.unwatch(listener.fileno())
            listener.close()
        self._listeners.clear()

    def _asked(self, listener: socket.socket) -> None:
        for _ in range(_PER_WAKE_UP):
            try:
                untrusted, peer = listener.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            known = self.knows(untrusted)
            if known is not None:
                self.servers.answered_total += 1
                _answer(listener, peer, known)
                continue
            servers = self.servers.now(self.engine.now)
            if len(self._queries) >= _UNDER_WAY:
                next(iter(self._queries)).fail()
            query = _Query(self, untrusted, partial(_answer, listener, peer))
            self._queries[query] = None
            query.ask(servers)

    def over(self, query: _Query, answered: bool) -> None:
        """A query has its answer, or gets none."""
        self._queries.pop(query, None)
        if answered:
            self.servers.relayed_total += 1
        else:
            self.servers.failed_total += 1


def _answer(listener: socket.socket, peer: tuple[Any, ...], answer: bytes) -> None:
    with suppress(OSError):  # the pod has closed its socket, or does not read
        listener.sendto(answer, peer)


class _Query:
    """One query, and who is asked."""

    def __init__(self, relay: NameRelay, untrusted: bytes, answered: Callable[[bytes], None]) -> None:
        self._relay = relay
        self._query = untrusted
        self._answered = answered
        self._left: list[Endpoint] = []
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None

    def ask(self, servers: Sequence[Endpoint]) -> None:
        """These, one after the other."""
        self._left = list(servers)
        self._ask_next()

    def _ask_next(self) -> None:
        self._hang_up()
        relay = self._relay
        while self._left:
            server = self._left.pop(0)
            family = socket.AF_INET if server.ip.version == 4 else socket.AF_INET6
            try:
                sock = relay.netns.socket(family, socket.SOCK_DGRAM)
            except OSError:
                continue
            try:
                sock.connect((ip_text(server.ip), server.port))
                sock.send(self._query)
            except OSError:
                sock.close()
                continue
            self._sock = sock
            relay.engine.watch(sock.fileno(), EPOLLIN, self._ready, lambda bug: self.fail())
            self._timer = relay.engine.after(_ANSWER_SECONDS, self._ask_next)
            return
        self.fail()

    def _ready(self, mask: int) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            answer = sock.recv(_DATAGRAM_BYTES)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._ask_next()
            return
        self._hang_up()
        self._relay.over(self, True)
        self._answered(answer)

    def fail(self) -> None:
        """Nobody answers: the resolver asks again."""
        self._hang_up()
        self._relay.over(self, False)

    def close(self) -> None:
        """Nobody wants it any more."""
        self._hang_up()
        self._relay.over(self, False)

    def _hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sock, self._sock = self._sock, None
        if sock is not None:
            self._relay.engine.unwatch(sock.fileno())
            sock.close()
