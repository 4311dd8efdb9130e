"""Accepts connections of one listener within the engine, and survives running out of descriptors.

When the process or the machine has no descriptor left, the connection stays in the listener's backlog: the
listener is left alone for a moment instead of being asked again at once, which would spin.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from select import EPOLLIN
from typing import Any, Final, cast

from ztunnel.flow.engine import Engine
from ztunnel.kernel.tcp import STREAM, TcpSocket
from ztunnel.model.address import IPAddress, PeerAddress, canonical

_PER_WAKE_UP: Final = 16
"""At most so many are accepted in one go: a storm of new connections must not keep established flows
waiting."""

_AT_MOST_ROUNDS: Final = 32
_PAUSE_SECONDS: Final = 0.1
_OURS: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EBADF)
"""Errors that asking again at once would only repeat: nothing is left. Any other is that of a connection
which died in the backlog (accept(2)), but for EINVAL: it listens no more, because a process of the pod may
destroy our listener through sock_diag."""

_REMEMBERED_PEERS: Final = 1024
# Compiled code looks the names of another module up, each time.
_Socket: Final = TcpSocket
_STREAM: Final = STREAM
_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_INFO: Final = int(socket.TCP_INFO)
_ESTABLISHED: Final = 1  # include/net/tcp_states.h
_CLOSE_WAIT: Final = 8
_INFO_BYTES: Final = 104  # struct tcp_info up to tcpi_total_retrans
_LAST_SENT_AT: Final = 44  # tcpi_last_data_sent
PATIENT_MILLISECONDS: Final = 2000

_Accept = Callable[[], tuple[int, Any]]
Accepted = Callable[[socket.socket, PeerAddress], None]


def has_gone(sock: socket.socket) -> bool:
    """Whether the caller does not wait any more: it has reset the connection, or closed its side of one that
    has waited for long. So it is after we stood still: what waited is not carried out for those who have
    gone. Who closes its side without having waited only says that it has said all."""
    try:
        state = sock.getsockopt(_TCP, _TCP_INFO, 1)[0]
        if state == _ESTABLISHED:
            return False
        if state != _CLOSE_WAIT:
            return True
        info = sock.getsockopt(_TCP, _TCP_INFO, _INFO_BYTES)
    except OSError:
        return True
    # We have sent nothing yet: that is counted from the handshake.
    return int.from_bytes(info[_LAST_SENT_AT : _LAST_SENT_AT + 4], sys.byteorder) > PATIENT_MILLISECONDS


class Acceptor:
    """Calls `accepted(socket, peer)` for each connection; the socket is non-blocking and the callee's."""

    def __init__(
        self,
        engine: Engine,
        listener: socket.socket,
        accepted: Accepted,
        lost: Callable[[], None] | None = None,
        full: Callable[[], bool] | None = None,
    ) -> None:
        """Takes over `listener`, which is non-blocking; `close` closes it. `lost` is called once when it
        listens no more, which is not watched any longer then. While `full()` holds, new ones stay in the
        backlog."""
        self._engine = engine
        self._listener = listener
        self._accepted = accepted
        self._lost = lost
        self._full = full
        self._family = int(listener.family)
        self._peers: dict[str, IPAddress] = {}
        # How many to accept at once: asking for one more than there are costs as much as another connection.
        self._burst = 1
        self._round = 0
        self._closed = False
        self._held_back = False
        self._watched = False
        self._resume()

    def close(self) -> None:
        """Accept no more. Connections in the backlog are reset by the kernel."""
        if not self._closed:
            self._closed = True
            self._unwatch()
            self._listener.close()

    def hold_back(self) -> None:
        """Accept no more for now: connections wait in the backlog, for whoever has the listener then."""
        self._held_back = True
        self._unwatch()

    def go_on(self) -> None:
        """Accept again."""
        self._held_back = False
        self._resume()

    def accept_waiting(self) -> None:
        """Take up what waits in the backlog now, up to some hundred connections."""
        waiting = select.poll()
        waiting.register(self._listener.fileno(), select.POLLIN)
        for _ in range(_AT_MOST_ROUNDS):
            if not self._watched or not waiting.poll(0):
                return
            self._ready(EPOLLIN)

    def accept_now(self, count: int) -> None:
        """Take up to `count` connections that are in the backlog by now, for whoever knows that they are: it
        spares the round that would tell. Those that it leaves are told of as ever."""
        if self._watched:
            self._take(min(count, _PER_WAKE_UP))

    def _ready(self, mask: int) -> None:
        burst = self._burst
        taken = self._take(burst)
        if taken < 0:
            return
        if taken < burst:
            self._burst = max(taken, 1)
        else:
            self._expect_more()

    def _take(self, count: int) -> int:
        """Take up to `count` connections. Returns how many there were; -1 where it is not to be gone on
        with."""
        # Not accept(): making its socket looks the family and kind up as enums, which costs as much again.
        accept = cast("_Accept", self._listener._accept)  # type: ignore[attr-defined]
        accepted, family = self._accepted, self._family
        for number in range(count):
            if self._full is not None and self._full():
                self._pause()
                return -1
            try:
                fd, address = accept()
            except BlockingIOError:
                return number
            except OSError as error:
                if error.errno == errno.EINVAL:
                    self._lose()
                elif error.errno in _OURS:
                    self._pause()
                return -1
            sock = cast("socket.socket", _Socket(family, _STREAM, 0, fd))
            sock.setblocking(False)
            if has_gone(sock):
                self._engine.given_up += 1
                sock.close()
                continue
            accepted(sock, PeerAddress(self._ip(address[0]), address[1]))
            if self._closed:
                return -1
        return count

    def _expect_more(self) -> None:
        """There may be more, which the next round will tell. Where it does, there are many."""
        before, self._round = self._round, self._engine.number
        if self._round == before + 1:
            self._burst = min(2 * self._burst, _PER_WAKE_UP)

    def _ip(self, text: str) -> IPAddress:
        """Parsing an address costs more than accepting a connection, and peers come back."""
        ip = self._peers.get(text)
        if ip is None:
            if len(self._peers) >= _REMEMBERED_PEERS:
                self._peers.clear()
            # The scope of a link-local peer (`%eth0`) is the pod's own matter: no resource has it.
            ip = self._peers[text] = canonical(ip_address(text.partition("%")[0]))
        return ip

    def _lose(self) -> None:
        if self._lost is None:
            self._pause()
            return
        self._unwatch()
        self._lost()

    def _pause(self) -> None:
        """Not watched at all meanwhile: EPOLLHUP would be reported whatever one asks for."""
        self._unwatch()
        self._engine.after(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not (self._closed or self._held_back or self._watched):
            self._engine.watch(self._listener.fileno(), EPOLLIN, self._ready, self._abandon)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._engine.unwatch(self._listener.fileno())

    def _abandon(self, bug: BaseException) -> None:
        """A bug in taking one connection up: the listener goes on; who had the connection has closed it."""
