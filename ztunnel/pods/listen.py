"""The proxy's listeners in a pod's namespace: one for calls of the pod, one for HBONE, and several queues for
plaintext to it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields

from ztunnel.kernel.dial import hold_little
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Listening, listen_in, listen_nowhere, listen_side_by_side
from ztunnel.redirect.capture import LISTENER_PORTS
from ztunnel.redirect.layout import QUEUES, ListenerKind

HBONE_PORT = 15008
BACKLOG = 4096
"""ztunnel asks for 128; a burst of connections to one pod overflows that before a busy proxy accepts."""

QUEUE_BACKLOG = 1024
"""Of each queue for plaintext: what a source opens at once has room, and who shares a queue with one that
opens thousands waits for it, some seconds where the proxy is busy."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """The listeners of one pod, non-blocking. Plaintext waits in one of `inbound`, by its source."""

    outbound: socket.socket
    inbound: tuple[socket.socket, ...]
    hbone: socket.socket

    @staticmethod
    def of(listeners: Sequence[socket.socket]) -> Listeners:
        """Of these, in the order of `all`."""
        outbound, hbone, *inbound = listeners
        return Listeners(outbound, tuple(inbound), hbone)

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """Each of them."""
        return self.outbound, self.hbone, *self.inbound

    def slots(self) -> dict[tuple[ListenerKind, int], int]:
        """Those that the kernel's program finds, as descriptors by kind and queue."""
        found = {(ListenerKind.OUTBOUND, 0): self.outbound.fileno()}
        return found | {
            (ListenerKind.INBOUND, queue): each.fileno() for queue, each in enumerate(self.inbound)
        }

    def close(self) -> None:
        """Nobody answers any more; connections in their backlogs are reset, unless another process holds the
        same sockets."""
        for listener in self.all:
            listener.close()

    def lost(self) -> list[str]:
        """See `lost_listeners`."""
        of = {"outbound": (self.outbound,), "inbound": self.inbound, "hbone": (self.hbone,)}
        return [
            name
            for name, listeners in of.items()
            if not all(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in listeners)
        ]


def lost_listeners(listeners: Listeners | None) -> list[str]:
    """Which of the three listen no more: a process of the pod may destroy our sockets, as `ss -K` does."""
    return [each.name for each in fields(Listeners)] if listeners is None else listeners.lost()


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
    outbound = undo.enter_context(listen_nowhere(netns, LISTENER_PORTS, BACKLOG, listening))
    hold_little(outbound)
    inbound = listen_side_by_side(netns, LISTENER_PORTS, QUEUE_BACKLOG, QUEUES, listening)
    for each in inbound:
        undo.enter_context(each)
    return Listeners(outbound, inbound, hbone)
