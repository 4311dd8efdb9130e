"""Names that a pod asks for: sent on, answered, given up."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.flow.driving import Bugs
from tests.zds.parts import MARK, Pod
from ztunnel.flow.engine import Engine
from ztunnel.model.address import Endpoint, parse_endpoint
from ztunnel.zds import relay
from ztunnel.zds.relay import NameRelay, NameServers

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

CAPTURED = ["10.96.0.10", "fd96::a"]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A pod whose DNS is captured, a relay in it, and name servers on its own addresses."""

    def __init__(self, pod: Pod, tmp_path: Path) -> None:
        self.clock, self.bugs = Clock(), Bugs()
        self.engine = Engine(self.bugs, self.clock)
        self.netns = pod.marked()
        self.file = tmp_path / "resolv.conf"
        self.file.write_text("nameserver 10.78.0.2\nnameserver fd78::2\n")
        self.servers = NameServers(self.file)
        self.relay = NameRelay(self.engine, self.netns, self.servers, shared=True)
        self._sockets: list[socket.socket] = []

    def server(self, address: str) -> socket.socket:
        return self._bound(address, 53)

    def _bound(self, address: str, port: int) -> socket.socket:
        made = self.netns.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(made)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        return made

    def application(self, pod: Pod, to: str) -> socket.socket:
        with pod.open() as there:
            made = there.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(made)
        made.connect((to, 53))
        return made

    def rounds(self, holds: Callable[[], object]) -> None:
        for _ in range(300):
            if holds():
                return
            self.engine.round(0.01)
        raise AssertionError("never")

    def got(self, sock: socket.socket) -> tuple[bytes, tuple[object, ...]]:
        """What comes on a socket."""
        found: list[tuple[bytes, tuple[object, ...]]] = []

        def look() -> bool:
            try:
                found.append(sock.recvfrom(65535))
            except BlockingIOError:
                return False
            return True

        self.rounds(look)
        return found[0]

    def close(self) -> None:
        self.relay.close()
        for each in self._sockets:
            each.close()
        self.netns.close()
        self.engine.close()
        assert not self.bugs


