"""One pod that is held: its listeners, its certificate, and its end."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.builders import connection
from tests.kernel.lab import Kernel
from tests.pods.parts import NAMED, A, Node, Scratch
from tests.pods.test_serve import Open
from ztunnel.errors import Drained
from ztunnel.flow.engine import Bug, Engine, Ready
from ztunnel.model.identity import SpiffeId
from ztunnel.outbound.defer import WaitingCalls
from ztunnel.pods.enroll import enroll, withdraw
from ztunnel.pods.hold import Held
from ztunnel.redirect.layout import ListenerKind

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

POD = A.at("10.9.0.1")


@pytest.fixture
def scratch() -> Iterator[Scratch]:
    with Scratch("10.9.0.1/24") as made:
        yield made


@pytest.fixture
def node(kernel: Kernel, scratch: Scratch) -> Iterator[Node]:
    made = Node(kernel.redirection, scratch.path, POD)
    yield made
    made.close()


@pytest.fixture
def held(node: Node, scratch: Scratch) -> Iterator[Held]:
    made = Held(node.ways, enroll(node.redirection, POD, scratch.place), scratch.place, NAMED)
    yield made
    made.let_go()


def knock(kernel: Kernel, scratch: Scratch, node: Node) -> bool:
    """Whether somebody takes up a call of the pod, which leads nowhere."""
    lines = len(node.desk.lines)
    with scratch.open() as netns, netns.socket(2, 1) as client:
        client.settimeout(1.0)
        try:
            client.connect(("203.0.113.9", 80))
        except ConnectionRefusedError:
            return False
        with kernel.lab.in_cgroup("proxy"):
            for _ in range(50):
                node.engine.round(0.01)
    return len(node.desk.lines) > lines


def test_it_answers_until_it_is_silenced(kernel: Kernel, held: Held, node: Node, scratch: Scratch) -> None:
    held.listen()
    held.listen()
    assert knock(kernel, scratch, node)
    assert "203.0.113.9:80" in node.desk.lines[-1]
    assert not held.idle
    held.stop_listening()
    held.stop_listening()
    assert not knock(kernel, scratch, node)
    assert held.idle
    assert held.enrolled.listeners is None


def test_it_is_idle_when_its_last_connection_has_ended(held: Held, node: Node) -> None:
    live = Open(node, POD.uid, connection("10.0.0.1", "10.9.0.1:80"))
    node.desk.live.register(live)
    assert not held.idle
    node.desk.live.unregister(live)
    assert held.idle


def test_a_process_that_ends_takes_up_nothing_new(
    kernel: Kernel, held: Held, node: Node, scratch: Scratch
) -> None:
    held.listen()
    held.refuse()
    assert not held.enrolled.serving
    assert not knock(kernel, scratch, node)


@contextmanager
def waiting(kernel: Kernel, held: Held, node: Node, scratch: Scratch) -> Iterator[socket.socket]:
    """A client of the pod whose connect() waits for the proxy; inside, this is the proxy."""
    held.listen()
    kernel.redirection.renew_lease(time.monotonic_ns())
    WaitingCalls(node.engine, kernel.redirection.held, node.outbound.takers).watch(time.monotonic_ns())
    with scratch.open() as netns, netns.socket(2, 1) as client:
        client.setblocking(False)
        assert client.connect_ex(("10.9.0.50", 80)) == errno.EINPROGRESS
        with kernel.lab.in_cgroup("proxy"):
            until(node, lambda: len(node.outbound.calls) == 1)
            yield client
        node.outbound.calls.abort(Drained("the test is over"))


def test_a_call_that_waits_when_the_process_ends_is_let_in(
    kernel: Kernel, held: Held, node: Node, scratch: Scratch
) -> None:
    with waiting(kernel, held, node, scratch) as client:
        held.refuse()
        kernel.redirection.end_lease()
        until(node, lambda: bool(select.select([], [client], [], 0)[1]))
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        until(node, lambda: not node.redirection.listens(POD.addresses[0], ListenerKind.OUTBOUND))
        with pytest.raises(BlockingIOError):
            client.recv(1)  # it was accepted before
        assert len(node.outbound.calls) == 1
    assert not knock(kernel, scratch, node)
    kernel.redirection.held.hold(0)


def test_a_call_that_is_let_in_is_accepted_in_the_same_round(
    kernel: Kernel, held: Held, node: Node, scratch: Scratch
) -> None:
    """Within a pod a packet has arrived when sending it returns, and the two behind it as well."""
    with waiting(kernel, held, node, scratch) as client:
        [call] = node.outbound.calls
        node.engine.post(held.let_in)
        node.engine.round()
        assert call.deferred is None
        assert call.opener is not None
        assert client.getpeername() == ("10.9.0.50", 80)
    kernel.redirection.held.hold(0)


def until(node: Node, holds: Callable[[], bool]) -> None:
    """Run the engine until then."""
    deadline = time.monotonic() + 2.0
    while not holds():
        assert time.monotonic() < deadline
        node.engine.round(0.01)


def test_one_certificate_is_wanted_at_a_time(held: Held, node: Node) -> None:
    one, other = (SpiffeId("cluster.local", "default", name) for name in ("one", "other"))
    for identity in (one, other, other, one):
        held.want(identity)
        assert node.wanted == [identity.service_account]
    held.stop_listening()
    assert node.wanted == []


def test_a_grace_ends_when_the_pod_goes_on(held: Held) -> None:
    held.grace = scope = trio.CancelScope()
    held.go_on()
    held.go_on()
    assert scope.cancel_called


def test_a_pod_that_is_gone_takes_everything_with_it(node: Node, scratch: Scratch, kernel: Kernel) -> None:
    held = Held(node.ways, enroll(node.redirection, POD, scratch.place), scratch.place, NAMED)
    held.listen()
    held.want(POD.identity)
    live = Open(node, POD.uid, connection("10.0.0.1", "10.9.0.1:80"))
    node.desk.live.register(live)
    assert held.exists
    scratch.delete()
    assert not held.exists
    withdraw(node.redirection, held.enrolled)
    held.end()
    assert [str(error) for error in live.ended] == ["the pod has gone"]
    assert (node.wanted, held.idle) == ([], True)
    assert held.enrolled.network.netns.fileno() == -1


class Blind(Engine):
    """An engine of which the kernel takes only so many descriptors."""

    room = 1

    def watch(self, fd: int, events: int, ready: Ready, abandon: Bug) -> None:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= 1
        super().watch(fd, events, ready, abandon)


def test_a_pod_that_cannot_be_listened_for_is_removed(node: Node, scratch: Scratch, kernel: Kernel) -> None:
    blind = Blind(node.bugs)
    outbound = type(node.outbound)(
        blind, node.desk.hold, node.inbound.report, node.redirection, node.outbound.tunnels, node.direct,
        node.outbound.mesh,
    )  # fmt: skip
    held = Held(
        type(node.ways)(outbound, node.inbound, node.handshakes, node.certificates),
        enroll(node.redirection, POD, scratch.place),
        scratch.place,
        NAMED,
    )
    with pytest.raises(OSError, match="No space"):
        held.listen()
    assert held.enrolled.listeners is None
    assert not held.enrolled.serving
    assert kernel.redirection.enrolled() == {}
    held.let_go()
    blind.close()


def test_it_shows_what_it_is(held: Held, scratch: Scratch) -> None:
    assert held.show("Up") == {
        "state": "Up",
        "netns": scratch.path,
        "addresses": ["10.9.0.1"],
        "connections": {"inbound": 0},
    }
    assert held.inode == held.enrolled.network.netns.inode
