"""The listeners of a pod: all of them or none, and it is seen which were destroyed."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.kernel.lab import Kernel, wait_until
from ztunnel.kernel.netns import NetworkNamespace
from ztunnel.kernel.sockets import DUAL_STACK, listen_in
from ztunnel.pods.listen import HBONE_PORT, CannotEnroll, Listeners, listen_in_pod, lost_listeners
from ztunnel.redirect.layout import QUEUES, ListenerKind

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]


def listen(undo: ExitStack, netns: NetworkNamespace) -> Listeners:
    return listen_in_pod(undo, netns, "pod default/a", DUAL_STACK)


def test_they_listen_and_end_together(kernel: Kernel) -> None:
    with ExitStack() as undo:
        listeners = listen(undo, kernel.lab.a)
        assert lost_listeners(listeners) == []
        kernel.connect(kernel.lab.b, "10.77.0.2", HBONE_PORT)
        kernel.connect(kernel.lab.b, "fd77::2", HBONE_PORT)
        listeners.close()
    with pytest.raises(ConnectionRefusedError):
        kernel.connect(kernel.lab.b, "10.77.0.2", HBONE_PORT)


def test_little_is_held_for_an_application_that_does_not_read(kernel: Kernel) -> None:
    """It is near. Who calls from outside, and other nodes, may be far, and need what the kernel gives."""
    with ExitStack() as undo:
        listeners = listen(undo, kernel.lab.a)
        room = {each: each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in listeners.all}
        assert room.pop(listeners.outbound) == 1 << 20
        assert set(room.values()) == {room[listeners.hbone]}


def test_a_port_that_is_taken_is_named_and_nothing_is_left(kernel: Kernel) -> None:
    with listen_in(kernel.lab.a, HBONE_PORT, 1), ExitStack() as undo:
        with pytest.raises(CannotEnroll, match=f"default/a: port {HBONE_PORT} is taken") as raised:
            listen(undo, kernel.lab.a)
        assert raised.value.port == HBONE_PORT
    with ExitStack() as undo:
        listen(undo, kernel.lab.a)


@pytest.mark.parametrize("which", ["outbound", "inbound", "hbone"])
def test_one_that_was_destroyed_is_seen(kernel: Kernel, which: str) -> None:
    with ExitStack() as undo:
        listeners = listen(undo, kernel.lab.a)
        found = getattr(listeners, which)
        one = found[-1] if which == "inbound" else found
        one.shutdown(socket.SHUT_RDWR)  # it listens no more, as after `ss -K`
        wait_until(lambda: lost_listeners(listeners) == [which])


def test_where_there_are_none_all_are_lost() -> None:
    assert lost_listeners(None) == ["outbound", "inbound", "hbone"]


def test_the_kernels_program_finds_all_but_that_of_hbone(kernel: Kernel) -> None:
    with ExitStack() as undo:
        listeners = listen(undo, kernel.lab.a)
        slots = listeners.slots()
        assert slots[ListenerKind.OUTBOUND, 0] == listeners.outbound.fileno()
        assert [slots[ListenerKind.INBOUND, queue] for queue in range(QUEUES)] == [
            each.fileno() for each in listeners.inbound
        ]
        assert len(slots) == QUEUES + 1
