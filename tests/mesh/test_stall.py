"""A proxy that is alive and stands still: callers are refused in bounded time, and what waited is not carried
out for those who have gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.mesh import lab
from tests.mesh.lab import Mesh, wait_until
from ztunnel.demo import run
from ztunnel.kernel.watchdog import STACKS_SECONDS

pytestmark = [pytest.mark.root, pytest.mark.timeout(60)]

MANIFESTS = lab.SHOP + lab.pod("shop/called", "node-2") + lab.pod("out/x", "node-1")
LEASE_SECONDS = 2.0
SOON_SECONDS = 3.0


@contextmanager
def stopped(mesh: Mesh, node: str) -> Iterator[None]:
    mesh.laboratory.kill_node(node, signal.SIGSTOP)
    try:
        yield
    finally:
        mesh.laboratory.kill_node(node, signal.SIGCONT)


_TRACE = """
import ctypes, os, select, sys
libc, pid = ctypes.CDLL(None, use_errno=True), int(sys.argv[1])
while True:
    # PTRACE_ATTACH: this thread alone.
    assert libc.ptrace(16, pid, 0, 0) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(pid, 0x40000000)  # __WALL
    with open(f"/proc/{pid}/syscall") as where:
        if not where.read().startswith("-1 "):  # it waits: not with the interpreter's lock, which all need
            break
    assert libc.ptrace(17, pid, 0, 0) == 0  # PTRACE_DETACH
    select.select((), (), (), 0.01)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_a_debugger(thread: int) -> Iterator[None]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _TRACE, str(thread)], stdin=pipe, stdout=pipe) as debugger:
        assert debugger.stdout
        assert debugger.stdout.readline() == b"held\n"
        yield
        debugger.communicate()


def wait(seconds: float) -> None:
    """Let time pass: for what depends on nothing else."""
    begun = time.monotonic()
    lab.wait_until(lambda: time.monotonic() - begun > seconds, "time passes", seconds + 5)


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_callers_of_a_node_that_stands_still_are_refused_soon(mesh: Mesh, family: lab.Family) -> None:
    address = mesh.address("shop/called", family)
    with stopped(mesh, "node-2"):
        wait(LEASE_SECONDS + 0.6)
        for port in (8080, 15008):
            begun = time.monotonic()
            assert isinstance(mesh.call("out/x", address, port).error, ConnectionRefusedError)
            assert time.monotonic() - begun < SOON_SECONDS
        # Its pods' own calls, captured: nobody would take them up.
        begun = time.monotonic()
        own = mesh.call("shop/called", mesh.address("shop/caller", family), 8080)
        assert isinstance(own.error, ConnectionRefusedError)
        assert time.monotonic() - begun < SOON_SECONDS
    wait_until(lambda: mesh.call("out/x", address, 8080).answers(), "it goes on")
    with stopped(mesh, "node-2"):
        wait(STACKS_SECONDS + 0.6)
    wait_until(lambda: mesh.grown("node-2", "ztunnel_stalls_total") >= 1, "it is counted")
    wait_until(lambda: mesh.find_lines("node-2", message="stood still"), "it is said")


@pytest.mark.parametrize("family", lab.TCP_FAMILIES)
def test_who_has_gone_meanwhile_is_not_carried_out(mesh: Mesh, family: lab.Family) -> None:
    listener = mesh.listen("shop/called")
    address = mesh.address("shop/called", family)
    with stopped(mesh, "node-2"):
        gone, waits = (mesh.call("out/x", address, listener.port) for _ in range(2))
        assert gone.error is None
        gone.sock.sendall(b"do it")
        wait(LEASE_SECONDS + 0.6)
        gone.sock.close()
    server = listener.accept()
    waits.sock.sendall(b"still here")
    assert server.recv(99) == b"still here"
    assert listener.nobody()
    mesh.expect("node-2", 1, "ztunnel_given_up_total")


def test_one_that_stands_still_ends_and_is_counted_by_the_next(mesh: Mesh) -> None:
    """By a debugger that holds its one thread, and no other."""
    before = mesh.figures("node-2").total("ztunnel_stall_exits_total")
    [pid] = run.processes(mesh.laboratory.names.proxy_cgroup("node-2"))
    with held_by_a_debugger(pid):
        wait_until(lambda: not run.processes(mesh.laboratory.names.proxy_cgroup("node-2")), "it ends", 15)
    said = mesh.laboratory.node_log("node-2")
    assert said.count("the main thread has stood still for") >= 2
    assert not mesh.call("out/x", mesh.address("shop/called"), 8080).answers()
    mesh.laboratory.start_node("node-2")
    wait_until(lambda: mesh.call("out/x", mesh.address("shop/called"), 8080).answers(), "the next serves")
    assert mesh.figures("node-2").total("ztunnel_stall_exits_total") == before + 1


def test_nothing_unexpected_was_logged(mesh: Mesh) -> None:
    for node in ("node-1", "node-2"):
        assert "Traceback" not in mesh.laboratory.node_log(node)
        assert mesh.figures(node).total("ztunnel_internal_errors_total") == 0
