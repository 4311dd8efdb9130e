"""The holder: what is left with it is given on, for a while; and where no proxy can, it lets pods go."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.kernel.lab import Kernel as RealKernel
from tests.kernel.lab import Lab
from tests.run.givers import Giver, Lines, call
from tests.run.holders import Held, holding
from tests.run.owners import GOING, THERE, failed
from tests.run.parts import until
from ztunnel.redirect.load import hold
from ztunnel.run.detach import Detached, Detachments
from ztunnel.run.handover import Channel
from ztunnel.run.hold import LOOK_SECONDS, OWNER_SECONDS, Pinned
from ztunnel.run.park import park
from ztunnel.run.successor import connected, serving, take_over
from ztunnel.telemetry.export import Log
from ztunnel.telemetry.level import Levels

HOLD_SECONDS = 20.0


@pytest.fixture
def giver() -> Iterator[Giver]:
    made = Giver(calls=[call(number) for number in range(200)])
    yield made
    made.close()


def quiet() -> Log:
    return Log(Lines(), Levels(), time.time_ns)  # type: ignore[arg-type]


async def leave(held: Held, giver: Giver) -> None:
    assert await park(held.place, held.pins, giver, quiet())


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


# --- keeping -------------------------------------------------------------------------


async def test_what_waits_in_the_backlogs_goes_to_the_next_proxy(tmp_path: Path, giver: Giver) -> None:
    ends = [each.getsockname() for listeners in giver.listeners.values() for each in listeners.all]
    async with holding(tmp_path) as held:
        await leave(held, giver)  # closes its own copies
        callers = [socket.create_connection(end) for end in ends for _ in range(20)]
        for caller in callers:
            caller.sendall(b"x")
        assert serving(held.given_at) == os.getpid()
        inherited = await take_over(held.given_at, held.pins, False)
        await inherited.tell("taken")
        assert (inherited.calls, inherited.since_ns, inherited.pages) == (giver.calls, 4711, ())
        for listeners in inherited.listeners.values():
            for each in listeners.all:
                for _ in range(20):
                    accepted, _ = each.accept()
                    assert accepted.recv(1) == b"x"
                    accepted.close()
        await until(lambda: serving(held.given_at) == 0)
        assert held.kernel.steps == ["guard"]  # the lease is the next one's now
        inherited.close()
        for caller in callers:
            caller.close()
        again = Giver()
        await leave(held, again)
        assert serving(held.given_at) == os.getpid()


async def test_no_descriptor_is_left_over(tmp_path: Path, giver: Giver) -> None:
    before = files()
    for _ in range(3):
        left = Giver()
        async with holding(tmp_path) as held:
            await leave(held, left)
            for page in left.pages:
                page.close()
    assert files() == before


async def test_verdicts_do_not_count_while_it_keeps(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path) as held:
        assert held.kernel.steps == []
        await leave(held, giver)
        assert held.kernel.steps == ["guard"]


async def test_where_nobody_comes_connections_are_refused_after_a_while(
    tmp_path: Path, giver: Giver, autojump_clock: trio.testing.MockClock
) -> None:
    [(end, *_), _] = [
        [each.getsockname() for each in listeners.all] for listeners in giver.listeners.values()
    ]
    async with holding(tmp_path, seconds=HOLD_SECONDS, used=True) as held:
        await leave(held, giver)
        await trio.sleep(HOLD_SECONDS - 1)
        socket.create_connection(end).close()
        assert held.kernel.steps == ["guard"]
        await trio.sleep(2)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(end)
        assert held.kernel.steps == ["guard", "refuse"]
        assert held.log.about("no proxy has come: new connections are refused")
        assert serving(held.given_at) == 0


async def test_one_that_takes_and_dies_leaves_it_for_the_next(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path) as held:
        await leave(held, giver)
        for _ in range(3):
            inherited = await take_over(held.given_at, held.pins, False)
            assert len(inherited.listeners) == 2
            inherited.close()
            await wait_all_tasks_blocked()
        inherited = await take_over(held.given_at, held.pins, False)
        await inherited.tell("taken")
        await until(lambda: serving(held.given_at) == 0)
        inherited.close()


async def test_it_keeps_for_one_proxy_at_a_time(tmp_path: Path, giver: Giver) -> None:
    other = Giver()
    async with holding(tmp_path) as held:
        await leave(held, giver)
        assert not await park(held.place, held.pins, other, quiet())
        assert other.steps == []
    other.close()


@pytest.mark.parametrize("packet", [b"", b"nonsense", b"[]", b'{"take": 1}', b"x" * 70000])
async def test_nonsense_leaves_it_as_it_was(tmp_path: Path, giver: Giver, packet: bytes) -> None:
    async with holding(tmp_path) as held:
        with connected(held.place) as sock, suppress(OSError):  # one is too long to be sent
            sock.setblocking(True)
            sock.send(packet)
        await wait_all_tasks_blocked()
        await leave(held, giver)
        assert held.kernel.steps == ["guard"]


async def test_a_proxy_that_dies_while_it_leaves_things_leaves_nothing(tmp_path: Path, giver: Giver) -> None:
    async with holding(tmp_path) as held:
        with Channel(connected(held.place)) as channel:
            await channel.send({"keep": True})
            assert await channel.receive() is not None
            listeners = giver.listeners[7]
            await channel.send({"pod": 7}, [each.fileno() for each in listeners.all])
        await wait_all_tasks_blocked()
        assert held.kernel.steps == []
        assert serving(held.given_at) == 0
        await leave(held, giver)


async def test_its_socket_is_roots_alone(tmp_path: Path) -> None:
    async with holding(tmp_path) as held:
        assert stat.S_IMODE(held.place.stat().st_mode) == 0o600
        assert stat.S_IMODE(held.run_dir.stat().st_mode) == 0o700


# --- letting go ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "used", "frees"),
    [
        ((THERE,), False, False),
        ((THERE, failed(404)), False, True),
        ((THERE, THERE, GOING), False, True),
        ((THERE, failed(404), THERE), False, False),  # an API server that has just started
        ((THERE, failed(404), failed(500), failed(404), THERE), False, False),
        ((THERE, failed(404), failed(404), THERE), False, False),  # installed again: these are the next one's
        ((THERE, failed(404)), True, False),  # it does that itself
        ((THERE, failed(403)), False, False),  # a mistake in a Role frees nobody
        ((THERE, failed(500)), False, False),
        ((failed(0),), False, False),
    ],
)
async def test_while_no_proxy_runs_the_pods_go_where_the_daemon_set_is_gone(
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    answers: tuple[object, ...],
    used: bool,
    frees: bool,
) -> None:
    async with holding(tmp_path, *answers, used=used) as held:
        await trio.sleep(4 * LOOK_SECONDS)
        if frees:  # in a thread, for which the clock does not wait
            await until(lambda: held.log.about("uninstalled: pods leave the mesh"))
        assert ("free" in held.kernel.steps) == frees
        assert not held.over


async def test_nobody_is_asked_while_a_proxy_runs_or_nothing_is_pinned(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with holding(tmp_path, used=True) as held:
        await trio.sleep(100)
        assert len(held.server.asked) == 1  # whether it may
        held.kernel.used = False
        held.pins.rmdir()
        await trio.sleep(100)
        assert len(held.server.asked) == 1


@pytest.mark.parametrize(
    ("answers", "frees"),
    [
        ((THERE,), False),
        ((THERE, failed(404)), True),
        ((THERE, failed(403)), True),  # its Role has been uninstalled
        ((THERE, GOING), True),
        ((THERE, failed(404), failed(404), THERE), False),  # installed again meanwhile
    ],
)
async def test_told_to_end_it_frees_with_the_mesh_or_ends(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, answers: tuple[object, ...], frees: bool
) -> None:
    async with holding(tmp_path, *answers) as held:
        begun = trio.current_time()
        held.stop.ask()
        await until(lambda: held.over)
        assert ("free" in held.kernel.steps) == frees
        assert trio.current_time() - begun <= OWNER_SECONDS + 1


async def test_told_to_end_while_it_keeps_it_waits_for_the_next_proxy(
    tmp_path: Path, giver: Giver, autojump_clock: trio.testing.MockClock
) -> None:
    async with holding(tmp_path, seconds=HOLD_SECONDS) as held:
        await leave(held, giver)
        held.stop.ask()
        await trio.sleep(OWNER_SECONDS + 5)
        assert not held.over
        inherited = await take_over(held.given_at, held.pins, False)
        await inherited.tell("taken")
        await until(lambda: held.over)
        inherited.close()


async def test_what_it_keeps_ends_with_the_mesh(
    tmp_path: Path, giver: Giver, autojump_clock: trio.testing.MockClock
) -> None:
    end = giver.listeners[7].hbone.getsockname()
    async with holding(tmp_path, THERE, failed(404)) as held:
        await leave(held, giver)
        await trio.sleep(2 * LOOK_SECONDS)
        await until(lambda: held.log.about("uninstalled: pods leave the mesh"))
        assert held.kernel.steps == ["guard", "free"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(end)


# --- in the kernel -------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.mark.root
@pytest.mark.timeout(60)
@pytest.mark.parametrize("family", [IPv4Address, IPv6Address])
def test_guarded_calls_are_captured_whatever_was_taught(lab: Lab, tmp_path: Path, family: type) -> None:
    with RealKernel(lab) as kernel:
        pins = kernel.settings.pins
        pod = kernel.enroll("a")
        before = kernel.redirection.generation(pod.cookie)
        kernel.redirection.addresses.known(True)
        pinned = Pinned(pins, tmp_path)
        pinned.guard()
        assert kernel.redirection.generation(pod.cookie) > before
        assert not pinned.is_used()
        held = hold(pins)
        assert pinned.is_used()
        os.close(held)
        outcome = kernel.redirection.outcomes()
        sock = lab.a.socket(socket.AF_INET if family is IPv4Address else socket.AF_INET6, socket.SOCK_STREAM)
        with sock:
            sock.setblocking(False)
            sock.connect_ex(("192.0.2.9" if family is IPv4Address else "2001:db8::9", 80))
        now = kernel.redirection.outcomes()
        assert now["connect_captured"] == outcome["connect_captured"] + 1
        assert now["connect_outside"] == outcome["connect_outside"]
        pinned.refuse()


@pytest.mark.root
@pytest.mark.timeout(60)
def test_freed_nothing_is_left_of_it(lab: Lab, tmp_path: Path) -> None:
    with RealKernel(lab) as kernel:
        pins = kernel.settings.pins
        kernel.enroll("a")
        Detachments(tmp_path, pins).write(Detached(all=True))
        pinned = Pinned(pins, tmp_path)
        assert pinned.free() == 1
        assert not pins.exists()
        assert not Detachments(tmp_path, pins).read()
        assert pinned.free() is None