@contextmanager
def desk(pod: Pod, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(pod, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pod() -> Iterator[Pod]:
    with Pod() as made:
        yield made


@pytest.mark.parametrize("address", CAPTURED)
def test_a_query_that_the_rules_capture_is_answered_by_who_was_asked(
    pod: Pod, tmp_path: Path, address: str
) -> None:
    with desk(pod, tmp_path) as names:
        server = names.server("10.78.0.2")
        application = names.application(pod, address)
        application.send(b"who is it?")
        query, proxy = names.got(server)
        assert query == b"who is it?"
        server.sendto(b"nobody" * 700, proxy)
        # On a connected socket: it comes from the address that was called.
        assert names.got(application)[0] == b"nobody" * 700
        assert (names.servers.relayed_total, names.servers.failed_total) == (1, 0)


def test_what_is_known_here_is_answered_and_nobody_else_is_asked(pod: Pod, tmp_path: Path) -> None:
    with desk(pod, tmp_path) as names:
        names.relay.knows = lambda untrusted: b"me" if untrusted == b"who?" else None
        server = names.server("10.78.0.2")
        for address in CAPTURED:
            application = names.application(pod, address)
            application.send(b"who?")
            assert names.got(application)[0] == b"me"
        with pytest.raises(BlockingIOError):
            server.recv(100)
        assert (names.servers.answered_total, names.servers.relayed_total) == (2, 0)


def test_many_ask_at_once_and_each_has_its_own_answer(pod: Pod, tmp_path: Path) -> None:
    with desk(pod, tmp_path) as names:
        server = names.server("10.78.0.2")
        asking = [names.application(pod, CAPTURED[n % 2]) for n in range(50)]
        for number, each in enumerate(asking):
            each.send(b"%d" % number)
        for _ in asking:
            query, proxy = names.got(server)
            server.sendto(b"answer " + query, proxy)
        for number, each in enumerate(asking):
            assert names.got(each)[0] == b"answer %d" % number


def test_where_one_server_is_not_there_or_says_nothing_the_next_one_is_asked(
    pod: Pod, tmp_path: Path
) -> None:
    with desk(pod, tmp_path) as names:
        second = names.server("fd78::2")
        application = names.application(pod, CAPTURED[0])
        application.send(b"first")
        query, proxy = names.got(second)  # nobody has 10.78.0.2:53
        second.sendto(b"here", proxy)
        assert names.got(application)[0] == b"here"
        silent = names.server("10.78.0.2")
        application.send(b"second")
        assert names.got(silent)[0] == b"second"
        names.clock.now += 2.5
        query, proxy = names.got(second)
        assert query == b"second"
        second.sendto(b"here again", proxy)
        assert names.got(application)[0] == b"here again"


def test_a_query_that_nobody_answers_is_given_up_and_counted(pod: Pod, tmp_path: Path) -> None:
    with desk(pod, tmp_path) as names:
        silent = [names.server("10.78.0.2"), names.server("fd78::2")]
        names.application(pod, CAPTURED[0]).send(b"anybody?")
        for each in silent:
            names.got(each)
            names.clock.now += 2.5
        names.rounds(lambda: names.servers.failed_total == 1)
        names.file.write_text("# nobody\n")
        names.clock.now += 10
        names.application(pod, CAPTURED[1]).send(b"anybody?")
        names.rounds(lambda: names.servers.failed_total == 2)
        names.file.unlink()
        names.clock.now += 10
        names.application(pod, CAPTURED[1]).send(b"anybody?")
        names.rounds(lambda: names.servers.failed_total == 3)


def test_of_too_many_queries_the_oldest_are_given_up(
    pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with desk(pod, tmp_path) as names:
        server = names.server("10.78.0.2")
        application = names.application(pod, CAPTURED[0])
        asked = []
        for number in range(relay._UNDER_WAY + 5):
            application.send(b"%d" % number)
            asked.append(names.got(server))
        assert names.servers.failed_total == 5
        server.sendto(b"last", asked[-1][1])
        assert names.got(application)[0] == b"last"


def test_a_changed_file_counts_soon(pod: Pod, tmp_path: Path) -> None:
    servers = NameServers(tmp_path / "resolv.conf")
    assert servers.now(0.0) == ()
    servers._path.write_text("nameserver 10.0.0.1\n")
    assert servers.now(4.0) == ()
    wanted: list[Endpoint] = [parse_endpoint("10.0.0.1:53")]
    assert list(servers.now(5.0)) == wanted


def test_a_taken_port_is_an_error_and_leaves_nothing_open(pod: Pod, tmp_path: Path) -> None:
    with pod.marked() as netns, netns.socket(socket.AF_INET6, socket.SOCK_DGRAM) as holder:
        holder.bind(("::1", 15053))
        engine = Engine(Bugs())
        with pytest.raises(OSError, match="in use") as caught:
            NameRelay(engine, netns, NameServers(tmp_path / "none"), shared=True)
        assert caught.value.errno == errno.EADDRINUSE
        engine.close()


def test_a_namespace_without_ipv6_has_names_by_ipv4(pod: Pod, tmp_path: Path) -> None:
    with pod.open() as there:
        there.write_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
    with desk(pod, tmp_path) as names:
        server = names.server("10.78.0.2")
        application = names.application(pod, CAPTURED[0])
        application.send(b"v4?")
        _, proxy = names.got(server)
        server.sendto(b"v4!", proxy)
        assert names.got(application)[0] == b"v4!"


def test_our_own_queries_carry_the_mark_and_are_not_captured(pod: Pod, tmp_path: Path) -> None:
    with desk(pod, tmp_path) as names:
        assert names.netns.mark == MARK
        server = names.server("10.78.0.2")
        names.application(pod, "10.78.0.2").send(b"?")
        assert names.got(server)[0] == b"?"
        for _ in range(5):
            names.engine.round(0.01)
        with pytest.raises(BlockingIOError):
            server.recv(100)
