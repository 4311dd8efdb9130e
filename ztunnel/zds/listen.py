"""The proxy's listeners in a pod whose traffic comes by rules of netfilter: at the ports that Istio's rules
know."""

from __future__ import annotations

import errno
from contextlib import ExitStack

from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import Listening, listen_in
from ztunnel.pods.listen import BACKLOG, CannotEnroll, Listeners
from ztunnel.state.lookup import HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT


def listen_redirected(netns: NetworkNamespace, pod: str, listening: Listening) -> Listeners:
    """All three, or none; `pod` is its name for messages.

    Raises:
        CannotEnroll: a process of the pod has the port. OSError: the kernel refuses.
    """
    with ExitStack() as undo:
        made = []
        for port in (OUTBOUND_PORT, HBONE_PORT, INBOUND_PORT):
            try:
                made.append(undo.enter_context(listen_in(netns, port, BACKLOG, listening)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                taken = f"pod {pod}: port {port} is taken by a process of the pod; the mesh needs it"
                raise CannotEnroll(taken, port) from error
        undo.pop_all()
    return Listeners.of(made)
