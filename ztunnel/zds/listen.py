"""The proxy's listeners in a pod whose traffic comes by rules of netfilter: at the ports that Istio's rules
know."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ztunnel.flow.engine import Engine
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Listening, listen_in
from ztunnel.pods.listen import BACKLOG, CannotEnroll, Listeners
from ztunnel.state.lookup import HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT
from ztunnel.zds.relay import RELAY_PORT, NameRelay, NameServers


def listen_for_names(netns: NetworkNamespace, pod: str, listening: Listening) -> socket.socket:
    """The one for DNS over TCP; as `listen_redirected`."""
    return _listen(netns, RELAY_PORT, pod, listening)


def listen_redirected(netns: NetworkNamespace, pod: str, listening: Listening) -> Listeners:
    """All three, or none; `pod` is its name for messages.

    Raises:
        CannotEnroll: a process of the pod has the port. OSError: the kernel refuses.
    """
    with ExitStack() as undo:
        ports = OUTBOUND_PORT, HBONE_PORT, INBOUND_PORT
        made = [undo.enter_context(_listen(netns, port, pod, listening)) for port in ports]
        undo.pop_all()
    return Listeners.of(made)


def relay_names(
    engine: Engine, netns: NetworkNamespace, pod: str, names: NameServers, shared: bool
) -> NameRelay:
    """That for DNS over UDP; as `listen_redirected`."""
    with _named(pod, RELAY_PORT):
        return NameRelay(engine, netns, names, shared)


def _listen(netns: NetworkNamespace, port: int, pod: str, listening: Listening) -> socket.socket:
    with _named(pod, port):
        return listen_in(netns, port, BACKLOG, listening)


@contextmanager
def _named(pod: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        taken = f"pod {pod}: port {port} is taken by a process of the pod; the mesh needs it"
        raise CannotEnroll(taken, port) from error
