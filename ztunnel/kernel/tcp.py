"""TCP sockets as flows use them: two for each connection, made and closed without a step of Python.

`socket.socket` is a class in Python around one in C, for files that are made of sockets. Its making and its
closing are three calls of Python functions, for each socket.
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Final, cast

STREAM: Final = int(socket.SOCK_STREAM)
"""Without being looked up as an enum."""


class TcpSocket(socket.SocketType):
    """The class in C, which may stand behind `with` as well. It has no `accept`, `makefile` and `dup`, and
    its family and type are bare numbers."""

    __slots__ = ()

    def __enter__(self) -> socket.socket:
        return cast("socket.socket", self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
