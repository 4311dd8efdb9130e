"""The proxy's three listeners in a pod's namespace."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from dataclasses import dataclass, fields

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Listening, listen_in, listen_nowhere
from ztunnel.redirect.capture import LISTENER_PORTS

HBONE_PORT = 15008
BACKLOG = 4096
"""ztunnel asks for 128; a burst of connections to one pod overflows that before a busy proxy accepts."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The three listeners of one pod, non-blocking."""

    outbound: socket.socket
    inbound: socket.socket
    hbone: socket.socket

    @property
    def all(self) -> tuple[socket.socket, socket.socket, socket.socket]:
        """In the order of the fields."""
        return self.outbound, self.inbound, self.hbone

    def close(self) -> None:
        """Nobody answers any more; connections in their backlogs are reset, unless another process holds the
        same sockets."""
        for listener in self.all:
            listener.close()


def lost_listeners(listeners: Listeners | None) -> list[str]:
    """Which of the three listen no more: a process of the pod may destroy our sockets, as `ss -K` does."""
    return [
        each.name
        for each in fields(Listeners)
        if listeners is None
        or not getattr(listeners, each.name).getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ]


class CannotEnroll(Exception):
    """A pod cannot be enrolled now; the message says why and what to do. It is tried again.

    Attributes:
        port: which one is taken, 0 for none.
    """

    def __init__(self, message: str, port: int = 0) -> None:
        super().__init__(message)
        self.port = port


def listen_in_pod(undo: ExitStack, netns: NetworkNamespace, pod: str, listening: Listening) -> Listeners:
    """`undo` closes them; `pod` is its name for messages.

    Raises:
        CannotEnroll: a process of the pod has the port. OSError: the kernel refuses.
    """
    try:
        hbone = undo.enter_context(listen_in(netns, HBONE_PORT, BACKLOG, listening))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise CannotEnroll(
            f"{pod}: port {HBONE_PORT} is taken by a process of the pod; the mesh needs it in each pod",
            HBONE_PORT,
        ) from error
    outbound, inbound = (
        undo.enter_context(listen_nowhere(netns, LISTENER_PORTS, BACKLOG, listening)) for _ in range(2)
    )
    return Listeners(outbound, inbound, hbone)
